"""PNG files from outside, as grey pictures or in colour."""

import warnings
from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO

import numpy as np
from PIL import Image, UnidentifiedImageError

MAX_PIXELS = 16_000_000


def read_grey(file: Path | BinaryIO, name: str) -> np.ndarray:
    """A PNG as uint8 (H, W), of 16 bits a pixel too; transparent parts are white paper.

    Raises ValueError, which calls the file `name`, if it cannot be read or has over MAX_PIXELS.
    """
    return _read(file, name, _grey)


def read_colour(file: Path | BinaryIO, name: str) -> np.ndarray:
    """As `read_grey`, but red, green and blue: uint8 (H, W, 3)."""
    return _read(file, name, _colour)


def _read(
    file: Path | BinaryIO, name: str, pixels: Callable[[Image.Image], np.ndarray]
) -> np.ndarray:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)
            with Image.open(file, formats=["PNG"]) as image:
                width, height = image.size
                if width * height <= MAX_PIXELS:
                    return pixels(image)
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
    return np.array(_on_white(image).convert("L"))


def _colour(image: Image.Image) -> np.ndarray:
    if image.mode.startswith("I"):
        return _grey(image)[..., None].repeat(3, -1)
    return np.array(_on_white(image).convert("RGB"))


def _on_white(image: Image.Image) -> Image.Image:
    if not image.has_transparency_data:
        return image
    return Image.alpha_composite(Image.new("RGBA", image.size, "white"), image.convert("RGBA"))
