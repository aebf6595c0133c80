"""What a program may be, given its parent: distributions, their merging, and their KL."""

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.distributions import Normal


def normal(mean: Tensor, log_std: Tensor) -> Normal:
    """A Normal in float32 at least, its scale within bounds that only guard against overflow."""
    dtype = torch.promote_types(mean.dtype, torch.float32)
    return Normal(mean.to(dtype), log_std.to(dtype).clamp(-10, 5).exp(), validate_args=False)


@dataclass
class Mixture:
    """A mixture of M diagonal Gaussians.

    Attributes:
        log_weights: (B, M); mean, scale: (B, M, |z|).
        predicted: whether the last part is what the parent predicts, the others being symbols.
    """

    log_weights: Tensor
    mean: Tensor
    scale: Tensor
    predicted: bool = False

    @property
    def prediction(self) -> Normal:
        """The last part."""
        return Normal(self.mean[:, -1], self.scale[:, -1], validate_args=False)


@dataclass
class Chance:
    """What a program may be: independent distributions of z and of u, its action before squashing.

    Attributes:
        z: batch (B, |z|), in a prior also a mixture.
        u: batch (B, 6), or None at the root.
    """

    z: Normal | Mixture
    u: Normal | None = None


def draw(distribution: Normal | Mixture, noise: Tensor | None, pick: Tensor | None = None):
    """A value of a distribution (B, n).

    Args:
        noise: (B, n) from N(0, I); without it the mean, of a mixture that of its likeliest part.
        pick: (B,) from N(0, 1), which part of a mixture it is.
    """
    if isinstance(distribution, Mixture):
        distribution = _part(distribution, pick)
    mean, scale = distribution.mean, distribution.scale
    return mean if noise is None else mean + scale * noise


def _part(mixture: Mixture, pick: Tensor | None) -> Normal:
    """The likeliest part of each mixture, or the one where its weights' sum reaches Φ(pick)."""
    if pick is None:
        index = mixture.log_weights.argmax(1)
    else:
        reached = mixture.log_weights.exp().cumsum(1) < torch.special.ndtr(pick)[:, None]
        index = reached.sum(1).clamp(max=reached.shape[1] - 1)
    rows = torch.arange(len(index), device=index.device)
    return Normal(mixture.mean[rows, index], mixture.scale[rows, index], validate_args=False)


def log_density(distribution: Normal | Mixture, value: Tensor) -> Tensor:
    """log p of values (B, n), nats, (B,), float64: differences of large numbers are taken of it."""
    if isinstance(distribution, Mixture):
        parts = Normal(distribution.mean, distribution.scale, validate_args=False)
        each = log_density(parts, value.unsqueeze(1))
        return torch.logsumexp(distribution.log_weights.double() + each, 1)
    return distribution.log_prob(value).double().sum(-1)


def merge(prior: Normal, message: Normal, seen: Tensor) -> Normal:
    """prior × message, normalised: each counts by its precision.

    `seen`, (B,), is what the message's is multiplied by: where it is 0, the prior stays as it is.
    """
    ratio = (prior.scale / message.scale).square() * seen[:, None]  # of their precisions
    mean = prior.mean + ratio / (1 + ratio) * (message.mean - prior.mean)
    return Normal(mean, prior.scale / (1 + ratio).sqrt(), validate_args=False)


def kl(q: Normal, prior: Normal | Mixture) -> Tensor:
    """KL(q ‖ prior), nats, (B,).

    To a mixture it is that of z and of the part it was drawn from together, the latter's posterior
    the best there is: -log Σ π exp(-KL(q ‖ part)), from above.
    """
    if isinstance(prior, Mixture):
        parts = Normal(q.mean[:, None], q.scale[:, None], validate_args=False)
        each = kl(parts, Normal(prior.mean, prior.scale, validate_args=False))
        return -torch.logsumexp(prior.log_weights - each, 1)
    ratio = (q.scale / prior.scale).square()
    apart = ((q.mean - prior.mean) / prior.scale).square()
    return 0.5 * (ratio + apart - 1 - ratio.log()).sum(-1)
