"""Which images of a training split are held back for validation."""

from typing import NamedTuple

import torch
from torch import Tensor

from rnp_lib import alphabets

IN_RANDOM_ORDER = (
    "mnist",
    "mnist-binary",
    "fashion",
    "strokes",
    "combinations",
    "scenes",
    "counting",
)
# Label of the first character of Omniglot's alphabets that are held back.
FIRST_HELD = min(alphabets.labels(*alphabets.VALIDATION))


class Split(NamedTuple):
    """Indices of images, train int64 (N,) and validation int64 (M,), and what the latter are."""

    train: Tensor
    validation: Tensor
    what: str


def validation(name: str, images: Tensor, labels: Tensor) -> Split:
    """The images to train on and those to validate on: none of them is of the test split.

    Sets in random order hold back their last 5,000 images, or their last tenth if that is less;
    Omniglot the alphabets it lists last, so that their characters are new to the model; a folder
    a tenth of every class.

    Args:
        name: what `load` takes.
        images: (N, ...), the set's training split, as a whole or after `leave_out`.
        labels: int64 (N,).

    Raises ValueError if that leaves no image to train on, or none to validate on.
    """
    if len(images) < 2:
        raise ValueError(
            f"{name} has {len(images)} training images: give it at least two, one to validate on."
        )
    count = max(1, len(images) // 10)
    if name in IN_RANDOM_ORDER:
        held = torch.arange(len(images)) >= len(images) - min(count, 5_000)
        what = "the last 5,000" if count >= 5_000 else "the last tenth"
    elif name == "omniglot":
        held = labels >= FIRST_HELD
        left = set(labels.tolist())
        names = [name for name in alphabets.VALIDATION if left & {*alphabets.labels(name)}]
        what = "the alphabets " + " and ".join(", ".join(names).replace("_", " ").rsplit(", ", 1))
    else:
        held = torch.zeros(len(images), dtype=torch.bool)
        held[_stratified(labels)[:count]] = True
        classes = len(labels.unique())
        what = "a tenth, drawn by seed" + (", stratified by label" if classes > 1 else "")
    return _split(held, what)


def by_drawer(labels: Tensor) -> Split:
    """Two of the 20 drawers of every character of Omniglot, for models that must know them all.

    labels: int64 (N,), sorted, 20 images of each character.
    """
    return _split(torch.arange(len(labels)) % 10 == 9, "2 of 20 drawers")


def _split(held: Tensor, what: str) -> Split:
    train, validation = (which.nonzero().flatten() for which in (~held, held))
    if not len(train) or not len(validation):
        raise ValueError(
            f"{len(train)} images are left to train on and {len(validation)} to validate on "
            f"({what}): leave out fewer classes."
        )
    return Split(train, validation, what)


def _stratified(labels: Tensor) -> Tensor:
    """All indices in an order of which every beginning has its share of every class.

    The r-th image of a class of n, in an order drawn by a fixed seed, comes after a share
    (r - 1/2) / n of every other class: Sainte-Laguë's rule. The last of a class comes at the end.
    """
    drawn = torch.randperm(len(labels), generator=torch.Generator().manual_seed(0))
    _, number, counts = labels[drawn].unique(return_inverse=True, return_counts=True)
    by_class = number.argsort(stable=True)
    rank = torch.empty_like(number)
    rank[by_class] = torch.arange(len(labels)) - (counts.cumsum(0) - counts)[number[by_class]]
    size = counts[number]
    after = torch.where(rank == size - 1, size.double(), (rank + 0.5) / size)
    return drawn[after.argsort(stable=True)]
