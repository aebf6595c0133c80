"""Figure 1a's idea: one primitive, placed several times, makes a character."""

import torch
from torch import Tensor

from rnp_lib.transforms import affine, place


@torch.enable_grad()
def fit_actions(
    primitive: Tensor,
    target: Tensor,
    copies: int,
    extent: tuple[float, float],
    starts: int = 64,
    steps: int = 200,
    seed: int = 0,
) -> tuple[Tensor, list[Tensor]]:
    """Find the actions under which copies of one picture add up to a target, by gradient descent.

    Args:
        primitive: (1, 1, P, P), and `target`, (1, 1, H, H), in [0, 1].
        copies: how often the primitive is used.
        extent: smallest and largest side of a copy, in sides of the target.
        starts: random initial actions tried side by side, the best of which is kept.

    Returns:
        actions (copies, 6) and the placed copies, each (1, 1, H, H).
    """
    size = target.shape[-1]
    generator = torch.Generator().manual_seed(seed)
    raw = torch.randn(starts, copies, 6, generator=generator).to(target.device).requires_grad_()
    optimiser = torch.optim.Adam([raw], lr=0.1)

    def draw(actions):
        maps = affine(actions, extent, rotation=180.0)
        pictures = primitive.expand(maps[..., 0, 0].numel(), -1, -1, -1)
        return place(pictures, maps.flatten(0, 1), size).unflatten(0, maps.shape[:2])

    for _ in range(steps):
        errors = (draw(raw.tanh()).sum(1) - target).square().flatten(1).sum(1)
        optimiser.zero_grad()
        errors.sum().backward()
        optimiser.step()
    best = raw.detach()[errors.argmin()].tanh()
    return best, list(draw(best.unsqueeze(0)).detach().unbind(1))
