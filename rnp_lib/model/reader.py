"""What an image says about the children of a program: messages, the same for all levels."""

import torch
from torch import Tensor, nn
from torch.distributions import Normal

from rnp_lib.model.chance import normal
from rnp_lib.model.transforms import zoom

SIDE = 16  # of what is looked at, pixels
WIDER = 1.5  # than the predicted window is where the child is looked for


class Reader(nn.Module):
    """Looks where the child of a program is predicted.

    It sees the image and what is left of it: the image less the patches of earlier siblings.
    """

    def __init__(self, z_dim: int, units: int, channels: int = 1):
        super().__init__()
        pixels = 2 * channels * SIDE**2
        self.where_layers = _layers(pixels + z_dim + 6, units // 2, 2 * 6)
        self.what_layers = _layers(pixels, units, 2 * z_dim)

    def where(self, seen: Tensor, window: Tensor, z: Tensor, u: Tensor) -> Normal:
        """A message about u, batch (B, 6), from around the predicted window.

        Args:
            seen: the image and what is left of it, (B, 2C, H, W).
            window: from the predicted child's frame to that of the image, (B, 2, 3).
            z, u: the prediction, (B, |z|) and (B, 6).
        """
        wider = torch.cat([WIDER * window[..., :2], window[..., 2:]], -1)
        look = zoom(seen, wider, SIDE).flatten(1)
        shift, log_std = self.where_layers(torch.cat([look, z, u], -1)).chunk(2, -1)
        return normal(u + shift, log_std - 1)

    def what(self, seen: Tensor, window: Tensor) -> Normal:
        """A message about z, batch (B, |z|), from the window that was chosen."""
        return normal(*self.what_layers(zoom(seen, window, SIDE).flatten(1)).chunk(2, -1))


def _layers(n_in: int, units: int, n_out: int) -> nn.Sequential:
    last = nn.Linear(units, n_out)
    nn.init.normal_(last.weight, std=0.1 * units**-0.5)  # messages that say little to begin with
    nn.init.zeros_(last.bias)
    return nn.Sequential(
        *(nn.Linear(n_in, units), nn.LayerNorm(units), nn.ELU()),
        *(nn.Linear(units, units), nn.LayerNorm(units), nn.ELU()),
        last,
    )
