"""Which training images a training is validated on, and never learns from."""

from typing import NamedTuple

import torch
from torch import LongTensor, Tensor


class Split(NamedTuple):
    """Indices of images to learn from and to validate on, and which those are, in words."""

    train: LongTensor
    validation: LongTensor
    what: str


def validation(name: str, images: Tensor, labels: Tensor) -> Split:
    """The last 5,000 of a data set's training images, or the last tenth of a small set."""
    n = min(5_000, max(1, len(images) // 10))
    index = torch.arange(len(images))
    return Split(index[:-n], index[-n:], f"the last {n:,}")
