"""One-shot classification (Lake et al., 2015): of twenty characters, each seen once, which is this?

What the programs of two drawings of one character have in common, and in which ways people vary
them, is learned on the characters that models train on. Then the programs of one image say how
cheaply they explain another: in nats, log p(programs of the new image | those of the known one).
The protocol is in docs/evaluation.md.
"""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
from scipy.linalg import eigh
from torch import Tensor

from rnp_lib import alphabets
from rnp_lib.analysis.parsing import mean_and_error
from rnp_lib.data.runs import Run
from rnp_lib.model.batched import batched
from rnp_lib.model.rnp import ImageModel
from rnp_lib.model.tree import ProgramTree
from rnp_lib.training.batches import jitter

# Chosen on runs of the validation alphabets (docs/evaluation.md).
SHRINK = 0.05  # of the covariance within characters, towards its diagonal
MOVED = 0.15  # by how much an image is distorted to be read again, as of `jitter`
LEARNED = 4  # readings of an image of the background set
READINGS = 9  # of an image of a run

# Published errors: of people and of a model that learns from pen strokes and fits them to images of
# 105x105 (Lake et al. 2015); of one that draws strokes of its own, and of AIR as they trained it
# (Liang et al. 2022). Their protocols differ: docs/evaluation.md.
PUBLISHED = {"error_people": 0.045, "error_bpl": 0.033, "error_dood": 0.265, "error_air": 0.855}

# From images (N, 1, H, W) to as many vectors of numbers, (N, D), float64.
Code = Callable[[Tensor], Tensor]


class Variation(NamedTuple):
    """How vectors of D numbers vary between characters and within one: two Gaussians, one for what
    a character is and one for what a drawing adds (probabilistic linear discriminant analysis,
    Ioffe 2006).

    Attributes:
        mean: (D,), of characters.
        basis: (D, D), rows that make the variation within a character white, that between them
            uncorrelated.
        between: (D,), its variance, in units of that within.
    """

    mean: Tensor
    basis: Tensor
    between: Tensor

    @classmethod
    def fit(cls, codes: Tensor, shrink: float = SHRINK) -> "Variation":
        """Of codes (C, n, D) of C characters, n drawings of each."""
        codes = codes.double()
        drawings, middle = codes.shape[1], codes.mean(1)
        off = (codes - middle[:, None]).flatten(0, 1)
        within = off.T @ off / (len(codes) * (drawings - 1))
        diagonal = within.diagonal().clamp_min(1e-6 * within.diagonal().mean())  # a pixel always 0
        within = (1 - shrink) * within + shrink * diagonal.diag()
        between = middle.T.cov() - within / drawings
        variance, basis = eigh(between.numpy(), within.numpy())
        basis, variance = torch.from_numpy(basis.T.copy()), torch.from_numpy(variance)
        return cls(middle.mean(0), basis, variance.clamp_min(0))

    def nats(self, new: Tensor, known: Tensor) -> Tensor:
        """log p(new | known drawing of the same character) - log p(new): (N, D), (M, D) -> (N, M),
        nats, float64."""
        new, known = ((codes.double() - self.mean) @ self.basis.T for codes in (new, known))
        alone = self.between + 1  # variance of a drawing of some character
        share = self.between / alone
        given = alone - share * self.between
        off = new[:, None] - share * known
        told = off.square().div(given).sum(-1) + given.log().sum()
        return 0.5 * ((new.square() / alone).sum(-1) + alone.log().sum())[:, None] - 0.5 * told


def numbers_of(tree: ProgramTree) -> Tensor:
    """All numbers of trees in one row for each image, (B, D): the root's program first, then
    level by level the programs that are drawn and where all lie, leaves too."""
    levels = [list(tree.programs(level)) for level in range(tree.level - 1, -1, -1)]
    programs = [program.z for level in levels[:-1] for program in level]
    places = [program.u for level in levels for program in level]
    return torch.cat([tree.z, *programs, *places], 1)


