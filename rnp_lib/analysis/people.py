"""Do parts agree with the strokes that people drew? The protocol is in docs/evaluation.md.

`stroke_labels` makes labels of pixels from pen strokes and `agreement` compares labels; neither
needs a model of this library.
"""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
import torch
from scipy import ndimage
from scipy.optimize import linear_sum_assignment
from skimage.morphology import skeletonize
from torch import Tensor

from rnp_lib import alphabets, data
from rnp_lib.analysis.segmentation import foreground_ari, found_labels, position_labels
from rnp_lib.data import pen
from rnp_lib.data.strokes import strokes
from rnp_lib.model.batched import batched
from rnp_lib.model.rnp import ImageModel

INK = 0.25  # a pixel above this is ink
NEAR = 1.0  # pixels: ink that two strokes pass within this distance belongs to neither
SCORES = ("ari", "iou", "covering")
TOUCHING = np.ones((3, 3), bool)  # at a side or a corner


def stroke_labels(strokes: Sequence[np.ndarray], image: np.ndarray, side: int) -> np.ndarray:
    """Which stroke each pixel belongs to: int64 (H, W), numbered as drawn, -1 where none.

    Ink (above INK) belongs to the nearest stroke; where a second one is within NEAR, at crossings
    and where strokes touch, to none.

    Args:
        strokes: at least one, places (P, 2) of the pen, (x, y) in pixels of a drawing side x side.
        image: (H, W) of that drawing, ink bright in [0, 1], of whatever size.
    """
    ink = np.argwhere(image > INK)
    scale = image.shape[0] / side
    away = np.stack([_distance(ink[:, ::-1], (s + 0.5) * scale - 0.5) for s in strokes], 1)
    labels = np.full(image.shape, -1)
    nearest = away.argmin(1)
    nearest[(away < NEAR).sum(1) > 1] = -1
    labels[tuple(ink.T)] = nearest
    return labels


def _distance(at: np.ndarray, line: np.ndarray) -> np.ndarray:
    """From places (N, 2) to a line through places (P, 2), of one place or more: (N,)."""
    start, end = (line[:-1], line[1:]) if len(line) > 1 else (line, line)
    along = end - start
    length2 = np.maximum((along**2).sum(1), 1e-12)
    share = ((at[:, None] - start) * along).sum(2) / length2
    nearest = start + share.clip(0, 1)[..., None] * along
    return np.linalg.norm(at[:, None] - nearest, axis=2).min(1)


def agreement(labels_true: Tensor, labels_found: Tensor) -> dict[str, Tensor]:
    """How well segments agree with true ones, over the pixels where labels_true >= 0.

    Args:
        labels_true: int64 (B, H, W), some pixel of each >= 0.
        labels_found: int64 (B, H, W); every value is a segment, -1 too.

    Returns:
        float64 (B,) each: ari, the adjusted Rand index; iou, the mean over true segments of the
        intersection over union with the found one that the best one-to-one matching gives it, 0 if
        none; covering, the mean over true segments, weighted by pixels, of the best intersection
        over union with any found one (Arbeláez et al., 2011).
    """
    ious, coverings = [], []
    for true, found in zip(labels_true.cpu().numpy(), labels_found.cpu().numpy(), strict=True):
        inside = true >= 0
        _, true = np.unique(true[inside], return_inverse=True)
        _, found = np.unique(found[inside], return_inverse=True)
        shared = np.zeros((true.max() + 1, found.max() + 1))
        np.add.at(shared, (true, found), 1)
        size = shared.sum(1)
        iou = shared / (size[:, None] + shared.sum(0) - shared)
        ious.append(iou[linear_sum_assignment(iou, maximize=True)].sum() / len(size))
        coverings.append((size * iou.max(1)).sum() / size.sum())
    return {
        "ari": foreground_ari(labels_true, labels_found),
        "iou": torch.tensor(ious, dtype=torch.float64),
        "covering": torch.tensor(coverings, dtype=torch.float64),
    }


# ---- what else may cut a drawing into parts: int64 (B, H, W) from ink, bool (B, H, W) ------------


def one_part(ink: Tensor) -> Tensor:
    """All ink is one segment."""
    return ink.long() - 1


def random_parts(ink: Tensor, k: int = 4) -> Tensor:
    """Every pixel is of one of k segments, by lot."""
    return torch.randint(k, ink.shape, generator=torch.Generator().manual_seed(0))


def clumps(ink: Tensor, k: int = 4) -> Tensor:
    """k-means on positions."""
    return position_labels(ink.long() - 1, k)


def components(ink: Tensor) -> Tensor:
    """Connected pieces."""
    return _by_image(lambda one: ndimage.label(one, TOUCHING)[0] - 1, ink)


def skeleton_pieces(ink: Tensor) -> Tensor:
    """The skeleton, cut at its junctions; every pixel is of the nearest piece."""
    return _by_image(_skeleton_pieces, ink)


