"""What `rnp evaluate` says of a model is what the measures say one by one."""

from types import SimpleNamespace

import pytest
import tiny
import torch

from rnp_lib import data
from rnp_lib.analysis import parsing, scores, segmentation
from rnp_lib.analysis.classifier import Classifier
from rnp_lib.model import build

SMALL = {"z_dim": 4, "trunk_depth": 1, "trunk_width": 8, "rank": 4, "hidden": 8}


@pytest.fixture
def measured(monkeypatch):
    """A function: dataset, of what the model is -> its scores on 20 random images."""
    torch.manual_seed(0)
    classifier = Classifier(10).eval()
    monkeypatch.setattr(scores, "load_classifier", lambda name: classifier)
    monkeypatch.setitem(data.STROKES, "test", (20, 1))

    def load(name, split, size, channels=1):
        assert split == "test"
        generator = torch.Generator().manual_seed(1)
        return torch.rand(20, 1, size, size, generator=generator), torch.arange(20)

    monkeypatch.setattr(scores.data, "load", load)

    def scored(dataset, of=None, **changes):
        model = build(tiny.config(dataset=of or dataset, **SMALL | changes), 0).eval()
        return model, scores.on_test_images(model, dataset)

    return scored


def test_samples_are_read_where_a_classifier_knows_the_classes(measured):
    model, found = measured("mnist", image_size=28, patch_size=14)
    assert 0 <= found["samples_legible"] <= 1
    assert 0 <= found["smallest_class"] <= 0.1
    images, _ = data.load("mnist", "test", 28)
    expected = parsing.evaluate(model, images)
    assert {k: found[k] for k in expected} == expected
    assert "samples_legible" in measured("fashion", image_size=28, model="vae")[1]
    for other in ("strokes", "omniglot"):
        assert "samples_legible" not in measured(other)[1]


def test_parts_are_compared_with_what_is_known_of_them(measured):
    model, found = measured("strokes")
    expected = segmentation.evaluate_segmentation(model, 20, 1)
    assert {k: found[k] for k in expected} == expected
    assert "digits_read" in measured("scenes", image_size=56)[1]
    for kind in ({"model": "vae"}, {"of": "mnist"}):
        assert "ari_parts" not in measured("strokes", **kind)[1]
        assert "digits_read" not in measured("scenes", image_size=56, **kind)[1]


def test_a_class_never_drawn_has_no_share(measured, monkeypatch):
    one = SimpleNamespace(read=lambda x: (torch.ones(len(x)) > 0, torch.zeros(len(x)).long()))
    one.head = SimpleNamespace(out_features=10)
    monkeypatch.setattr(scores, "load_classifier", lambda name: one)
    _, found = measured("mnist", image_size=28, patch_size=14)
    assert found["samples_legible"] == 1
    assert found["smallest_class"] == 0


def test_pictures_are_cut_out_around_the_middle_of_their_ink():
    pictures = torch.zeros(3, 1, 12, 12)
    pictures[0, 0, 2:5, 7:10] = torch.rand(3, 3, generator=torch.Generator().manual_seed(0)) + 1
    pictures[1, 0, 7:10, 1:4] = pictures[0, 0, 2:5, 7:10]
    cut = scores.centred(pictures, 6)
    assert cut.shape == (3, 1, 6, 6)
    assert torch.equal(cut[0], cut[1])  # the same wherever it lay
    assert torch.isclose(cut[0].sum(), pictures[0].sum())
    row, column = (cut[0, 0].sum(d) @ torch.arange(6.0) / cut[0].sum() for d in (1, 0))
    assert max(abs(row - 3), abs(column - 3)) <= 0.5
    assert not cut[2].any()  # blank
    corner = torch.zeros(1, 1, 12, 12)
    corner[0, 0, 11, 0] = 1
    assert scores.centred(corner, 6).nonzero().tolist() == [[0, 0, 3, 3]]


def test_digits_of_scenes_are_read_from_the_parts_that_draw_them():
    """Parts as bright as the digit they show, and a reader of brightness."""
    digits = torch.tensor([[3, 1, 4, 1], [5, 9, 2, 6]])
    drawn = torch.tensor([[1, 3, 1, 1], [5, 5, 5, 0]])  # three of the four, and one

    def parse(scenes):
        parts = torch.zeros(len(scenes), 4, 1, 56, 56)
        parts[:, :, 0, 10:14, 20:24] = scenes[:, 0, 0, :4, None, None]
        return SimpleNamespace(parts=parts)

    scenes = torch.zeros(2, 1, 56, 56)
    scenes[:, 0, 0, :4] = (drawn + 1) / 10
    reader = SimpleNamespace(read=lambda x: (None, (x.amax((1, 2, 3)) * 10).round().long() - 1))
    labels = digits @ torch.tensor([1000, 100, 10, 1])
    found = scores.evaluate_digits(SimpleNamespace(parse=parse), reader, scenes, labels)
    assert found == {"n": 2, "digits_read": 0.5, "digits_read_stderr": pytest.approx(0.25)}
