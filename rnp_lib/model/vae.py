"""A plain VAE: what the model is measured against."""

from torch import Tensor, nn

from rnp_lib.config import Config
from rnp_lib.model.encoder import MatrixConv2d
from rnp_lib.model.guide import Guide
from rnp_lib.model.rnp import ImageModel
from rnp_lib.model.tree import ProgramTree


class PlainVAE(ImageModel):
    """A VAE with the same image encoder and |z|, and the light encoder turned around as decoder."""

    def __init__(self, config: Config):
        super().__init__(config)
        side, channels, units = config.image_size // 4, 32, 256
        self.decoder = nn.Sequential(
            nn.Linear(config.z_dim, units),
            nn.LayerNorm(units),
            nn.ELU(),
            nn.Linear(units, channels * side**2),
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

    def unroll(
        self, z: Tensor, level: int, until: int = 0, guide: Guide | None = None
    ) -> ProgramTree:
        """A tree without children: z (B, |z|) drawn at once, whatever the level."""
        return ProgramTree(z=z, canvas=self.decoder(z))
