"""A user's own images: a folder of PNGs."""

from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from rnp_lib.data.images import SPLITS, Arrays, resize


def read_folder(root: Path, size: int) -> Arrays:
    """Both splits, ink bright, uint8 (N, 1, size, size); a file's sub-folder is its label."""
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
            torch.cat([resize(_read_png(path), size) for path, _ in pngs]),
            torch.tensor([classes.index(label) for _, label in pngs]),
        )
        for split, pngs in found.items()
    }
    if torch.cat([images for images, _ in arrays.values()]).float().mean() > 127.5:
        return {split: (255 - images, labels) for split, (images, labels) in arrays.items()}
    return arrays


def _found(root: Path) -> list[tuple[Path, Path]]:
    """(PNG, the sub-folder it lies in) of everything under a folder, in order."""
    paths = sorted(root.rglob("*.[pP][nN][gG]"))
    return [(path, path.parent.relative_to(root)) for path in paths]


def _read_png(path: Path) -> Tensor:
    """Greyscale uint8 (1, 1, S, S); transparent parts count as white paper."""
    try:
        with Image.open(path) as image:
            if image.mode.startswith("I"):
                raise ValueError(f"{path} has 16 bits a pixel: save it with 8")
            if image.has_transparency_data:
                drawn = image.convert("RGBA")
                image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), drawn)
            pixels = np.array(image.convert("L"))
    except (OSError, SyntaxError) as why:
        raise ValueError(f"{path} cannot be read as a PNG ({why}): remove or repair it") from why
    height, width = pixels.shape
    if height != width:
        raise ValueError(f"{path} is {width}×{height} pixels: crop or pad it to a square")
    return torch.from_numpy(pixels)[None, None]
