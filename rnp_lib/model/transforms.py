"""Where a child lies in its parent's frame: actions, affine maps, and the sampler that draws them.

Frames are square with x to the right and y down, both from -1 to 1 between the centres of the
border pixels (`align_corners=True`).
"""

import math

import torch
import torch.nn.functional as F
from torch import Tensor


def affine(
    action: Tensor,
    extent: tuple[float, float],
    rotation: float = 90.0,
    shear: float = 0.3,
    centre: float = 0.7,
) -> Tensor:
    """The map from the child's frame to its parent's, p = R(angle) S(shear) diag(scale) c + centre.

    Args:
        action: (..., 6) in [-1, 1]: log-scale in x and y, rotation, shear, centre x and y.
        extent: smallest and largest side of the child, in sides of the parent; an action of 0 is
            their geometric mean.
        rotation: angle at an action of 1, degrees (positive turns x towards y).
        shear: tangent of the shear at an action of 1; it keeps the area.
        centre: offset of the child's centre at an action of 1, in half sides of the parent.

    Returns:
        (..., 2, 3) matrices. The centre depends on its own two numbers alone.
    """
    # Half precision would move children by up to a twentieth of a pixel.
    action = action.to(torch.promote_types(action.dtype, torch.float32))
    low, high = (math.log(side) for side in extent)
    scale = torch.exp(low + (high - low) * (action[..., :2] + 1) / 2)
    angle = math.radians(rotation) * action[..., 2]
    k = shear * action[..., 3]
    cos, sin = torch.cos(angle), torch.sin(angle)
    x_axis = torch.stack([cos, sin], -1) * scale[..., :1]
    y_axis = torch.stack([k * cos - sin, k * sin + cos], -1) * scale[..., 1:]
    return torch.stack([x_axis, y_axis, centre * action[..., 4:]], -1)


def invert(matrix: Tensor) -> Tensor:
    """The exact inverse of affine maps, (..., 2, 3) -> (..., 2, 3)."""
    (a, b, x), (c, d, y) = (row.unbind(-1) for row in matrix.unbind(-2))
    det = a * d - b * c
    a, b, c, d = d / det, -b / det, -c / det, a / det
    rows = [torch.stack([a, b, -(a * x + b * y)], -1), torch.stack([c, d, -(c * x + d * y)], -1)]
    return torch.stack(rows, -2)


def sample(image: Tensor, matrix: Tensor, size: int) -> Tensor:
    """Draw `image` on a new grid whose points `matrix` maps into the image's frame.

    The one place where pixels are interpolated: bilinear, zero outside the image.

    Args:
        image: (N, C, H, W).
        matrix: (N, 2, 3), from the frame of the result to the frame of the image.
        size: side of the result, pixels.

    Returns:
        (N, C, size, size)
    """
    # What F.affine_grid computes, as a row plus a column: it spends a product on every pixel.
    line = torch.linspace(-1, 1, size, device=matrix.device, dtype=matrix.dtype)
    row = (matrix[..., :1] * line).unsqueeze(2)  # (N, 2, 1, size)
    column = (matrix[..., 1:2] * line + matrix[..., 2:]).unsqueeze(3)  # (N, 2, size, 1)
    grid = (row + column).permute(0, 2, 3, 1)
    return F.grid_sample(image, grid, "bilinear", "zeros", align_corners=True)


def place(child: Tensor, matrix: Tensor, size: int) -> Tensor:
    """g of the paper: children (..., C, H, W) drawn in their parents' frames, (..., C, size, size).

    `matrix`, (..., 2, 3), has as many dimensions before its last two.
    """
    lead = matrix.shape[:-2]
    drawn = sample(child.flatten(0, -4), invert(matrix.flatten(0, -3)), size)
    return drawn.unflatten(0, lead)


def zoom(parent: Tensor, matrix: Tensor, size: int) -> Tensor:
    """The inverse of g: what the parent (N, C, H, W) shows in the child's window, enlarged."""
    return sample(parent, matrix, size)
