"""If the image is moved, do its parts move with it, and stay what they are?"""

import math

import torch
from torch import Tensor

from rnp_lib.model.batched import batched
from rnp_lib.model.objective import squared_error
from rnp_lib.model.rnp import RNP
from rnp_lib.model.transforms import place

# By how much an image is changed: shifted to the right, in pixels; turned about its middle, from x
# towards y, in degrees; made larger about its middle, by a factor.
AMOUNTS = {
    "shift": (-3, -2, -1, 1, 2, 3),
    "turn": (-30, -20, -10, 10, 20, 30),
    "size": (0.8, 0.9, 1.1, 1.2),
}
CORNERS = torch.tensor([[-1.0, -1], [1, -1], [-1, 1], [1, 1]])


def change(kind: str, amount: float, side: int) -> Tensor:
    """The map (2, 3) by which an image of `side` pixels is changed, a kind and amount of AMOUNTS.

    Raises ValueError for another kind.
    """
    if kind == "shift":
        return torch.tensor([[1.0, 0, 2 * amount / (side - 1)], [0, 1, 0]])
    if kind == "turn":
        cos, sin = math.cos(math.radians(amount)), math.sin(math.radians(amount))
        return torch.tensor([[cos, -sin, 0], [sin, cos, 0]])
    if kind == "size":
        return torch.tensor([[amount, 0.0, 0], [0, amount, 0]])
    raise ValueError(f"kind must be one of {', '.join(AMOUNTS)}: got {kind!r}.")


def apply(matrix: Tensor, points: Tensor) -> Tensor:
    """Points (..., n, 2) where maps (..., 2, 3) take them."""
    return points @ matrix[..., :2].mT + matrix[..., None, :, 2]


def follow(model: RNP, images: Tensor, kind: str, amount: float) -> dict[str, float]:
    """What the parts of the root do when images are changed.

    Args:
        images: (N, 1, H, W) on the model's device.

    Returns:
        windows: how far windows follow, 1 - a / b: a is the mean squared distance of their corners
        from where the change takes those of the unchanged image, b the same of windows that stay;
        codes: how much the parts' programs change, their mean squared distance from those of the
        unchanged image, in units of that between the same turns of different images; sse: of the
        changed images, and sse_before.
    """
    matrix = change(kind, amount, images.shape[-1]).to(images)
    corners = CORNERS.to(images)

    def parts(x: Tensor) -> tuple[Tensor, ...]:
        tree = model.parse(x)
        windows = torch.stack([apply(child.affine, corners) for child in tree.children], 1)
        codes = torch.stack([child.z for child in tree.children], 1)
        return windows, codes, squared_error(tree.canvas, x)

    changed = batched(lambda x: place(x, matrix.expand(len(x), 2, 3), x.shape[-1]), images)
    stay, before, sse_before = batched(parts, images)
    windows, codes, sse = batched(parts, changed)
    ideal = apply(matrix, stay.flatten(0, 2)).view_as(stay)
    off, moved = ((each - ideal).square().mean() for each in (windows, stay))
    between = 2 * before.var(0).mean()  # of two images drawn at random
    return {
        "windows": float(1 - off / moved),
        "codes": float((codes - before).square().mean() / between),
        "sse": float(sse.mean()),
        "sse_before": float(sse_before.mean()),
    }
