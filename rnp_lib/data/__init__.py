"""One loader for every data set: images float32 (N, C, size, size) in [0, 1], grey ones ink bright.

    images, labels = load("mnist", "train")

Where the sets come from, say `sources` and data/README.md.
"""

from functools import lru_cache
from pathlib import Path

import torch
from torch import Tensor

from rnp_lib.data import cache, official, sources
from rnp_lib.data.combinations import KINDS, combinations
from rnp_lib.data.counting import Counted, counting
from rnp_lib.data.folder import in_colour as in_colour  # for users, as `digest`
from rnp_lib.data.folder import read_folder
from rnp_lib.data.images import SPLITS, Arrays, resize
from rnp_lib.data.images import digest as digest
from rnp_lib.data.paint import paint
from rnp_lib.data.scenes import scenes
from rnp_lib.data.sources import DataUnavailable
from rnp_lib.data.strokes import strokes

NAMES = (
    "mnist",
    "mnist-binary",
    "fashion",
    "omniglot",
    "strokes",
    "combinations",
    "scenes",
    "counting",
)
CACHE_VERSION = 1  # raise it when what is stored for Omniglot changes

# The sets that are made here: split -> number of images, seed.
STROKES = {"train": (60_000, 0), "test": (2_000, 1)}
COMBINATIONS = {"train": (30_000, 0, KINDS[:1]), "test": (3_000, 1, KINDS)}  # and kinds
SCENES = {"train": (30_000, 0), "test": (2_000, 1)}
COUNTING = {"train": (40_000, 0), "test": (2_500, 1)}
DRAWN = ("strokes", "combinations")


def load(
    name: str, split: str = "train", size: int = 28, channels: int = 1
) -> tuple[Tensor, Tensor]:
    """Images float32 (N, channels, size, size) in [0, 1], and labels int64 (N,).

    Args:
        name: one of NAMES, or a folder of PNGs (searched recursively, labelled by sub-folder). Its
            splits are its sub-folders train/ and test/, else every tenth file in sorted order is
            test. If the mean of a grey folder is over 0.5 (dark ink on white), all its images are
            inverted.
        split: "train" or "test". Omniglot trains on the 964 background characters and tests on the
            659 of the evaluation set. Its label is the character's index in sorted order.
        size: side in pixels; images of another size are box averaged (or enlarged bilinearly).
        channels: 1 for grey, ink bright; 3 for red, green and blue. Grey sets are then painted
            (`paint`), a folder is in the colours that it has.

    Raises DataUnavailable if no source has the set, ValueError for a wrong argument or PNG.
    """
    if split not in SPLITS:
        raise ValueError(f"split {split!r} is neither 'train' nor 'test'")
    if channels not in (1, 3):
        raise ValueError(f"channels must be 1 (grey) or 3 (colour): got {channels!r}.")
    if name in NAMES and channels == 3:
        images, labels = load(name, split, size)
        return paint(images, SPLITS.index(split)), labels
    if name in DRAWN:
        images, labels = _drawn(name, split, size)
        return images.clone(), labels.clone()
    if name == "scenes":
        images, labels = scenes(*sources.obtain("mnist")[0][split], *SCENES[split])
    elif name == "counting":
        images, labels, *_ = counted(split)
    elif name == "mnist-binary":
        images, labels = _official("mnist", size)[0][split]
        images = binarised(images, SPLITS.index(split))
    elif name in NAMES:
        images, labels = _official(name, size)[0][split]
    elif Path(name).is_dir():
        images, labels = read_folder(Path(name), size, channels)[split]
    else:
        raise ValueError(f"{name!r} is neither one of {', '.join(NAMES)} nor a folder of PNGs")
    return resize(images, size).float() / 255, labels


def binarised(images: Tensor, seed: int) -> Tensor:
    """Images uint8 as black or white pixels, 0 or 255, drawn once, each white with its brightness
    as probability."""
    generator = torch.Generator().manual_seed(seed)
    drawn = torch.rand(images.shape, generator=generator) < images / 255
    return drawn.to(torch.uint8) * 255


def counted(split: str) -> Counted:
    """The canvases of "counting", whose labels are how many digits they hold, and what is on them.

    Raises DataUnavailable if MNIST cannot be had.
    """
    return counting(*sources.obtain("mnist")[0][split], *COUNTING[split])


def leave_out(images: Tensor, labels: Tensor, classes: tuple[int, ...]) -> tuple[Tensor, Tensor]:
    """The images and labels whose label is not one of `classes`.

    Raises ValueError for a class that no image has, or if no image is left.
    """
    absent = sorted(set(classes) - set(labels.unique().tolist()))
    if absent:
        raise ValueError(f"cannot leave out class {absent[0]}: no image has that label.")
    keep = ~torch.isin(labels, torch.tensor(classes, dtype=labels.dtype))
    if not keep.any():
        raise ValueError("no image is left without its classes: leave out fewer of them.")
    return images[keep], labels[keep]


def load_or_stand_in(name: str, split: str = "train", size: int = 28) -> tuple[Tensor, Tensor, str]:
    """`load`, or the synthetic "strokes" where the set cannot be had: images, labels, set used."""
    try:
        return *load(name, split, size), name
    except DataUnavailable:
        print(f"{name} is not available (`rnp data` says why): using 'strokes' in its place")
        return *load("strokes", split, size), "strokes"


def fetch(name: str) -> str:
    """Make one of NAMES available on this machine; one line on what it is and where it is from.

    Raises DataUnavailable if no source has it, ValueError for an unknown name.
    """
    if name not in NAMES:
        raise ValueError(f"{name!r} is not one of {', '.join(NAMES)}")
    if name in DRAWN:
        splits = STROKES if name == "strokes" else COMBINATIONS
        counts, where = [count for count, *_ in splits.values()], "drawn from a seed when loaded"
    elif name in ("scenes", "counting"):
        counts = [count for count, _ in (SCENES if name == "scenes" else COUNTING).values()]
        where = f"composed when loaded, of mnist {sources.obtain('mnist')[1]}"
    else:
        arrays, where = _official("mnist" if name == "mnist-binary" else name, 28)
        counts = [len(arrays[split][0]) for split in SPLITS]
    return f"{name}: {counts[0]:,} training and {counts[1]:,} test images, {where}"


@lru_cache(maxsize=len(SPLITS))
def _drawn(name: str, split: str, size: int) -> tuple[Tensor, Tensor]:
    """A synthetic set, kept in memory: drawing its training split takes seconds."""
    if name == "combinations":
        drawn = combinations(*COMBINATIONS[split], size)
    else:
        drawn = strokes(*STROKES[split], size)
    return drawn.images, drawn.labels


def _official(name: str, size: int) -> tuple[Arrays, str]:
    """Both splits, ink bright, uint8 (N, 1, S, S), and where they came from.

    S is 28, but for Omniglot, which is kept as it was resized.
    """
    if name != "omniglot":
        return sources.obtain(name)
    path = sources.DATA / f"omniglot-{size}.safetensors"
    key = " ".join([str(CACHE_VERSION), *(content for _, content in official.OMNIGLOT.values())])
    if (arrays := cache.read(path, key)) is not None:
        return arrays, f"from {path}"
    arrays, where = sources.obtain(name)
    arrays = {split: (resize(255 - x, size), y) for split, (x, y) in arrays.items()}
    cache.write(path, key, arrays)
    return arrays, where
