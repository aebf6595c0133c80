"""Omniglot's official one-shot classification: 20 runs of 20 characters of one alphabet.

Each run has two drawers: the first drew every character once, the second drew them again, in
another order (Lake et al., 2015).
"""

import io
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from rnp_lib.data import archives, images
from rnp_lib.data.png import read_grey

ARCHIVE = "one-shot-classification/all_runs.zip"


class Run(NamedTuple):
    """One run of n characters.

    Attributes:
        known: (n, 1, size, size), ink bright in [0, 1], one image of each character.
        new: (n, 1, size, size), images to be named.
        labels: int64 (n,), which of the known ones each new one is.
    """

    known: Tensor
    new: Tensor
    labels: Tensor


def official(size: int = 28) -> list[Run]:
    """The 20 runs. Raises DataUnavailable if they cannot be had."""
    files = archives.read(ARCHIVE)
    pictures = {name: content for name, content in files.items() if name[-1].endswith(".png")}
    grey = np.stack([read_grey(io.BytesIO(png), "/".join(at)) for at, png in pictures.items()])
    ink = images.resize(255 - torch.from_numpy(grey)[:, None], size) / 255
    number = {"/".join(name): i for i, name in enumerate(pictures)}
    found = []
    for name in sorted(name for name in files if name[-1] == "class_labels.txt"):
        pairs = [line.split() for line in files[name].decode().splitlines()]
        known = sorted(right for _, right in pairs)
        new = [number[at] for at, _ in pairs]
        labels = torch.tensor([known.index(right) for _, right in pairs])
        found.append(Run(ink[[number[at] for at in known]], ink[new], labels))
    return found


def drawn(images: Tensor, labels: Tensor, n: int, seed: int, way: int = 20) -> list[Run]:
    """n runs of `way` characters, known and new images of two drawers each.

    Args:
        images: (N, 1, H, W), and labels: int64 (N,), sorted; as many images of each character, and
            the k-th of each by the same drawer.
    """
    characters = images.unflatten(0, (len(labels.unique()), -1))
    generator = torch.Generator().manual_seed(seed)
    found = []
    for _ in range(n):
        picked = torch.randperm(len(characters), generator=generator)[:way]
        drawers = torch.randperm(characters.shape[1], generator=generator)[:2]
        known, new = (characters[picked, drawer] for drawer in drawers.tolist())
        found.append(Run(known, new, torch.arange(len(picked))))
    return found
