"""Where programs lie in their space: maps and clusters to look at, scores to judge by.

A map is for the eye only: t-SNE keeps neighbours and gives up distances, so every score and every
cluster here is of the programs themselves.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from scipy.optimize import linear_sum_assignment
from sklearn.cluster import KMeans
from sklearn.linear_model import LogisticRegression
from sklearn.manifold import TSNE
from sklearn.metrics import normalized_mutual_info_score, silhouette_score
from sklearn.neighbors import KNeighborsClassifier, NearestNeighbors
from sklearn.preprocessing import StandardScaler
from torch import Tensor

from rnp_lib.analysis.programs import of_level, posteriors
from rnp_lib.model.rnp import RNP

NEIGHBOURS = 5


@dataclass
class RootsAndParts:
    """Programs of N images, on the CPU.

    Attributes:
        roots: (N, |z|), the posterior means.
        parts: (N, |z|), for every image one of its root's children.
        turns: int64 (N,), which child that is, from 0.
    """

    roots: Tensor
    parts: Tensor
    turns: Tensor


def roots_and_parts(model: RNP, images: Tensor, seed: int = 0) -> RootsAndParts:
    """Parse images (N, 1, H, W) and draw one part of each by `seed`: as many parts as roots."""
    (roots, _), parts = posteriors(model, images), of_level(model, images, model.config.depth - 1)
    generator = torch.Generator().manual_seed(seed)
    turns = torch.randint(parts.shape[1], (len(parts),), generator=generator)
    return RootsAndParts(roots.cpu(), parts.cpu()[torch.arange(len(parts)), turns], turns)


def of_classes(labels: Tensor, n: int) -> Tensor:
    """Indices of all items of n classes (or of all classes, if fewer) evenly spaced among them."""
    chosen = torch.from_numpy(spaced(labels.unique().numpy(), n))
    return torch.isin(labels, chosen).nonzero().squeeze(1)


def spaced(items: np.ndarray, n: int) -> np.ndarray:
    """n of the items, or all if there are fewer, in even steps from the first to the last."""
    return items[np.linspace(0, len(items) - 1, min(n, len(items))).round().astype(int)]


def separation(groups: Sequence[Tensor], each: bool = False) -> dict[str, float]:
    """How far groups of vectors, each (N_g, D), lie apart.

    Standardising all vectors together gives every dimension the same say. Standardising `each`
    group by itself takes away all that its means and scales tell: these alone tell a Gaussian code
    from one bounded by tanh.

    Returns:
        n: vectors; for `raw` and `std` (standardised) vectors, by Euclidean distances: _silhouette,
        the mean silhouette coefficient (Rousseeuw 1987), from -1 to 1, near 0 for groups that
        overlap, _norm, the same of nothing but their lengths, _neighbours, of the five nearest to a
        vector the share of its own group; chance: that share among all other vectors.

    Raises:
        ValueError: fewer than two groups, as many groups as vectors, or at most five vectors.
    """
    labels = np.repeat(np.arange(len(groups)), [len(group) for group in groups])
    raw = torch.cat(list(groups))
    scaled = [StandardScaler().fit_transform(z) for z in (groups if each else [raw])]
    standard = torch.from_numpy(np.concatenate(scaled))
    scores = {"n": len(raw)}
    for name, z in (("raw", raw), ("std", standard)):
        scores[f"{name}_silhouette"] = float(silhouette_score(z, labels))
        scores[f"{name}_norm"] = float(silhouette_score(z.norm(dim=1, keepdim=True), labels))
        nearest = NearestNeighbors(n_neighbors=NEIGHBOURS).fit(z)
        found = nearest.kneighbors(return_distance=False)  # (n, 5), none its own neighbour
        scores[f"{name}_neighbours"] = float((labels[found] == labels[:, None]).mean())
    sizes = np.bincount(labels)
    scores["chance"] = float((sizes * (sizes - 1)).sum() / (len(raw) * (len(raw) - 1)))
    return scores


def by_label(z: Tensor, labels: Tensor) -> list[Tensor]:
    """The vectors z (N, D) of each label in `labels` (N,), in the labels' order."""
    return [z[labels == label] for label in labels.unique()]


