"""Drawings and uploaded pictures, framed as the images of a data set are."""

import io
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from PIL import Image, ImageDraw
from scipy.ndimage import center_of_mass
from torch import Tensor

from rnp_lib.data.images import resize
from rnp_lib.data.png import read_colour, read_grey

FINE = 8  # drawn at this many times the resolution, then averaged: soft edges as in scanned ink
MAX_BYTES = 5_000_000
MAX_POINTS = 20_000


@dataclass(frozen=True)
class Frame:
    """How a data set frames its images, in shares of their side.

    Attributes:
        box: side of the square that the ink just fits into, or None where it stays as it is drawn.
        line: width of a pen's line.
        centre: where the ink's centre of mass is put, across and down.
    """

    box: float | None
    line: float
    centre: float = 0.5


# MNIST's digits are scaled to 20 of 28 pixels and centred by mass; the other numbers are medians
# of the test sets (line: twice the area of the ink by its outline).
FRAMES = {
    "mnist": Frame(20 / 28, 2.4 / 28),
    "omniglot": Frame(19 / 28, 1.7 / 28, 13 / 28),
    "fashion": Frame(1.0, 2.4 / 28),
    "strokes": Frame(22 / 28, 2.1 / 28, 13.5 / 28),
}
AS_DRAWN = Frame(None, 2.4 / 28)  # scenes, and sets of the user's own


def from_strokes(strokes: Sequence[Sequence], dataset: str, size: int, channels: int = 1) -> Tensor:
    """A drawing as the image (1, channels, size, size) in [0, 1] that a data set would make of it:
    in colour, black on white.

    Args:
        strokes: lines of a pen, each a list of points (x, y) from 0 to 1 across and down the pad.
        dataset: whose framing to follow (`FRAMES`).

    Raises:
        ValueError: nothing was drawn, too much was, or a point is no pair of numbers.
    """
    try:
        lines = [np.array(stroke, np.float64).reshape(-1, 2) for stroke in strokes if len(stroke)]
    except (TypeError, ValueError):
        raise ValueError("a drawing is a list of strokes, each a list of points (x, y).") from None
    if not lines:
        raise ValueError("nothing is drawn yet: draw on the pad with the mouse, a pen or a finger.")
    points = np.concatenate(lines)
    if len(points) > MAX_POINTS:
        raise ValueError(f"a drawing has at most {MAX_POINTS:,} points: got {len(points):,}.")
    if not np.isfinite(points).all():
        raise ValueError("a point of the drawing is not a pair of finite numbers.")
    frame, low, high = FRAMES.get(dataset, AS_DRAWN), points.min(0), points.max(0)
    line, side = frame.line, size * FINE
    if frame.box is not None:
        # A dot or a tiny mark is not blown up beyond four times its size.
        scale = (frame.box - line) / max((high - low).max(), (frame.box - line) / 4)
        lines = [(stroke - (low + high) / 2) * scale + 0.5 for stroke in lines]
    image = Image.new("L", (side, side))
    draw, radius = ImageDraw.Draw(image), line * side / 2
    for stroke in lines:
        xy = [(x * side, y * side) for x, y in stroke.clip(-1, 2)]
        draw.line(xy, fill=255, width=round(2 * radius))
        for x, y in xy:  # joints and ends
            draw.ellipse((x - radius, y - radius, x + radius, y + radius), fill=255)
    ink = _finish(np.asarray(image, np.float32) / 255, frame, size)
    return ink if channels == 1 else 1 - ink.expand(-1, channels, -1, -1)


def check_size(size: int) -> None:
    """Raises ValueError for a file of too many bytes."""
    if size > MAX_BYTES:
        most = MAX_BYTES // 10**6
        raise ValueError(f"the file has {size / 1e6:.1f} MB: choose one of {most} MB or less.")


def from_png(data: bytes, dataset: str, size: int, channels: int = 1) -> Tensor:
    """An uploaded PNG as the image (1, channels, size, size) in [0, 1] that a set would make of it.

    In colour it is taken as it is, padded to a square with what its border shows. For grey, of dark
    ink on a bright ground the negative is taken. Transparent parts are white paper.

    Raises:
        ValueError: the file is no PNG, is too large, or shows nothing.
    """
    check_size(len(data))
    if channels > 1:
        return _square(read_colour(io.BytesIO(data), "the picture"), size)
    ink = read_grey(io.BytesIO(data), "the picture").astype(np.float32) / 255
    border = np.concatenate([ink[0], ink[-1], ink[:, 0], ink[:, -1]])
    ground = np.median(border)
    ink = (ground - ink if ground > 0.5 else ink - ground).clip(0)
    if ink.max() < 0.1:
        raise ValueError("the picture shows nothing but its ground: choose one with ink on it.")
    ink = ink / ink.max()
    frame, picture = FRAMES.get(dataset, AS_DRAWN), Image.fromarray(ink)
    if frame.box is not None:
        picture = picture.crop(Image.fromarray(ink > 0.2).getbbox())
    side = size * FINE
    scale = (frame.box or 1) * side / max(picture.size)
    width, height = (max(1, round(n * scale)) for n in picture.size)
    # BOX when it shrinks is an average over areas; enlarged, pixels would show without BILINEAR.
    how = Image.Resampling.BOX if scale < 1 else Image.Resampling.BILINEAR
    canvas = Image.new("F", (side, side))
    canvas.paste(picture.resize((width, height), how), ((side - width) // 2, (side - height) // 2))
    return _finish(np.asarray(canvas), frame, size)


def _square(pixels: np.ndarray, size: int) -> Tensor:
    """uint8 (H, W, 3) -> (1, 3, size, size) in [0, 1], on the median colour of the border."""
    height, width, _ = pixels.shape
    border = np.concatenate([pixels[0], pixels[-1], pixels[:, 0], pixels[:, -1]])
    side = max(height, width)
    canvas = np.empty((side, side, 3), np.uint8)
    canvas[:] = np.median(border, 0)
    top, left = (side - height) // 2, (side - width) // 2
    canvas[top : top + height, left : left + width] = pixels
    return resize(torch.from_numpy(canvas).movedim(-1, 0)[None], size) / 255


def _finish(fine: np.ndarray, frame: Frame, size: int) -> Tensor:
    """The fine picture with its centre of mass where the frame wants it, at `size` pixels."""
    if fine.sum() == 0:
        raise ValueError("the drawing lies outside the pad: draw inside it.")
    if frame.box is not None:
        every = zip(np.nonzero(fine), center_of_mass(fine), strict=True)
        for axis, (ink, centre) in enumerate(every):
            shift = round(frame.centre * len(fine) - centre - 0.5)
            # Ink must stay inside.
            fine = np.roll(fine, np.clip(shift, -ink.min(), len(fine) - 1 - ink.max()), axis)
    image = fine.reshape(size, FINE, size, FINE).mean((1, 3))
    return torch.from_numpy(image.clip(0, 1)).float()[None, None]
