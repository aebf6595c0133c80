"""PNG files from outside, as grey pictures."""

import warnings
from pathlib import Path
from typing import BinaryIO

import numpy as np
from PIL import Image, UnidentifiedImageError

MAX_PIXELS = 16_000_000


def read_grey(file: Path | BinaryIO, name: str) -> np.ndarray:
    """A PNG as uint8 (H, W), of 16 bits a pixel too; transparent parts are white paper.

    Raises ValueError, which calls the file `name`, if it cannot be read or has over MAX_PIXELS.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)
            with Image.open(file, formats=["PNG"]) as image:
                width, height = image.size
                if width * height <= MAX_PIXELS:
                    return _grey(image)
    except UnidentifiedImageError:
        raise ValueError(f"{name} is not a PNG: make it one, or leave it out.") from None
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise ValueError(
            f"{name} cannot be read as a PNG ({error}): repair it, or leave it out."
        ) from None
    raise ValueError(
        f"{name} has {width}×{height} pixels: make it smaller than "
        f"{MAX_PIXELS / 1e6:.0f} megapixels."
    )


def _grey(image: Image.Image) -> np.ndarray:
    if image.mode.startswith("I"):  # 16 bits
        return (np.array(image).clip(0, 65535) / 257).round().astype(np.uint8)
    if image.has_transparency_data:
        paper = Image.new("RGBA", image.size, "white")
        image = Image.alpha_composite(paper, image.convert("RGBA"))
    return np.array(image.convert("L"))
