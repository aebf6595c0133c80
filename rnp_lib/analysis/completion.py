"""Completion: what a model expects where an image is covered.

Nothing of what is covered is looked at. Chains start from draws of the prior that fit what is seen;
each in turn draws a tree from the posterior of its image, and takes what that draws for what is
covered, so that it comes to draw from what the model expects there, given what is seen (Rezende,
Mohamed & Wierstra 2014, section 5).
"""

from typing import NamedTuple

import torch
from torch import Tensor

from rnp_lib.analysis.classifier import Classifier
from rnp_lib.analysis.parsing import mean_and_error
from rnp_lib.model.batched import batched
from rnp_lib.model.objective import error_nats, squared_error
from rnp_lib.model.rnp import ImageModel
from rnp_lib.model.tree import ProgramTree

# Chosen on validation digits with the lower half covered.
CHAINS, STEPS, STARTS = 8, 20, 1_000

COVERS = {  # name -> from where to where it is covered, in shares of a side: down, then across
    "lower half": ((0.5, 1.0), (0.0, 1.0)),
    "right half": ((0.0, 1.0), (0.5, 1.0)),
    "upper left quarter": ((0.0, 0.5), (0.0, 0.5)),
}


class Completed(NamedTuple):
    """Completions of B images, several each, the likeliest first.

    `images`, (B, chains, C, H, W): what is seen as it was, and in its midst what was drawn; and
    `trees`, of B · chains in this order, what the last step drew.
    """

    images: Tensor
    trees: ProgramTree


def cover(where: tuple[tuple[float, float], tuple[float, float]], side: int) -> Tensor:
    """A rectangle as in COVERS as a mask (1, 1, side, side), 1 where an image is covered.

    Raises ValueError unless it lies in the image and some of it is left to be seen.
    """
    mask = torch.zeros(1, 1, side, side)
    (top, bottom), (left, right) = ([round(share * side) for share in span] for span in where)
    if not (0 <= top < bottom <= side and 0 <= left < right <= side):
        raise ValueError(f"a cover goes from lower to higher shares, within [0, 1]: got {where}.")
    mask[..., top:bottom, left:right] = 1
    if mask.all():
        raise ValueError("nothing is left to be seen: cover a part of the image.")
    return mask


@torch.no_grad()
def complete(
    model: ImageModel, x: Tensor, covered: Tensor, chains: int = CHAINS, seed: int = 0
) -> Completed:
    """Draw what images x (B, C, H, W) may hold where they are covered, 1 in (B or 1, 1, H, W)."""
    covered = covered.to(x).expand(len(x), -1, -1, -1)
    drawn = batched(lambda part: model.expand(part).canvas, model.noise(STARTS, seed)).clamp(0, 1)
    image = drawn[_fitting(drawn, x, covered, chains)].flatten(0, 1)  # (B · chains, C, H, W)
    seen = (x * (1 - covered)).repeat_interleave(chains, 0)
    covered = covered.repeat_interleave(chains, 0)
    for step in range(STEPS):
        image = seen + covered * image
        noise = model.noise(len(image), seed + 1 + step)
        tree = model.infer(image, noise)
        image = tree.canvas.clamp(0, 1)
    wrong = error_nats(model.config, (1 - covered) * tree.canvas, seen)
    order = (wrong + tree.nats).view(-1, chains).argsort(1)
    rows = (order + chains * torch.arange(len(x), device=x.device)[:, None]).flatten()
    filled = (seen + covered * image)[rows].unflatten(0, (len(x), chains))
    return Completed(filled, tree[rows])


def _fitting(drawn: Tensor, x: Tensor, covered: Tensor, count: int) -> Tensor:
    """Which `count` of the images drawn (N, C, H, W) are nearest to what is seen of each of x
    (B, C, H, W): int64 (B, count)."""

    def choose(rows: Tensor) -> Tensor:
        apart = (drawn - x[rows, None]) * (1 - covered[rows, None])
        return apart.square().flatten(2).sum(2).topk(count, largest=False).indices

    return batched(choose, torch.arange(len(x), device=x.device), size=25)


@torch.enable_grad()
def by_descent(model: ImageModel, x: Tensor, covered: Tensor, steps: int = 100) -> Tensor:
    """Images x (B, C, H, W), covered as in `complete`, completed by what the root's program draws
    that Adam finds on what is seen: from that of STARTS draws of the prior which fits it best.

    It is all that is left where one vector stands for the whole image; (B, C, H, W).
    """
    covered = covered.to(x).expand(len(x), -1, -1, -1)
    with torch.no_grad():
        z = model.noise(STARTS, 0)[:, : model.config.z_dim]
        drawn = batched(lambda part: model.unroll(part, model.config.depth).canvas, z)
    code = z[_fitting(drawn, x, covered, 1).squeeze(1)].clone().requires_grad_()
    optimiser = torch.optim.Adam([code], lr=0.1)
    for _ in range(steps + 1):
        canvas = model.unroll(code, model.config.depth).canvas
        wrong = error_nats(model.config, (1 - covered) * canvas, (1 - covered) * x)
        loss = wrong + code.square().sum(1) / 2
        (code.grad,) = torch.autograd.grad(loss.sum(), code)
        optimiser.step()
    return (1 - covered) * x + covered * canvas.detach().clamp(0, 1)


def nearest(known: Tensor, x: Tensor, covered: Tensor) -> Tensor:
    """Images x (B, C, H, W), covered as in `complete`, completed by the known one (N, C, H, W) that
    is nearest to what is seen."""
    covered = covered.to(x).expand(len(x), -1, -1, -1)
    found = known[_fitting(known, x, covered, 1).squeeze(1)]
    return x * (1 - covered) + found * covered


@torch.no_grad()
def scores(
    completed: Tensor, x: Tensor, labels: Tensor, covered: Tensor, reader: Classifier
) -> dict[str, float]:
    """How well images x (B, C, H, W) of some classes (B,) were completed, several times each:
    completed (B, n, C, H, W).

    Returns:
        error: `covered_error`; right: the share to which a classifier gives the class. Means over
        images, with `_stderr`.
    """
    n = completed.shape[1]
    x, covered = (of.expand_as(x).repeat_interleave(n, 0) for of in (x, covered))
    error = covered_error(completed.flatten(0, 1), x, covered).view(-1, n)
    right = reader.read(completed.flatten(0, 1))[1].view(-1, n) == labels[:, None]
    found = mean_and_error("error", error.double().mean(1))
    return found | mean_and_error("right", right.double().mean(1))


def covered_error(completed: Tensor, x: Tensor, covered: Tensor) -> Tensor:
    """The squared error of images completed (B, C, H, W) on the pixels that were covered; (B,)."""
    return squared_error(completed * covered, x * covered)
