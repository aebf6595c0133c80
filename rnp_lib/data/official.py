"""The files that the authors of the public sets published: where they lie, reading, checking.

`read` checks every file by its SHA-256, whatever copy it is of.
"""

import hashlib
import io
import zipfile
import zlib
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from rnp_lib.data.images import SPLITS, Arrays, digest


class Corrupt(ValueError):
    """A file is there but is not the official one; the message names it."""


# name: class of torchvision and its folder, of whose files SHA256SUMS lists images and labels to
# train on, then to test on
IDX = {"mnist": "MNIST", "fashion": "FashionMNIST"}
SUMS = Path(__file__).with_name("SHA256SUMS").read_text(encoding="utf-8").split()
SHA256 = dict(zip(SUMS[1::2], SUMS[::2], strict=True))  # of each file by its path
DRAWERS = 20  # of every character of Omniglot
OMNIGLOT = {  # archive or folder: characters, `digest` of its content; to train on, then to test on
    "images_background": (964, "2a58c3eb74af0c3ce6ce5a7eabf1df8ae0935981513c9abaea886d32144f6ef5"),
    "images_evaluation": (659, "45d34bb7de744f487b5a77e0f1bb6c0d2c9b14e97130cd906cac85e66c074715"),
}


def files(name: str) -> list[str]:
    """Paths of a set's files in torchvision's layout."""
    if name == "omniglot":
        return [f"omniglot-py/{half}.zip" for half in OMNIGLOT]
    return [file for file in SHA256 if file.startswith(f"{IDX[name]}/")]


def read(name: str, root: Path) -> Arrays:
    """Both splits of a set in torchvision's layout under `root`, as they are on disk.

    Raises FileNotFoundError if a file is missing, Corrupt if one is not the official file.
    """
    if name == "omniglot":
        halves = zip(SPLITS, OMNIGLOT, strict=True)
        return {split: _read_omniglot(root / "omniglot-py", half) for split, half in halves}
    arrays = []
    for file in files(name):
        if not (root / file).is_file():
            raise FileNotFoundError(f"{file} is not there")
        content = (root / file).read_bytes()
        found = hashlib.sha256(content).hexdigest()
        if found != SHA256[file]:
            raise Corrupt(f"{root / file} is not the official file (its SHA-256 is {found})")
        arrays.append(_parse_idx(content))
    pairs = zip(SPLITS, arrays[::2], arrays[1::2], strict=True)
    return {split: (images[:, None], labels.long()) for split, images, labels in pairs}


def _parse_idx(content: bytes) -> Tensor:
    """The bytes that a file in LeCun's format holds, in their shape."""
    shape = np.frombuffer(content, ">u4", count=content[3], offset=4)
    pixels = np.frombuffer(content, np.uint8, offset=4 + shape.nbytes)
    return torch.from_numpy(pixels.reshape(shape).copy())


def write_idx(path: Path, array: np.ndarray) -> None:
    """Write bytes of any shape in LeCun's format."""
    header = np.array([0x800 + array.ndim, *array.shape], dtype=">u4")
    path.write_bytes(header.tobytes() + array.tobytes())


def _read_omniglot(folder: Path, half: str) -> tuple[Tensor, Tensor]:
    """One half, from its archive or else its extracted folder: black on white, labels (N,)."""
    problem: Exception = FileNotFoundError(f"{half}.zip and {half}/ are not there")
    for place in (folder / f"{half}.zip", folder / half):
        if place.exists():
            try:
                return _decode(place, *OMNIGLOT[half])
            except Corrupt as error:
                problem = error
    raise problem


def _decode(place: Path, count: int, content: str) -> tuple[Tensor, Tensor]:
    """Pixels and character numbers of an archive or a folder, if they are the official ones."""
    try:
        pictures = sorted(_pictures(place))
    except (zipfile.BadZipFile, zlib.error, OSError, EOFError) as error:
        raise Corrupt(f"{place} cannot be read ({error})") from error
    characters = sorted({parts[:-1] for parts, _ in pictures})
    number = {character: i for i, character in enumerate(characters)}
    if (len(number), len(pictures)) != (count, count * DRAWERS):
        raise Corrupt(
            f"{place} holds {len(pictures)} images of {len(number)} characters, "
            f"not {count * DRAWERS} of {count}"
        )
    images = torch.empty(len(pictures), 1, 105, 105, dtype=torch.uint8)
    for image, (parts, png) in zip(images.numpy(), pictures, strict=True):
        try:
            image[0] = Image.open(io.BytesIO(png)).convert("L")
        except (OSError, SyntaxError, ValueError) as error:
            raise Corrupt(f"{place}: {'/'.join(parts)} cannot be read ({error})") from error
    labels = torch.tensor([number[parts[:-1]] for parts, _ in pictures])
    if digest(images, labels) != content:
        raise Corrupt(f"{place} does not hold the official images")
    return images, labels


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
