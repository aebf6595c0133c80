"""Are parts parts? Whether each is one piece, carries ink, is needed, and agrees with true strokes.

Levels are counted from the root: its children are the parts (1), theirs the sub-parts (2). Whatever
lies deeper is measured only by its windows.
"""

import itertools
import math
from collections import defaultdict

import numpy as np
import torch
from scipy import ndimage
from scipy.optimize import linear_sum_assignment
from sklearn.cluster import KMeans
from sklearn.metrics import adjusted_rand_score
from torch import Tensor

from rnp_lib.analysis.metrics import ink_share
from rnp_lib.data.strokes import strokes
from rnp_lib.model.rnp import ImageModel
from rnp_lib.model.transforms import place
from rnp_lib.model.tree import ProgramTree


def pieces(pictures: Tensor, threshold: float = 0.15) -> tuple[Tensor, Tensor]:
    """How much of each picture (N, 1, H, W) is in one piece.

    Ink is the sum of the pixels at or above `threshold`; two of them belong together if they touch
    at a side or a corner. A picture's main piece is the one with the most ink.

    Returns:
        share (N,), the main piece's share of the ink, 0 where there is none; ink (N,), the weights
        with which shares make a mean. Both float64.
    """
    pixels = pictures.squeeze(1).detach().cpu().numpy()
    touching = np.zeros((3, 3, 3), bool)
    touching[1] = True  # within a picture, never from one picture to the next
    labels, count = ndimage.label(pixels >= threshold, touching)
    weight = np.bincount(labels.ravel(), pixels.ravel(), count + 1)
    picture = np.zeros(count + 1, int)  # which one each piece lies in
    picture[labels] = np.arange(len(pixels))[:, None, None]
    ink, main = np.zeros((2, len(pixels)))
    np.add.at(ink, picture[1:], weight[1:])  # label 0 is whatever lies below the threshold
    np.maximum.at(main, picture[1:], weight[1:])
    return torch.from_numpy(main / np.maximum(ink, 1e-6)), torch.from_numpy(ink)


def drawn(tree: ProgramTree, below: int = 1) -> Tensor:
    """What each program `below` levels under the root draws there: (B, τ_1, …, τ_below, H, W).

    Raises ValueError if the tree has fewer levels.
    """
    if tree.parts is None:
        raise ValueError("the tree ends above the level that is asked for.")
    if below == 1:
        return tree.parts.squeeze(2)
    pictures = []
    for child in tree.children:
        inside = drawn(child, below - 1)  # (B, …, P, P) in the child's frame
        placed = place(inside.flatten(1, -3), child.affine, tree.canvas.shape[-1])
        pictures.append(placed.unflatten(1, inside.shape[1:-2]))
    return torch.stack(pictures, 1)


def sub_shares(tree: ProgramTree) -> Tensor:
    """Each sub-part's share of the ink its part draws, in the part's frame: (B, τ_1, τ_2).

    Shares of a part sum to 1, or to 0 if it is blank.
    """
    return torch.stack([ink_share(child) for child in tree.children], 1)


def removal_rise(tree: ProgramTree, x: Tensor, below: int = 1) -> Tensor:
    """How the SSE against x (B, 1, H, W) rises as any one program `below` levels down is left out.

    (B, τ_1, …, τ_below), negative where the drawing is better without it.
    """
    # Placing is linear: a canvas without a program is the canvas less what that program draws.
    out = drawn(tree, below)
    error = (tree.canvas - x).reshape(len(x), *[1] * below, *x.shape[-2:])
    return (out * (out - 2 * error)).sum((-2, -1))


def windows(tree: ProgramTree, below: int = 1) -> Tensor:
    """The two sides of every program `below` levels down, in sides of its parent: (B, programs, 2).

    Shear lengthens the second: it keeps the area of a window, not its sides.
    """
    return torch.stack(
        [node.affine[..., :2].norm(dim=-2) for node in tree.programs(tree.level - below)], 1
    )


def found_labels(tree: ProgramTree, below: int = 1) -> Tensor:
    """The program `below` levels down that draws most ink at each pixel: int64 (B, H, W).

    Numbered in drawing order through the whole tree; -1 where none draws any.
    """
    ink, program = drawn(tree, below).flatten(1, -3).max(1)
    return program.masked_fill(ink <= 0, -1)


def position_labels(labels_true: Tensor, k: int) -> Tensor:
    """The foreground cut into k clumps by k-means on pixel positions alone: int64 (B, H, W).

    labels_true: (B, H, W), -1 in the background, which stays -1. Foregrounds of fewer than k pixels
    get one clump a pixel.
    """
    found = torch.full(labels_true.shape, -1)
    for image, labels in zip(found, labels_true.cpu(), strict=True):
        at = (labels >= 0).nonzero()
        if len(at):
            means = KMeans(min(k, len(at)), n_init=2, random_state=0)
            image[tuple(at.T)] = torch.from_numpy(means.fit_predict(at.numpy())).long()
    return found


