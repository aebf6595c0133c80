"""What training steps see: the images in an order of their own in every epoch, and noise."""

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from rnp_lib.config import Config

ORDER, NOISE, JITTER, SEEN = range(4)  # streams of random numbers


def jitter(
    images: Tensor, amount: float, generator: torch.Generator, mode: str = "bicubic"
) -> Tensor:
    """Images (B, 1, H, W) in [0, 1], each distorted by an affine map of its own.

    Args:
        amount: by how much the map's six numbers differ from the identity's at most; of shifts it
            is in half sides of an image.
        generator: on the images' device.
        mode: of sampling. Bilinear sampling blurs strokes, and a model of images learns to.
    """
    device = images.device
    distortion = 2 * torch.rand(len(images), 2, 3, generator=generator, device=device) - 1
    maps = torch.eye(2, 3, device=device) + amount * distortion
    grid = F.affine_grid(maps, images.shape, align_corners=False)
    return F.grid_sample(images, grid, mode=mode, align_corners=False).clamp(0, 1)


class Batches:
    """The images and the noise of every step.

    Random numbers of step s come from generators seeded by (seed, stream, s), and every process
    draws those of the whole batch and uses its share: (seed, step) is all the random state there
    is, and any number of processes sees the same data and noise.
    """

    def __init__(self, images: Tensor, config: Config, rank: int, world: int):
        """
        Args:
            images: all of them, (N, 1, H, W), on the device of training.
            rank, world: number of this process, and how many there are.

        Raises:
            ValueError: a batch cannot be filled, or not be shared evenly.
        """
        if config.batch_size % world:
            raise ValueError(
                f"batch_size {config.batch_size} cannot be shared by {world} processes "
                "evenly: choose a multiple."
            )
        if len(images) < config.batch_size:
            raise ValueError(
                f"{len(images)} training images do not fill one batch of "
                f"{config.batch_size}: add images or set a smaller batch_size."
            )
        self.images, self.config, self.rank, self.world = images, config, rank, world
        self.an_epoch = len(images) // config.batch_size
        self._epoch, self._order = -1, None

    def __call__(self, step: int) -> tuple[Tensor, Tensor, Tensor]:
        """This process's share of a step's images (B, 1, H, W) and noise (B, samples · noise), and
        whether they are seen below the root, (B,).
        """
        c, device = self.config, self.images.device
        epoch, position = divmod(step, self.an_epoch)
        if epoch != self._epoch:
            generator = self.generator(ORDER, epoch)
            self._order = torch.randperm(len(self.images), generator=generator, device=device)
            self._epoch = epoch
        images = self.images[self._order[position * c.batch_size : (position + 1) * c.batch_size]]
        if c.jitter:
            images = jitter(images, c.jitter, self.generator(JITTER, step))
        generator = self.generator(NOISE, step)
        noise = torch.randn(c.batch_size, c.samples * c.noise, generator=generator, device=device)
        chance = torch.rand(c.batch_size, generator=self.generator(SEEN, step), device=device)
        seen = (chance >= c.drop).to(noise.dtype)
        share = c.batch_size // self.world
        mine = slice(self.rank * share, (self.rank + 1) * share)
        return images[mine], noise[mine], seen[mine]

    def generator(self, stream: int, index: int) -> torch.Generator:
        """The generator of a step (or epoch) for one use, on the images' device."""
        sequence = np.random.SeedSequence((self.config.seed, stream, index))
        (seed,) = sequence.generate_state(1, np.uint64)
        return torch.Generator(self.images.device).manual_seed(int(seed))
