"""Canvases of several digits: one level more than a digit has."""

import torch
from torch import Tensor

SIDE = 56  # of a scene, pixels: four digits of 28 fit
DIGITS = 4
WANDER = 5  # how far a digit may lie from the middle of its quarter, pixels


def scenes(digits: Tensor, labels: Tensor, n: int, seed: int) -> tuple[Tensor, Tensor]:
    """n scenes of four digits, one in each quarter but not always in its middle.

    Args:
        digits: uint8 (N, 1, 28, 28), ink bright; labels: int64 (N,).

    Returns:
        uint8 (n, 1, 56, 56), and int64 (n,) whose four decimal digits are the digits row by row.
    """
    generator = torch.Generator().manual_seed(seed)
    chosen = torch.randint(len(digits), (n, DIGITS), generator=generator)
    shift = torch.randint(-WANDER, WANDER + 1, (n, DIGITS, 2), generator=generator)
    side = digits.shape[-1]
    canvas = torch.zeros(n, SIDE + 2 * WANDER, SIDE + 2 * WANDER, dtype=torch.uint8)
    scene, line = torch.arange(n)[:, None, None], torch.arange(side)
    for quarter in range(DIGITS):
        corner = torch.tensor(divmod(quarter, 2)) * side + WANDER
        rows, columns = (corner + shift[:, quarter]).T[:, :, None] + line  # (n, 28) each
        place = scene, rows[:, :, None], columns[:, None, :]
        canvas[place] = torch.maximum(canvas[place], digits[chosen[:, quarter], 0])
    inside = slice(WANDER, WANDER + SIDE)
    return canvas[:, None, inside, inside], labels[chosen] @ torch.tensor([1000, 100, 10, 1])
