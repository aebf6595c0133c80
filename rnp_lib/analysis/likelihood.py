"""How probable a model finds images: lower bounds of log p(x), in nats."""

import math
from dataclasses import replace

import torch
from sklearn.metrics import roc_auc_score
from torch import Tensor
from torch.distributions import Normal

from rnp_lib.model.batched import batched
from rnp_lib.model.chance import Chance, kl, log_density
from rnp_lib.model.objective import constant, error_nats
from rnp_lib.model.rnp import ImageModel
from rnp_lib.model.tree import ProgramTree

# What an image costs: the pixels that are drawn wrong, the root's program, and of all programs
# below it that are drawn where they lie and what they are.
COSTS = ("error", "root", "places", "programs")


def log_weights(
    model: ImageModel, images: Tensor, samples: int, generator: torch.Generator
) -> Tensor:
    """log p(x, z) / q(z | x) of images x (N, 1, H, W), (N, samples), float64; z are all programs of
    a tree that are drawn, samples of q.

    generator: on the CPU. Its numbers do not depend on where the model and its images are.
    """
    if samples < 1:
        raise ValueError(f"a bound takes at least one sample: got {samples}.")
    c, normaliser = model.config, constant(model.config, images[0].numel())

    def log_weight(x: Tensor) -> Tensor:
        columns, root = [], model.root(x)
        for _ in range(samples):  # one tree an image at a time, however many the samples
            noise = torch.randn(len(x), c.noise, generator=generator).to(x)
            tree = model.infer(x, noise, root=root)
            error = error_nats(c, tree.canvas, x).double()
            columns.append(log_prior(tree) - log_posterior(tree) - error - normaliser)
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


@torch.no_grad()
def costs(model: ImageModel, images: Tensor, seed: int = 0) -> Tensor:
    """What each image (N, C, H, W) costs by term, nats, (N, 4), float64, in the order of COSTS.

    The sum is the negative ELBO without the constant of the pixels' Gaussian: the error is that of
    one draw from the posterior, all else KL of its nodes.
    """
    generator = torch.Generator().manual_seed(seed)
    levels = range(model.config.depth - 1, 0, -1) if model.config.posterior == "tree" else ()

    def cost(x: Tensor) -> Tensor:
        noise = torch.randn(len(x), model.config.noise, generator=generator).to(x)
        tree = model.infer(x, noise)
        drawn = [program for level in levels for program in tree.programs(level)]
        nothing = torch.zeros_like(tree.kl)
        places, programs = (
            sum((kl(getattr(p.posterior, name), getattr(p.prior, name)) for p in drawn), nothing)
            for name in "uz"
        )
        error = error_nats(model.config, tree.canvas, x)
        return torch.stack([error, tree.kl, places, programs], 1).double()

    return batched(cost, images)


def auroc(known: Tensor, other: Tensor) -> tuple[float, float]:
    """How well a score tells other images from known ones: the probability that one of the others'
    (M,) is above one of the known ones' (N,), and its standard error (Hanley & McNeil 1982)."""
    n, m = len(known), len(other)
    labels = torch.arange(n + m) >= n
    area = float(roc_auc_score(labels, torch.cat([known, other]).cpu()))
    q1, q2 = area / (2 - area), 2 * area**2 / (1 + area)
    variance = area * (1 - area) + (m - 1) * (q1 - area**2) + (n - 1) * (q2 - area**2)
    return area, math.sqrt(max(0.0, variance) / (n * m))
