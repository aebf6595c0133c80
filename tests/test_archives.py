"""Omniglot's archives: reading, checking, downloading; pen strokes and one-shot runs in them."""

import io
import zipfile

import numpy as np
import pytest
import torch.nn.functional as F
from PIL import Image

from rnp_lib import alphabets, data
from rnp_lib.data import archives, pen, runs, sources
from rnp_lib.data.sources import DataUnavailable

TEXT = "START\n1.5,-2,0\n3,-4.5,10\nBREAK\n5,-6,20\nBREAK\n"


@pytest.fixture
def place(tmp_path, monkeypatch):
    """An empty data/, no RNP_DATA, and archives of one drawing each to download."""
    monkeypatch.setattr(sources, "DATA", tmp_path / "data")
    monkeypatch.delenv("RNP_DATA", raising=False)
    monkeypatch.delenv("RNP_OFFLINE", raising=False)
    monkeypatch.setattr(archives, "URL", tmp_path.as_uri())
    for archive, name in zip(
        pen.ARCHIVES, ("Greek/character02/0001_03", "Latin/character01/0002_20"), strict=True
    ):
        with zipfile.ZipFile(tmp_path / archive, "w") as made:
            made.writestr(f"strokes/{name}.txt", TEXT)
            made.writestr("strokes/.DS_Store", "")
        key = (*name.split("/")[:2], f"{name.split('/')[2]}.txt")
        monkeypatch.setitem(archives.DIGESTS, archive, archives.digest({key: TEXT.encode()}))
    return tmp_path / "data" / "omniglot-py"


def test_drawings_are_downloaded_once_and_know_their_images(place, monkeypatch):
    first, second = pen.drawings()
    assert (first.label, first.index) == (
        alphabets.labels("Greek")[1],
        alphabets.labels("Greek")[1] * 20 + 2,
    )
    assert second.index == alphabets.labels("Latin")[0] * 20 + 19
    assert [stroke.tolist() for stroke in first.strokes] == [[[1.5, 2], [3, 4.5]], [[5, 6]]]
    assert sorted(path.name for path in place.iterdir()) == sorted(pen.ARCHIVES)
    monkeypatch.setenv("RNP_OFFLINE", "1")
    assert len(pen.drawings()) == 2


def test_a_damaged_archive_is_replaced(place):
    place.mkdir(parents=True)
    for archive in pen.ARCHIVES:
        (place / archive).write_bytes(b"half of it")
    assert len(pen.drawings()) == 2
    assert all(zipfile.is_zipfile(path) for path in place.iterdir())


def test_what_is_not_the_official_archive_is_refused(place, monkeypatch):
    monkeypatch.setitem(archives.DIGESTS, pen.ARCHIVES[1], "another digest")
    with pytest.raises(DataUnavailable, match="small2.zip: it does not hold the official files"):
        pen.drawings()
    assert [path.name for path in place.iterdir()] == ["strokes_background_small1.zip"]


def test_offline_it_says_what_to_put_where(place, monkeypatch):
    monkeypatch.setenv("RNP_OFFLINE", "1")
    with pytest.raises(
        DataUnavailable, match="small1.zip is not available .*: put it, of .*into .*data"
    ):
        pen.drawings()


def test_the_labels_of_alphabets_are_their_places():
    assert alphabets.labels("Alphabet_of_the_Magi", "Tifinagh") == (*range(20), *range(909, 964))
    assert sum(alphabets.BACKGROUND.values()) == 964
    assert {*alphabets.WITH_STROKES, *alphabets.VALIDATION} <= {*alphabets.BACKGROUND}


@pytest.mark.full_data("omniglot")
def test_the_pen_passes_over_the_ink():
    drawings = pen.drawings()
    assert len(drawings) == sum(alphabets.BACKGROUND[name] for name in alphabets.WITH_STROKES) * 20
    images, labels = data.load("omniglot", size=105)
    near = F.max_pool2d(images[[one.index for one in drawings[::97]]], 3, 1, 1)
    for one, image in zip(drawings[::97], near, strict=True):
        x, y = np.concatenate(one.strokes).round().astype(int).clip(0, 104).T
        assert labels[one.index] == one.label
        assert image[0, y, x].mean() > 0.95


def test_runs_are_of_a_known_and_a_new_image_of_every_character(tmp_path, monkeypatch):
    monkeypatch.setenv("RNP_DATA", str(tmp_path))
    (tmp_path / "omniglot-py").mkdir()
    made = {}
    for run in ("run01", "run02"):
        pairs = "run/test/item01.png run/training/class02.png\n"
        pairs += "run/test/item02.png run/training/class01.png\n"
        made[run, "class_labels.txt"] = pairs.replace("run/", f"{run}/").encode()
        for part, name, dark in (
            *(("training", f"class0{i}", 10 * i) for i in (1, 2)),
            *(("test", f"item0{i}", 20 * i) for i in (1, 2)),
        ):
            file = io.BytesIO()
            Image.fromarray(np.full((105, 105), 255 - dark, np.uint8)).save(file, "PNG")
            made[run, part, f"{name}.png"] = file.getvalue()
    with zipfile.ZipFile(tmp_path / "omniglot-py" / "all_runs.zip", "w") as archive:
        for name, content in made.items():
            archive.writestr("/".join(name), content)
    monkeypatch.setitem(archives.DIGESTS, runs.ARCHIVE, archives.digest(made))

    first, second = runs.official(size=14)
    for run in (first, second):
        assert run.known.shape == run.new.shape == (2, 1, 14, 14)
        assert (run.known[:, 0, 3, 3] * 255).tolist() == pytest.approx([10, 20])
        assert (run.new[:, 0, 3, 3] * 255).tolist() == pytest.approx([20, 40])
        assert run.labels.tolist() == [1, 0]


@pytest.mark.full_data("omniglot")
def test_the_official_runs_are_of_images_that_no_model_trains_on():
    found = runs.official()
    assert len(found) == 20
    evaluation = (data.load("omniglot", "test")[0] * 255).round().flatten(1)
    for run in found[::7]:
        assert sorted(run.labels.tolist()) == list(range(20))
        for image in (run.known[0], run.new[-1]):
            off = (evaluation - (image * 255).round().flatten()).abs().amax(1)
            assert off.min() == 0
