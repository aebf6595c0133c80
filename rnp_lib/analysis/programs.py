"""The programs of many images, and what many programs draw, wherever images and model are."""

import torch
from torch import Tensor

from rnp_lib.model.batched import batched
from rnp_lib.model.rnp import ImageModel


def posteriors(model: ImageModel, images: Tensor) -> tuple[Tensor, Tensor]:
    """Means and standard deviations of q(z | x) for images (N, 1, H, W): (N, |z|) each, on the
    images' device."""

    def encode(x: Tensor) -> tuple[Tensor, Tensor]:
        q = model.encode(x)
        return q.mean, q.stddev

    means, stds = batched(encode, images, _device(model))
    return means.to(images), stds.to(images)


def of_level(model: ImageModel, images: Tensor, level: int) -> Tensor:
    """The n programs of a level in the parses of images (N, 1, H, W), in drawing order: (N, n, |z|)
    on the images' device."""

    def parse(x: Tensor) -> Tensor:
        return torch.stack([program.z for program in model.parse(x).programs(level)], 1)

    return batched(parse, images, _device(model)).to(images)


def draw(model: ImageModel, z: Tensor, level: int | None = None) -> Tensor:
    """What programs z (N, |z|) of a level (the root's, unless told) draw in their own frame, on the
    CPU: (N, 1, H, W). Sums of ink may exceed 1."""
    return batched(lambda part: model.decode(part, level).canvas, z, _device(model))


def expand(model: ImageModel, noise: Tensor) -> Tensor:
    """What the trees of noise (N, `config.noise`) draw, as `RNP.expand` has them: (N, 1, H, W), on
    the CPU."""
    return batched(lambda part: model.expand(part).canvas, noise, _device(model))


def redraw(model: ImageModel, images: Tensor) -> Tensor:
    """Images (N, 1, H, W) as the model draws them: the canvases of their parses, on the CPU."""
    return batched(lambda x: model.parse(x).canvas, images, _device(model))


def _device(model: ImageModel) -> torch.device:
    return next(model.parameters()).device
