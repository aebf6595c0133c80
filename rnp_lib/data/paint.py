"""Grey images in colour: each with an ink and a paper of its own."""

import torch
from torch import Tensor

APART = 0.35  # least difference of ink and paper, in red, in green and in blue


def paint(images: Tensor, seed: int) -> Tensor:
    """Grey images (N, 1, H, W) in [0, 1], ink bright, painted: (N, 3, H, W), float32 in [0, 1].

    Papers are drawn evenly from all colours, inks from those APART of their paper in each channel.
    """
    generator = torch.Generator().manual_seed(seed)
    paper, step = torch.rand(2, len(images), 3, 1, 1, generator=generator)
    ink = (paper + APART + (1 - 2 * APART) * step) % 1  # beyond 1 it begins at 0
    return torch.lerp(paper, ink, images)