def _skeleton_pieces(ink: np.ndarray) -> np.ndarray:
    skeleton = skeletonize(ink)
    neighbours = ndimage.convolve(skeleton.astype(int), TOUCHING.astype(int), mode="constant") - 1
    cut = skeleton & (neighbours <= 2)
    if not cut.any():
        cut = skeleton
    labels = ndimage.label(cut, TOUCHING)[0]
    nearest = ndimage.distance_transform_edt(
        labels == 0, return_distances=False, return_indices=True
    )
    return labels[tuple(nearest)] - 1


def _by_image(label: Callable[[np.ndarray], np.ndarray], ink: Tensor) -> Tensor:
    return torch.from_numpy(np.stack([label(one) for one in ink.numpy()])).long()


RIVALS = {
    "one": one_part,
    "random": random_parts,
    "kmeans": clumps,
    "components": components,
    "skeleton": skeleton_pieces,
}


# ---- people and models ---------------------------------------------------------------------------


class Drawings(NamedTuple):
    """Images, and which of their pixels were drawn with which stroke.

    Attributes:
        images: (N, 1, size, size), ink bright.
        strokes: int64 (N, size, size), -1 where no stroke is meant.
        characters: int64 (N,).
    """

    images: Tensor
    strokes: Tensor
    characters: Tensor

    @property
    def ink(self) -> Tensor:
        """Which pixels are ink, bool (N, size, size)."""
        return self.images[:, 0] > INK

    @property
    def counts(self) -> Tensor:
        """How many strokes have pixels of their own, int64 (N,)."""
        return torch.tensor([len(one[one >= 0].unique()) for one in self.strokes])

    def where(self, which: Tensor) -> "Drawings":
        """Some of the drawings, by index or by bool (N,)."""
        return Drawings(*(each[which] for each in self))


def by_people(names: Sequence[str] = alphabets.WITH_STROKES, size: int = 28) -> Drawings:
    """All drawings of some alphabets of `alphabets.WITH_STROKES`.

    Raises DataUnavailable if Omniglot or its pen strokes cannot be had.
    """
    characters = {*alphabets.labels(*names)}
    found = [one for one in pen.drawings() if one.label in characters]
    images = data.load("omniglot", size=size)[0][[one.index for one in found]]
    pairs = zip(found, images[:, 0].numpy(), strict=True)
    labels = np.stack([stroke_labels(one.strokes, image, pen.SIDE) for one, image in pairs])
    characters = torch.tensor([one.label for one in found])
    return Drawings(images, torch.from_numpy(labels), characters)


def generated(n: int, seed: int) -> Drawings:
    """n characters of `data.strokes`, whose strokes are known, in the place of people's."""
    made = strokes(n, seed)
    return Drawings(made.images, made.parts, torch.arange(n))


def parts(model: ImageModel, images: Tensor) -> dict[str, Tensor]:
    """Which part, and which sub-part, draws most at each pixel of images (N, 1, H, W): int64
    (N, H, W), -1 where none draws."""

    def label(x: Tensor) -> Tensor:
        tree = model.parse(x)
        levels = range(tree.level - 1, max(tree.level - 3, -1), -1)
        return torch.stack([found_labels(tree, level) for level in levels], 1)

    found = batched(label, images, next(model.parameters()).device)
    return dict(zip(("parts", "sub_parts"), found.unbind(1), strict=False))


def over_characters(name: str, values: Tensor, characters: Tensor) -> dict[str, float]:
    """The mean over characters of their drawings' means, and under `name`_stderr its standard
    error over characters; values float64 (N,), characters int64 (N,)."""
    means = torch.stack([values[characters == one].mean() for one in characters.unique()])
    return {name: float(means.mean()), f"{name}_stderr": float(means.std() / len(means) ** 0.5)}


def cuts(models: dict[str, ImageModel], drawings: Drawings) -> dict[str, Tensor]:
    """How each model, by name, cuts drawings into parts and sub-parts ("NAME_sub"), and how each of
    RIVALS does: int64 (N, H, W)."""
    found = {}
    for name, model in models.items():
        by_level = parts(model, drawings.images)
        found |= {name: by_level["parts"]}
        if "sub_parts" in by_level:
            found |= {f"{name}_sub": by_level["sub_parts"]}
    return found | {name: rival(drawings.ink) for name, rival in RIVALS.items()}


def compare(drawings: Drawings, found: dict[str, Tensor], against: str) -> dict[str, float]:
    """How well cuts (N, H, W), by name, agree with strokes.

    Args:
        drawings: of two strokes or more each.
        against: the name of the cut that the others are compared with.

    Returns:
        n drawings of `characters`; SCORE_NAME of each of SCORES, and less_NAME, by how much the ARI
        of `against` is higher. Means over characters, each with its standard error over them,
        `_stderr`; of a difference, of pairs.
    """
    of = drawings.characters
    scores = {"n": len(of), "characters": len(of.unique())}
    agreed = {name: agreement(drawings.strokes, cut) for name, cut in found.items()}
    for name, by in agreed.items():
        for score, values in by.items():
            scores |= over_characters(f"{score}_{name}", values, of)
        if name != against:
            less = agreed[against]["ari"] - by["ari"]
            scores |= over_characters(f"less_{name}", less, of)
    return scores
