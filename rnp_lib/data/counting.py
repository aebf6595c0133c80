"""Canvases of none to four digits, anywhere: how many are there, and which?"""

import math
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from rnp_lib.data.scenes import SIDE

MOST = 4  # digits of a canvas
BLANK = 4  # pixels around the ink of a digit's image: these may lie outside
APART = 18  # pixels between the middles of two digits, at least: they hardly overlap
INK = 64  # of 255: from here on a pixel is a digit's


class Counted(NamedTuple):
    """n canvases and what is on them.

    images: uint8 (n, 1, SIDE, SIDE), ink bright.
    counts: int64 (n,), how many digits.
    digits: int64 (n, MOST), which, -1 for none.
    owners: int64 (n, SIDE, SIDE), the digit that each pixel belongs to, from 0; -1 without ink.
    """

    images: Tensor
    counts: Tensor
    digits: Tensor
    owners: Tensor


def counting(
    digits: Tensor,
    labels: Tensor,
    n: int,
    seed: int,
    counts: Sequence[int] = range(MOST + 1),
) -> Counted:
    """n canvases of as many digits as `counts` says, in turn.

    Args:
        digits: uint8 (N, 1, 28, 28), ink bright; labels: int64 (N,).
    """
    generator = torch.Generator().manual_seed(seed)
    count = torch.tensor(counts)[torch.arange(n) % len(counts)]
    there = torch.arange(MOST) < count[:, None]
    chosen = torch.randint(len(digits), (n, MOST), generator=generator)
    corners = _corners(there, SIDE - digits.shape[-1] + 2 * BLANK, generator)
    canvas = torch.zeros(n, SIDE + 2 * BLANK, SIDE + 2 * BLANK, dtype=torch.uint8)
    owners = torch.full(canvas.shape, -1)
    line = torch.arange(digits.shape[-1])
    for i in range(MOST):
        which = there[:, i].nonzero().flatten()
        rows, columns = corners[which, i].T[:, :, None] + line  # (N, 28) each
        place = which[:, None, None], rows[:, :, None], columns[:, None, :]
        digit = digits[chosen[which, i], 0]
        owners[place] = torch.where(digit > canvas[place], i, owners[place])
        canvas[place] = torch.maximum(canvas[place], digit)
    inside = slice(BLANK, BLANK + SIDE)
    canvas, owners = canvas[:, inside, inside], owners[:, inside, inside]
    which = labels[chosen].masked_fill(~there, -1)
    return Counted(canvas[:, None], count, which, owners.masked_fill(canvas < INK, -1))


def _corners(there: Tensor, high: int, generator: torch.Generator) -> Tensor:
    """Places from 0 to `high` for those that are there (n, MOST), by lot, none of them near another
    of its canvas: int64 (n, MOST, 2)."""
    corners = torch.randint(high + 1, (*there.shape, 2), generator=generator)
    alone = ~(there[:, :, None] & there[:, None]) | torch.eye(there.shape[1], dtype=torch.bool)
    while True:
        apart = torch.cdist(corners.double(), corners.double()).masked_fill(alone, math.inf)
        near = (apart < APART).any((1, 2))
        if not near.any():
            return corners
        again = (int(near.sum()), *corners.shape[1:])
        corners[near] = torch.randint(high + 1, again, generator=generator)