def code(model: ImageModel) -> Code:
    """`numbers_of` the parse of images."""
    device = next(model.parameters()).device
    return lambda images: batched(lambda x: numbers_of(model.parse(x)).double(), images, device)


def root(model: ImageModel) -> Code:
    """The program of the root alone, at the posterior mean."""
    device = next(model.parameters()).device
    return lambda images: batched(lambda x: model.encode(x).mean.double(), images, device)


def pixels(images: Tensor) -> Tensor:
    """The images themselves as codes."""
    return images.flatten(1).double()


def readings(code: Code, images: Tensor, copies: int, seed: int) -> Tensor:
    """Codes of images (N, 1, H, W) and of copies of them, each moved a little: (N, copies, D),
    first that of the image itself."""
    generator = torch.Generator().manual_seed(seed)
    moved = [images, *(jitter(images, MOVED, generator) for _ in range(copies - 1))]
    return code(torch.cat(moved)).unflatten(0, (copies, -1)).transpose(0, 1)


def coded(runs: Sequence[Run], code: Code) -> list[Run]:
    """Runs of codes (n, D) instead of images, each the mean of READINGS."""
    sizes = [len(run.labels) for run in runs]
    known, new = (
        readings(code, torch.cat([run[i] for run in runs]), READINGS, seed=i).mean(1).split(sizes)
        for i in (0, 1)
    )
    return [Run(*run) for run in zip(known, new, (run.labels for run in runs), strict=True)]


def nearest(runs: Sequence[Run], near: Callable[[Tensor, Tensor], Tensor]) -> list[Tensor]:
    """For each run of codes, which known one each new one is nearest to, int64 (n,).

    near: codes (N, D) and (M, D) of new and of known images -> how near they are, (N, M).
    """
    return [near(run.new, run.known).argmax(1) for run in runs]


def minus_distance(new: Tensor, known: Tensor) -> Tensor:
    """Minus the Euclidean distances of codes: how near they are where nothing is learned."""
    return -torch.cdist(new, known)


def background(images: Tensor) -> Tensor:
    """Of the images that models train on (N, 1, H, W), sorted, those of characters that are not
    held back for validation: (C, 20, 1, H, W)."""
    held = {*alphabets.labels(*alphabets.VALIDATION)}
    every = images.unflatten(0, (-1, alphabets.DRAWERS))
    return every[[i for i in range(len(every)) if i not in held]]


def learned(background: Tensor, code: Code) -> Variation:
    """How codes vary, on images (C, n, 1, H, W) of C characters, n drawings of each: of LEARNED
    readings of each drawing."""
    codes = readings(code, background.flatten(0, 1), LEARNED, seed=2)
    return Variation.fit(codes.unflatten(0, background.shape[:2]).flatten(1, 2))


def answers(
    runs: Sequence[Run], variation: Variation, code: Code
) -> tuple[list[Tensor], list[Tensor]]:
    """What new images of runs are taken for, by nats and by the distance of their codes.

    variation: of such codes, as `learned` has it.
    """
    known = coded(runs, code)
    return nearest(known, variation.nats), nearest(known, minus_distance)


def errors(found: dict[str, list[Tensor]], runs: Sequence[Run], against: str) -> dict[str, float]:
    """How many of the answers, by the name of who gave them, are wrong.

    Args:
        against: a name; by how much it errs less than the others is given too.

    Returns:
        n questions of `runs`; error_NAME, and less_NAME. Means over runs, each with its standard
        error over them, `_stderr`; of differences, of pairs.
    """
    shares = {
        name: torch.stack(
            [
                (given != run.labels).double().mean()
                for given, run in zip(of_runs, runs, strict=True)
            ]
        )
        for name, of_runs in found.items()
    }
    numbers = {"n": sum(len(run.labels) for run in runs), "runs": len(runs)}
    for name, wrong in shares.items():
        numbers |= mean_and_error(f"error_{name}", wrong)
        if name != against:
            numbers |= mean_and_error(f"less_{name}", wrong - shares[against])
    return numbers
