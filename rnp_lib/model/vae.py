"""Plain VAEs, of one vector and of two: what the model is measured against."""

import torch
from torch import Tensor, nn

from rnp_lib.config import Config
from rnp_lib.model.chance import Chance, draw, kl, merge, normal
from rnp_lib.model.encoder import ENCODERS, MatrixConv2d
from rnp_lib.model.guide import Guide
from rnp_lib.model.rnp import ImageModel
from rnp_lib.model.tree import ProgramTree

UNITS = 256  # of the hidden layers


def _decoder(config: Config, inputs: int) -> nn.Sequential:
    """The light encoder turned around: (B, inputs) -> images."""
    side, channels = config.image_size // 4, 32
    return nn.Sequential(
        nn.Linear(inputs, UNITS),
        nn.LayerNorm(UNITS),
        nn.ELU(),
        nn.Linear(UNITS, channels * side**2),
        nn.Unflatten(1, (channels, side, side)),
        nn.ELU(),
        nn.ConvTranspose2d(channels, channels, 4, stride=2, padding=1),
        nn.GroupNorm(8, channels),
        nn.ELU(),
        nn.ConvTranspose2d(channels, channels, 4, stride=2, padding=1),
        nn.GroupNorm(8, channels),
        nn.ELU(),
        MatrixConv2d(channels, config.channels, 3, padding=1),
        nn.Sigmoid(),
    )


class PlainVAE(ImageModel):
    """A VAE with the same image encoder and |z|, and the light encoder turned around as decoder."""

    def __init__(self, config: Config):
        super().__init__(config)
        self.decoder = _decoder(config, config.z_dim)

    def unroll(
        self, z: Tensor, level: int, until: int = 0, guide: Guide | None = None
    ) -> ProgramTree:
        """A tree without children: z (B, |z|) drawn at once, whatever the level."""
        return ProgramTree(z=z, canvas=self.decoder(z))


class _Message(Guide):
    """Hands over what an image says of the second vector, a Normal, batch (B, n)."""

    def __init__(self, message, noise: list[Tensor] | None, seen: Tensor):
        super().__init__(noise)
        self.message, self.seen = message, seen


class HierarchicalVAE(ImageModel):
    """A VAE of two vectors: the first predicts the second, and an image corrects that, each
    counting by its precision as in a tree (Sønderby et al. 2016); both together are decoded.

    The second has as many numbers as all programs and places of a tree below its root.
    """

    def __init__(self, config: Config):
        super().__init__(config)
        self.n = sum(config.drawn_below(config.depth)) * (config.noise_each - 1)
        self.reader = ENCODERS[config.encoder](config.image_size, 2 * self.n, config.channels)
        self.predict = nn.Sequential(
            nn.Linear(config.z_dim, UNITS),
            nn.LayerNorm(UNITS),
            nn.ELU(),
            nn.Linear(UNITS, 2 * self.n),
        )
        self.decoder = _decoder(config, config.z_dim + self.n)

    def reading(self, x, z, noise=None, seen=None):
        seen = x.new_ones(len(x)) if seen is None else seen
        return _Message(normal(*self.reader(x).chunk(2, -1)), noise, seen)

    def unroll(
        self, z: Tensor, level: int, until: int = 0, guide: Guide | None = None
    ) -> ProgramTree:
        """A tree with one child, the second vector (B, n), drawn at once with z (B, |z|)."""
        guide = guide or Guide()
        prior = normal(*self.predict(z).chunk(2, -1))
        noise = guide.noise and guide.noise[0][..., :-1].flatten(1)  # without that of a choice
        known = {"prior": Chance(prior)}
        if isinstance(guide, _Message):
            q = merge(prior, guide.message, guide.seen)
            known |= {"posterior": Chance(q), "kl": kl(q, prior)}
        below = draw(q if "kl" in known else prior, noise)
        canvas = self.decoder(torch.cat([z, below], 1))
        return ProgramTree(z=z, canvas=canvas, children=[ProgramTree(below, canvas, **known)])
