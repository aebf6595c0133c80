"""Do parts agree with true strokes? Labels of pixels, found and true, and how alike they are."""

import itertools
import math

import torch
from scipy.optimize import linear_sum_assignment
from sklearn.cluster import KMeans
from sklearn.metrics import adjusted_rand_score
from torch import Tensor

from rnp_lib.analysis.parsing import drawn, mean_and_error
from rnp_lib.data.strokes import strokes
from rnp_lib.model.batched import batched
from rnp_lib.model.rnp import RNP
from rnp_lib.model.tree import ProgramTree


def found_labels(tree: ProgramTree, level: int | None = None) -> Tensor:
    """The program of a level (the root's parts unless told) that draws most ink at each pixel:
    int64 (B, H, W).

    Numbered in drawing order through the whole tree; -1 where none draws any.
    """
    ink, program = drawn(tree, level).squeeze(-3).flatten(1, -3).max(1)
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
    aris = [adjusted_rand_score(true[true >= 0], found[true >= 0]) for true, found in pairs]
    return torch.tensor(aris, dtype=torch.float64)


def evaluate_segmentation(model: RNP, n: int, seed: int = 0) -> dict[str, float]:
    """Compare parts with the true strokes of n >= 2 generated characters (`rnp_lib.data.strokes`).

    Returns:
        n; ari_parts: adjusted Rand index over the foreground, mean over images, of parts and true
        strokes; ari_parts_kmeans: of k-means on positions and true strokes, with as many clumps as
        the model has parts; ari_parts_grid: of as many fixed boxes; ari_parts_less_kmeans: by how
        much the parts' index of an image exceeds that of k-means. With two levels or more,
        ari_sub_parts, …: the same for sub-parts and the true lines and arcs. Each with its standard
        error, `_stderr`; that of the difference is of pairs.
    """
    if n < 2:
        raise ValueError(f"a standard error needs at least 2 characters: got {n}.")
    tau, device = model.config.tau, next(model.parameters()).device
    truth = strokes(n, seed, model.config.image_size)
    names = ("ari_parts", "ari_sub_parts")[: len(tau)]

    def label(x: Tensor) -> Tensor:
        tree = model.parse(x)
        return torch.stack([found_labels(tree, tree.level - 1 - i) for i in range(len(names))], 1)

    scores, found = {"n": n}, batched(label, truth.images, device)
    for i, name in enumerate(names):
        true, labels, k = (truth.parts, truth.subparts)[i], found[:, i], math.prod(tau[: i + 1])
        rivals = labels, position_labels(true, k), grid_labels(true, k)
        parts, kmeans, grid = (foreground_ari(true, rival) for rival in rivals)
        aris = {"": parts, "_kmeans": kmeans, "_grid": grid, "_less_kmeans": parts - kmeans}
        for by, ari in aris.items():
            scores |= mean_and_error(f"{name}{by}", ari)
    return scores
