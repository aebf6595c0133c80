"""A user's own images: a folder of PNGs."""

import warnings
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from rnp_lib.data.images import SPLITS, Arrays, resize
from rnp_lib.data.png import read_colour, read_grey

TINT = 16  # of 255: how far red, green and blue may be apart in a picture that counts as grey


def in_colour(root: Path) -> bool:
    """Whether any PNG of a folder is."""
    pictures = (read_colour(path, str(path)) for path, _ in _found(root))
    return any((np.ptp(pixels, -1) > TINT).any() for pixels in pictures)


def read_folder(root: Path, size: int, channels: int = 1) -> Arrays:
    """Both splits, uint8 (N, channels, size, size), grey ones ink bright and coloured ones as they
    are; a file's sub-folder is its label."""
    if all((root / split).is_dir() for split in SPLITS):
        found = {split: _found(root / split) for split in SPLITS}
    else:
        every = _found(root)
        found = {"train": [png for i, png in enumerate(every) if i % 10], "test": every[::10]}
    for split, pngs in found.items():
        if not pngs:
            raise ValueError(
                f"{root} has no PNG for the {split} split: give it at least two, "
                "or some in each of the sub-folders train/ and test/"
            )
    classes = sorted({label for pngs in found.values() for _, label in pngs})
    arrays = {
        split: (
            torch.cat([resize(_read_png(path, channels), size) for path, _ in pngs]),
            torch.tensor([classes.index(label) for _, label in pngs]),
        )
        for split, pngs in found.items()
    }
    every_image = torch.cat([images for images, _ in arrays.values()])
    _check(every_image, root)
    if channels == 1 and every_image.float().mean() > 127.5:
        return {split: (255 - images, labels) for split, (images, labels) in arrays.items()}
    return arrays


def _found(root: Path) -> list[tuple[Path, Path]]:
    """(PNG, the sub-folder it lies in) of everything under a folder, in order."""
    paths = sorted(root.rglob("*.[pP][nN][gG]"))
    return [(path, path.parent.relative_to(root)) for path in paths]


def _read_png(path: Path, channels: int) -> Tensor:
    """uint8 (1, channels, S, S)."""
    name = str(path)
    pixels = read_grey(path, name)[..., None] if channels == 1 else read_colour(path, name)
    height, width, _ = pixels.shape
    if height != width:
        raise ValueError(f"{path} is {width}×{height} pixels: crop or pad it to a square")
    return torch.from_numpy(pixels).movedim(-1, 0)[None]


def _check(images: Tensor, root: Path) -> None:
    """Warns of images that show nothing, and of grey ones whose grounds are light here, dark there.

    images: uint8 (N, C, S, S).
    """
    blank = int((images.amax((2, 3)) == images.amin((2, 3))).all(1).sum())
    if blank == len(images):
        raise ValueError(f"all {blank} images in {root} are blank: there is nothing to learn.")
    border = torch.cat([images[..., [0, -1], :].flatten(1), images[..., [0, -1]].flatten(1)], 1)
    light = (border.float().median(1).values > 127.5).float().mean().item()
    if blank:
        warnings.warn(f"{blank} of {len(images)} images in {root} are blank.", stacklevel=2)
    if images.shape[1] == 1 and 0 < light < 1:
        warnings.warn(
            f"{light:.0%} of the images in {root} have a light ground and the others a dark one: "
            "all are inverted alike, or none is; make them alike if it is not the ink that "
            "reaches the border.",
            stacklevel=2,
        )
