"""Maps to wander on: where a model's programs of two levels lie, and how programs mostly vary.

`rnp map NAME` makes the map of checkpoints/NAME.safetensors, `map_of` reads it. A map belongs to
one checkpoint and to the images that were parsed for it, and says so.
"""

from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from rnp_lib import checkpoints, data
from rnp_lib.checkpoints import CheckpointError
from rnp_lib.files import code_version, sha256
from rnp_lib.model.batched import batched
from rnp_lib.model.rnp import RNP

FORMAT = "rnp-map-1"
DIRECTIONS = 6


@dataclass
class Map:
    """N test images on the map, each by its root program and by one of its parts.

    Attributes:
        at: (2N, 2) in [0, 1], across and down: the roots, then the parts.
        index: int64 (N,), which test images of `dataset`.
        turn: int64 (N,), which of its root's children the part is.
        label: int64 (N,), the images' labels.
        mean: (K + 1, |z|), of the programs of each level, from the leaves (0) up.
        directions: (K + 1, 6, |z|), along which programs of a level vary most, each as long as
            their standard deviation along it.
        dataset: whose test images these are.
    """

    at: Tensor
    index: Tensor
    turn: Tensor
    label: Tensor
    mean: Tensor
    directions: Tensor
    dataset: str

    def program(self, point: int) -> tuple[int, tuple[int, ...]]:
        """The test image and the path in its tree that a point, from 0 to 2N - 1, stands for."""
        n = len(self.index)
        if not 0 <= point < 2 * n:
            raise ValueError(f"the map has the points 0 to {2 * n - 1}: got {point}.")
        index = int(self.index[point % n])
        return index, () if point < n else (int(self.turn[point - n]),)


def path_of(name: str | Path) -> Path:
    """Where the map of a checkpoint, a name or a path, lies: beside it."""
    checkpoint = checkpoints.find(name)
    return checkpoint.with_name(f"map-{checkpoint.name}")


@torch.no_grad()
def make(name: str | Path, n: int = 1_000, seed: int = 0) -> Path:
    """Make and write the map of a checkpoint from n test images drawn by `seed`; returns its path.

    Raises what loading the checkpoint and its data set raises, and ValueError for a model that has
    no programs.
    """
    from rnp_lib.analysis import topography  # here alone: scikit-learn takes seconds to import

    model = checkpoints.load(name)
    config = model.config
    if not isinstance(model, RNP):
        raise ValueError(f"{name} has no programs to map: choose a Recursive Neural Program.")
    images, labels = data.load(config.dataset, "test", config.image_size, config.channels)
    index = torch.randperm(len(images), generator=torch.Generator().manual_seed(seed))[:n]
    images, labels = images[index], labels[index]
    found = topography.roots_and_parts(model, images, seed)
    points = torch.from_numpy(topography.tsne(torch.cat([found.roots, found.parts]), seed))
    low, high = points.min(0).values, points.max(0).values
    at = (points - low) / (high - low).max()

    def by_level(x: Tensor) -> tuple[Tensor, ...]:
        tree = model.parse(x)
        levels = range(config.depth + 1)
        return tuple(torch.stack([node.z for node in tree.programs(k)], 1) for k in levels)

    axes = [_principal(z.flatten(0, 1)) for z in batched(by_level, images)]
    tensors = {
        "at": at.half(),
        "index": index.int(),
        "turn": found.turns.to(torch.int8),
        "label": labels.int(),
        "mean": torch.stack([mean for mean, _ in axes]),
        "directions": torch.stack([directions for _, directions in axes]),
    }
    about = {
        "checkpoint_sha256": sha256(checkpoints.find(name)),
        "dataset": config.dataset,
        "data_sha256": data.digest(images, labels),
        "seed": seed,
        "code": code_version(),
    }
    path = path_of(name)
    checkpoints.write(path, FORMAT, tensors, about)
    return path


def _principal(z: Tensor) -> tuple[Tensor, Tensor]:
    """Mean (|z|) and leading principal directions (6, |z|), as long as standard deviations."""
    mean = z.mean(0)
    _, s, v = torch.linalg.svd((z - mean).double(), full_matrices=False)
    k = min(DIRECTIONS, len(v))
    v = v[:k] * v[:k].gather(1, v[:k].abs().argmax(1, keepdim=True)).sign()  # svd leaves signs open
    return mean, (v * s[:k, None] / (len(z) - 1) ** 0.5).float()


def map_of(name: str | Path) -> Map:
    """The map of a checkpoint.

    Raises:
        FileNotFoundError: it was not made yet.
        CheckpointError: it is damaged, or was made from another version of the checkpoint.
    """
    path = path_of(name)
    again = f"`rnp map {name}` makes it"
    if not path.is_file():
        raise FileNotFoundError(f"there is no map of {name} yet: {again}.")
    tensors, about = checkpoints.read(path, FORMAT)
    if about["checkpoint_sha256"] != sha256(checkpoints.find(name)):
        raise CheckpointError(f"{path} is the map of another version of {name}: {again} anew.")
    tensors = {k: t.float() if t.is_floating_point() else t.long() for k, t in tensors.items()}
    return Map(**tensors, dataset=about["dataset"])