def topography(found: RootsAndParts, labels: Tensor) -> dict[str, dict[str, float]]:
    """The `separation` of the two levels, of parts by turn, and of roots by class (labels (N,))."""
    return {
        "level": separation([found.roots, found.parts], each=True),
        "turn": separation(by_label(found.parts, found.turns)),
        "class": separation(by_label(found.roots, labels)),
    }


def table(scores: dict[str, dict[str, dict[str, float]]]) -> str:
    """Scores as `topography` returns them, of several models by name, as lines of text."""
    heads = [f"{way}{of}" for way in ("raw", "std") for of in ("", " norm", " 5nn")]
    heads += ["chance", "n"]
    line = ("{:10} {:6}" + "{:>9}" * len(heads)).format
    lines = [line("", "", *heads)]
    for who, rows in scores.items():
        for what, (n, *values) in ((what, row.values()) for what, row in rows.items()):
            lines.append(line(who, what, *(f"{value:.3f}" for value in values), f"{n:,}"))
    return "\n".join(lines)


def readout(train: tuple[Tensor, Tensor], test: tuple[Tensor, Tensor]) -> dict[str, float]:
    """How well labels can be read from vectors (N, D), labels (N,): fitted on one pair of them and
    scored on another.

    Returns:
        n_train and n_test; probe: accuracy of a logistic regression; knn: accuracy of the vote of
        the five nearest training vectors.
    """
    (z, labels), (z_test, labels_test) = [(v.numpy(), y.numpy()) for v, y in (train, test)]
    readers = {"probe": LogisticRegression(max_iter=1_000), "knn": KNeighborsClassifier(NEIGHBOURS)}
    accuracy = {k: float(r.fit(z, labels).score(z_test, labels_test)) for k, r in readers.items()}
    return {"n_train": len(z), "n_test": len(z_test)} | accuracy


def tsne(z: Tensor, seed: int = 0) -> np.ndarray:
    """A map (N, 2) of vectors z (N, D), N > 30: t-SNE (van der Maaten & Hinton 2008)."""
    return TSNE(init="pca", random_state=seed).fit_transform(z.numpy())


@dataclass
class Clusters:
    """k clusters of N vectors, the tightest first.

    Attributes:
        labels: int64 (N,), the cluster of each vector.
        nearest: int64 (k,), the index of the vector nearest to each centre.
        spread: (k,), root mean square distance of a cluster's vectors from its centre.
    """

    labels: np.ndarray
    nearest: np.ndarray
    spread: np.ndarray

    def majority(self, groups: Tensor) -> np.ndarray:
        """The most frequent group, of groups int64 (N,) from 0, in each cluster: (k,)."""
        counts = np.zeros((len(self.spread), int(groups.max()) + 1), int)
        np.add.at(counts, (self.labels, groups.numpy()), 1)
        return counts.argmax(1)

    def members(self, cluster: int, n: int, seed: int = 0) -> np.ndarray:
        """Indices of n vectors of a cluster drawn by `seed`, of all if it has fewer."""
        mine = np.flatnonzero(self.labels == cluster)
        return np.random.default_rng(seed).permutation(mine)[:n]


def clusters(z: Tensor, k: int, seed: int = 0) -> Clusters:
    """k-means of vectors z (N, D), N >= k, the best of ten starts."""
    means = KMeans(k, n_init=10, random_state=seed).fit(z.numpy())
    distance = means.transform(z.numpy())  # (N, k)
    own = distance[np.arange(len(z)), means.labels_]
    spread = (np.bincount(means.labels_, own**2) / np.bincount(means.labels_)) ** 0.5
    order = spread.argsort()
    return Clusters(order.argsort()[means.labels_], distance.argmin(0)[order], spread[order])


def cluster_scores(z: Tensor, labels: Tensor, seed: int = 0) -> dict[str, float]:
    """How well k-means of vectors z (N, D), as many clusters as there are labels (N,), finds them.

    Returns:
        acc: the share of vectors whose cluster is of their label, by the best one-to-one matching
        of the two (Hungarian); nmi: normalised mutual information of clusters and labels.
    """
    classes, labels = np.unique(labels.numpy(), return_inverse=True)
    found = clusters(z, len(classes), seed).labels
    shared = np.zeros((len(classes), len(classes)), int)
    np.add.at(shared, (found, labels), 1)
    matched = shared[linear_sum_assignment(shared, maximize=True)].sum()
    return {
        "acc": float(matched / len(labels)),
        "nmi": float(normalized_mutual_info_score(labels, found)),
    }
