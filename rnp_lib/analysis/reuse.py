"""Parts used again: one primitive makes a character (Fig. 1a), old parts draw new ones (Fig. 6)."""

from typing import NamedTuple

import torch
from torch import Tensor

from rnp_lib.model.batched import batched
from rnp_lib.model.objective import squared_error
from rnp_lib.model.rnp import RNP
from rnp_lib.model.transforms import affine, place
from rnp_lib.model.tree import ProgramTree, compose

STARTS, STEPS = 64, 200  # of the descent in `fit_actions`


@torch.enable_grad()
def fit_actions(
    primitive: Tensor, target: Tensor, copies: int, extent: tuple[float, float], seed: int = 0
) -> tuple[Tensor, Tensor]:
    """Find the actions under which copies of one picture add up to a target, by gradient descent
    from STARTS random ones side by side, the best of which is kept.

    Args:
        primitive: (1, 1, P, P), and `target`, (1, 1, H, H), in [0, 1].
        copies: how often the primitive is used.
        extent: smallest and largest side of a copy, in sides of the target.

    Returns:
        actions (copies, 6) and the placed copies, (1, copies, 1, H, H).
    """
    size = target.shape[-1]
    generator = torch.Generator().manual_seed(seed)
    raw = torch.randn(STARTS, copies, 6, generator=generator).to(target.device).requires_grad_()
    optimiser = torch.optim.Adam([raw], lr=0.1)

    def draw(actions):
        maps = affine(actions, extent, rotation=180.0)
        return place(primitive.expand(*maps.shape[:2], -1, -1, -1), maps, size)

    for _ in range(STEPS):
        errors = (draw(raw.tanh()).sum(1) - target).square().flatten(1).sum(1)
        optimiser.zero_grad()
        errors.sum().backward()
        optimiser.step()
    best = raw.detach()[errors.argmin()].tanh()
    return best, draw(best.unsqueeze(0)).detach()


def nearest_parts(known: Tensor, parts: Tensor) -> tuple[Tensor, Tensor]:
    """The known part nearest to each part, by Euclidean distance of their programs.

    Args:
        known: (N, τ, |z|), and `parts`, (M, τ, |z|).

    Returns:
        indices int64 (M, τ) into `known.flatten(0, 1)`, image · τ + turn; distances (M, τ).
    """
    bank = known.flatten(0, 1)
    found = batched(lambda z: tuple(torch.cdist(z, bank).min(1)), parts.flatten(0, 1), size=250)
    distances, indices = (column.view(parts.shape[:2]) for column in found)
    return indices, distances


class Borrowed(NamedTuple):
    """B images drawn from known parts, the nearest to their own.

    Attributes:
        tree: the images' parse, of τ parts.
        nearest: int64 (B, τ), as `nearest_parts` counts, and `distances`, (B, τ).
        drawn: what the known parts draw at the places of the images' own, (B, τ, 1, H, W).
    """

    tree: ProgramTree
    nearest: Tensor
    distances: Tensor
    drawn: Tensor


@torch.no_grad()
def borrow(model: RNP, x: Tensor, known: Tensor) -> Borrowed:
    """Parse images x (B, 1, H, W) and draw them from known parts (N, τ, |z|) instead of their own,
    keeping their actions."""
    tree = model.parse(x)
    parts = torch.stack([part.z for part in tree.children], 1)
    nearest, distances = nearest_parts(known, parts)
    return Borrowed(tree, nearest, distances, with_parts(model, tree, known.flatten(0, 1)[nearest]))


@torch.no_grad()
def with_parts(model: RNP, tree: ProgramTree, parts: Tensor) -> Tensor:
    """What the actions of a tree of B images draw with other parts z¹ (B, τ, |z|) in the place of
    its own, (B, τ, 1, H, W)."""
    pictures = model.decode(parts.flatten(0, 1), tree.level - 1).canvas
    return compose(pictures.unflatten(0, parts.shape[:2]), tree.children, tree.canvas.shape[-1])


def reuse_scores(
    model: RNP, images: Tensor, known: Tensor, labels: Tensor, seed: int = 0
) -> dict[str, float]:
    """How well images (M, 1, H, W) are drawn from the parts of others.

    Args:
        known: parts (N, τ, |z|) of N images, and `labels`, their classes, int64 (N,).
        seed: of the random parts.

    Returns:
        sse: per image, of the images' own parts; sse_borrowed: of the nearest known parts at the
        same places; sse_random: of any known part of the same turn; distance: median, to the
        nearest; share_C: of the images' parts whose nearest lies in an image of class C.
    """
    tau = known.shape[1]
    generator = torch.Generator().manual_seed(seed)

    def draw(x: Tensor) -> tuple[Tensor, ...]:
        found = borrow(model, x, known)
        choice = torch.randint(len(known), (tau, len(x)), generator=generator)
        random = torch.stack([known[i, t] for t, i in enumerate(choice.to(known.device))], 1)
        drawn = found.tree.parts, found.drawn, with_parts(model, found.tree, random)
        errors = [squared_error(parts.sum(1), x) for parts in drawn]
        return torch.stack(errors, 1), found.distances, labels[found.nearest.cpu() // tau]

    errors, distances, classes = batched(draw, images, size=250)
    sses = zip(("sse", "sse_borrowed", "sse_random"), errors.double().mean(0).tolist(), strict=True)
    shares = {f"share_{c}": (classes == c).double().mean().item() for c in labels.unique().tolist()}
    return {"n": len(images), **dict(sses), "distance": float(distances.median()), **shares}
