"""How probable a model finds images: lower bounds of log p(x), in nats."""

import math

import torch
from torch import Tensor
from torch.distributions import Normal

from rnp_lib.model.batched import batched
from rnp_lib.model.objective import constant, squared_error
from rnp_lib.model.rnp import ImageModel


def log_weights(
    model: ImageModel, images: Tensor, samples: int, generator: torch.Generator
) -> Tensor:
    """log p(x, z) / q(z | x) of images x (N, 1, H, W) and samples z of q: (N, samples), float64.

    generator: on the CPU. Its numbers do not depend on where the model and its images are.
    """
    if samples < 1:
        raise ValueError(f"a bound takes at least one sample: got {samples}.")
    sigma2 = model.config.sigma2

    def log_weight(x: Tensor) -> Tensor:
        q, prior = model.encode(x), Normal(0.0, 1.0)
        columns = []
        for _ in range(samples):  # one tree an image at a time, however many the samples
            noise = torch.randn(q.mean.shape, generator=generator).to(q.mean)
            z = q.mean + q.scale * noise
            sse = squared_error(model.decode(z).canvas, x).double()
            ratio = (prior.log_prob(z) - q.log_prob(z)).double().sum(1)
            columns.append(ratio - sse / (2 * sigma2) - constant(x[0].numel(), sigma2))
        return torch.stack(columns, 1)

    return batched(log_weight, images)


def elbo(log_weights: Tensor) -> Tensor:
    """The evidence lower bound of each image, estimated from its samples: (N, samples) -> (N,)."""
    return log_weights.mean(1)


def iwae(log_weights: Tensor) -> Tensor:
    """The importance-weighted bound of k samples (Burda et al. 2016): (N, k) -> (N,).

    In expectation it lies between the ELBO and log p(x), nearer to the latter the larger k is.
    """
    return log_weights.logsumexp(1) - math.log(log_weights.shape[1])