def grid_labels(labels_true: Tensor, k: int) -> Tensor:
    """The canvas cut into k equal boxes, whatever is drawn, as near to squares as k allows: int64
    (B, H, W), numbered row by row; -1 in the background, where labels_true (B, H, W) is."""
    lines = max(n for n in range(1, math.isqrt(k) + 1) if k % n == 0)
    height, width = labels_true.shape[1:]
    row = torch.arange(height)[:, None] * lines // height
    column = torch.arange(width) * (k // lines) // width
    return (row * (k // lines) + column).expand_as(labels_true).masked_fill(labels_true < 0, -1)


def matched(labels_true: Tensor, labels_found: Tensor) -> Tensor:
    """`labels_found` renumbered so that segments are called as the true ones that they share most
    pixels with, each name given once: int64 (B, H, W). Segments left over get names of their own;
    what is background in truth or found, -1, becomes -1.
    """
    renamed = torch.full_like(labels_true, -1)
    for true, found, out in zip(labels_true, labels_found, renamed, strict=True):
        seen = (true >= 0) & (found >= 0)
        if not seen.any():
            continue
        segments, found = found[seen].unique(return_inverse=True)
        shared = torch.zeros(len(segments), int(true.max()) + 1, dtype=torch.int64)
        shared.index_put_((found, true[seen]), torch.tensor(1), accumulate=True)
        names = dict(zip(*linear_sum_assignment(shared, maximize=True), strict=True))
        left_over = itertools.count(shared.shape[1])
        new = [names[i] if i in names else next(left_over) for i in range(len(segments))]
        out[seen] = torch.tensor(new)[found]
    return renamed


def foreground_ari(labels_true: Tensor, labels_found: Tensor) -> Tensor:
    """Adjusted Rand index of two labellings (B, H, W) over the foreground of each image: (B,).

    1: the same segments, whatever their numbers; 0: no better than chance. The foreground is where
    labels_true >= 0 (1 if that is nowhere); any value of labels_found is a segment there, -1 too.
    """
    pairs = zip(labels_true.cpu().numpy(), labels_found.cpu().numpy(), strict=True)
    return torch.tensor(
        [adjusted_rand_score(true[true >= 0], found[true >= 0]) for true, found in pairs],
        dtype=torch.float64,
    )


@torch.no_grad()
def evaluate_parts(model: ImageModel, images: Tensor, chunk: int = 500) -> dict[str, float]:
    """Measure the parses of held-out images (N, 1, H, W), `chunk` at a time.

    Returns:
        n: images; window_max_level_1..K: the longest side of a window, in sides of the parent.
        For every part t: part_t_pieces, its ink in one piece (`pieces`, mean weighted by ink);
        ink_part_t, its share of the drawn ink; removal_rise_part_t, SSE an image gained by leaving
        it out. Over all parts: pieces, ink_part_min, removal_rise_min_part (of the means).
        With two levels or more also ink_sub_part_t_s (share of what its part draws),
        removal_rise_sub_part_t_s, ink_sub_part_min and removal_rise_min_sub_part.
    """
    depth = model.config.depth
    rows, longest = defaultdict(list), []
    for x in images.split(chunk):
        tree = model.parse(x)
        shares, ink = pieces(drawn(tree).flatten(0, 1).unsqueeze(1))
        rows["main"].append((shares * ink).view(len(x), -1))
        rows["ink"].append(ink.view(len(x), -1))
        rows["ink_part"].append(ink_share(tree))
        rows["removal_rise_part"].append(removal_rise(tree, x))
        if depth > 1:
            rows["ink_sub_part"].append(sub_shares(tree))
            rows["removal_rise_sub_part"].append(removal_rise(tree, x, 2))
        longest.append([windows(tree, below).max().item() for below in range(1, depth + 1)])

    mean = {name: torch.cat(chunks).double().mean(0) for name, chunks in rows.items()}
    main, ink = mean.pop("main"), mean.pop("ink")
    scores = {"n": len(images), "pieces": (main.sum() / ink.sum().clamp_min(1e-6)).item()}
    for t, share in enumerate((main / ink.clamp_min(1e-6)).tolist()):
        scores[f"part_{t + 1}_pieces"] = share
    for name, means in mean.items():
        for index in np.ndindex(means.shape):
            number = "_".join(str(i + 1) for i in index)
            scores[f"{name}_{number}"] = means[index].item()
    for part in ("part", "sub_part")[:depth]:
        scores[f"ink_{part}_min"] = mean[f"ink_{part}"].min().item()
        scores[f"removal_rise_min_{part}"] = mean[f"removal_rise_{part}"].min().item()
    for below, sides in enumerate(zip(*longest, strict=True), 1):
        scores[f"window_max_level_{below}"] = max(sides)
    return scores


@torch.no_grad()
def evaluate_segmentation(
    model: ImageModel, n: int, seed: int = 0, chunk: int = 500
) -> dict[str, float]:
    """Compare parts with the true strokes of n >= 2 generated characters (`rnp_lib.data.strokes`).

    Returns:
        n; ari_parts: adjusted Rand index over the foreground, mean over images, of parts and true
        strokes; ari_parts_kmeans: of k-means on positions and true strokes, with as many clumps as
        the model has parts; ari_parts_grid: of as many fixed boxes; with two levels or more,
        ari_sub_parts, ari_sub_parts_kmeans and ari_sub_parts_grid: the same for sub-parts and the
        true lines and arcs. Each with its standard error, `_stderr`.
    """
    if n < 2:
        raise ValueError(f"a standard error needs at least 2 characters: got {n}.")
    tau, device = model.config.tau, next(model.parameters()).device
    truth = strokes(n, seed, model.config.image_size)
    levels = [("ari_parts", truth.parts), ("ari_sub_parts", truth.subparts)][: len(tau)]
    found = [[] for _ in levels]
    for x in truth.images.split(chunk):
        tree = model.parse(x.to(device))
        for below, chunks in enumerate(found, 1):
            chunks.append(found_labels(tree, below).cpu())
    scores = {"n": n}
    for below, (name, true) in enumerate(levels, 1):
        k = math.prod(tau[:below])
        labellings = {
            name: torch.cat(found[below - 1]),
            f"{name}_kmeans": position_labels(true, k),
            f"{name}_grid": grid_labels(true, k),
        }
        for key, labels in labellings.items():
            ari = foreground_ari(true, labels)
            scores |= {key: ari.mean().item(), f"{key}_stderr": (ari.std() / n**0.5).item()}
    return scores
