"""How probable a model finds images: lower bounds of log p(x), in nats."""

import math
from dataclasses import replace

import torch
from torch import Tensor
from torch.distributions import Normal

from rnp_lib.model.batched import batched
from rnp_lib.model.chance import Chance, log_density
from rnp_lib.model.objective import constant, squared_error
from rnp_lib.model.rnp import ImageModel
from rnp_lib.model.tree import ProgramTree


def log_weights(
    model: ImageModel, images: Tensor, samples: int, generator: torch.Generator
) -> Tensor:
    """log p(x, z) / q(z | x) of images x (N, 1, H, W), (N, samples), float64; z are all programs of
    a tree that are drawn, samples of q.

    generator: on the CPU. Its numbers do not depend on where the model and its images are.
    """
    if samples < 1:
        raise ValueError(f"a bound takes at least one sample: got {samples}.")
    sigma2 = model.config.sigma2

    def log_weight(x: Tensor) -> Tensor:
        columns = []
        for _ in range(samples):  # one tree an image at a time, however many the samples
            noise = torch.randn(len(x), model.config.noise, generator=generator).to(x)
            tree = model.infer(x, noise)
            sse = squared_error(tree.canvas, x).double()
            ratio = log_prior(tree) - log_posterior(tree)
            columns.append(ratio - sse / (2 * sigma2) - constant(x[0].numel(), sigma2))
        return torch.stack(columns, 1)

    return batched(log_weight, images)


def log_prior(tree: ProgramTree) -> Tensor:
    """log p of the programs of a whole tree that are drawn, of which the root is one: nats, (B,),
    float64."""
    root = Chance(Normal(torch.zeros_like(tree.z), torch.ones_like(tree.z), validate_args=False))
    return _log_density("prior", replace(tree, prior=root))


def log_posterior(tree: ProgramTree) -> Tensor:
    """log q of the programs of a tree that `infer` drew, nats, (B,), float64."""
    return _log_density("posterior", tree)


def _log_density(which: str, tree: ProgramTree) -> Tensor:
    chance = getattr(tree, which)
    below = sum(_log_density(which, child) for child in tree.children if getattr(child, which))
    both = [(chance.z, tree.z)] + ([(chance.u, tree.u)] if chance.u else [])
    return below + sum(log_density(*pair) for pair in both)


def elbo(log_weights: Tensor) -> Tensor:
    """The evidence lower bound of each image, estimated from its samples: (N, samples) -> (N,)."""
    return log_weights.mean(1)


def iwae(log_weights: Tensor) -> Tensor:
    """The importance-weighted bound of k samples (Burda et al. 2016): (N, k) -> (N,).

    In expectation it lies between the ELBO and log p(x), nearer to the latter the larger k is.
    """
    return log_weights.logsumexp(1) - math.log(log_weights.shape[1])
