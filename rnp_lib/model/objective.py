"""The objective: the negative ELBO of an image, and what is asked of its parts (Eq. 1).

How Eq. 1 is read: its superscripts are levels, not squares. As printed, its second term compares a
sum over all parts with a patch that belongs to one. Two readings make sense and both are here: each
part's direct decoding against its own window of the image (`zoom`), and the sum of all placed parts
against the whole image (`canvas`), which is what trains the root alone, one depth at a time.
"""

import math
from typing import NamedTuple

import torch
from torch import Tensor

from rnp_lib.config import Config
from rnp_lib.model.batched import batched
from rnp_lib.model.rnp import ImageModel
from rnp_lib.model.transforms import zoom
from rnp_lib.model.tree import ProgramTree

# Under the Bernoulli likelihood the least probability of black and of white, whatever is drawn.
EDGE = 1e-3


class Terms(NamedTuple):
    """Per image, (B,). `sse` and `part` are summed squared errors, `error`, as `error_nats` has it,
    and `kl` are in nats."""

    sse: Tensor
    error: Tensor
    kl: Tensor
    part: Tensor

    def loss(self, sigma2: float, part_weight: float = 1.0, kl_weight: float = 1.0) -> Tensor:
        """error + KL + λ_part · part / 2σ², averaged over images, in nats.

        Without part term and at kl_weight 1 it is the negative ELBO less `constant(...)`.
        """
        return (self.error + part_weight * self.part / (2 * sigma2) + kl_weight * self.kl).mean()


def constant(config: Config, pixels: int) -> float:
    """The normalisation of the Gaussian likelihood, in nats: pixels/2 · log 2πσ². Bernoulli's is 0.

    pixels: numbers of an image, three for each of its points where it is in colour.
    """
    if config.likelihood == "bernoulli":
        return 0.0
    return pixels / 2 * math.log(2 * math.pi * config.sigma2)


def error_nats(config: Config, canvas: Tensor, x: Tensor) -> Tensor:
    """-log p(x | canvas) of each image, less `constant(...)`: (B, ...) -> (B,).

    A Gaussian's mean is the canvas. So is a Bernoulli's, within EDGE of 0 and 1; its gradient does
    not stop there, so that ink can still be brought where none is drawn, or taken away.
    """
    if config.likelihood == "gaussian":
        return squared_error(canvas, x) / (2 * config.sigma2)
    p = canvas + (canvas.clamp(EDGE, 1 - EDGE) - canvas).detach()
    return -(x * p.log() + (1 - x) * (1 - p).log()).flatten(1).sum(1)


def squared_error(canvas: Tensor, x: Tensor) -> Tensor:
    """Squared error summed over the pixels of each image: (B, ...) -> (B,)."""
    return (canvas - x).square().flatten(1).sum(1)


def canvas_part_term(tree: ProgramTree, x: Tensor) -> Tensor:
    """‖Σ_t g(x̂_t, a_t) − x‖², averaged over the levels between root and leaves; (B,).

    Zero for a tree of one level, whose canvas is made of directly decoded parts already.
    """
    errors = [squared_error(tree.cut(level), x) for level in range(tree.level - 1, 0, -1)]
    return torch.stack(errors).mean(0) if errors else torch.zeros_like(x[:, 0, 0, 0])


def zoom_part_term(tree: ProgramTree, x: Tensor) -> Tensor:
    """(1/τ) Σ_t ‖x̂_t − sg[g⁻¹(x, a_t)]‖² at the root: the paper's, with a target that is a zoom."""
    errors = []
    for child in tree.children:
        with torch.no_grad():
            target = zoom(x, child.affine, child.patch.shape[-1])
        errors.append(squared_error(child.patch, target))
    return torch.stack(errors).mean(0)


PART_TERMS = {"canvas": canvas_part_term, "zoom": zoom_part_term}


def terms(
    model: ImageModel, x: Tensor, noise: Tensor, until: int = 0, seen: Tensor | None = None
) -> Terms:
    """One sample of the objective for images x (B, C, H, W), or of the importance-weighted bound.

    The part term is 0 where the model's config gives it no weight.

    Args:
        noise: from N(0, I), (B, `config.samples` · `config.noise`).
        until: the level at which the tree is cut, its programs decoded directly.
        seen: (B,), 0 for images whose programs below the root keep their prior, else 1.
    """
    if model.config.samples > 1:
        return importance_weighted_terms(model, x, noise)
    tree = model.infer(x, noise, until, seen)
    sse = squared_error(tree.canvas, x)
    weighs = model.config.part_weight > 0  # else its cuts need not be drawn
    part = PART_TERMS[model.config.part_term](tree, x) if weighs else torch.zeros_like(sse)
    return Terms(sse, error_nats(model.config, tree.canvas, x), tree.nats, part)


def importance_weighted_terms(model: ImageModel, x: Tensor, noise: Tensor) -> Terms:
    """Terms of a plain VAE whose loss has the gradient of the bound of k draws (Burda et al. 2016).

    Each draw counts by its share of the weights p(x, z) / q(z | x), taken as constant (their
    Eq. 14), and its KL is log q - log p there.
    """
    q = model.root(x)
    draws = noise.unflatten(1, (model.config.samples, -1))  # (B, k, |z|)
    z = q.mean[:, None] + q.scale[:, None] * draws
    canvas = model.unroll(z.flatten(0, 1), model.config.depth).canvas
    repeated = x.repeat_interleave(draws.shape[1], 0)
    sse = squared_error(canvas, repeated).view(draws.shape[:2])
    error = error_nats(model.config, canvas, repeated).view(draws.shape[:2])
    # log N(z; mean, scale) - log N(z; 0, 1): of both the same constant.
    kl = 0.5 * (z.square() - draws.square()).sum(-1) - q.scale.log().sum(-1)[:, None]
    weights = (-error - kl).detach().softmax(1)
    means = ((weights * term).sum(1) for term in (sse, error, kl))
    return Terms(*means, torch.zeros_like(sse[:, 0]))


def reconstruction_error(model: ImageModel, images: Tensor, until: int = 0) -> Tensor:
    """SSE of each image (N, C, H, W) at its posterior mean, of the leaves' canvas; (N,)."""

    def error(x: Tensor) -> Tensor:
        return squared_error(model.infer(x, until=until).canvas, x)

    return batched(error, images)
