"""Transfer (section 3.3, Fig. 6): a model meets characters that it was not trained on.

The paper adjusts the image encoder to them and leaves the decoder, the hypernetwork, as it is. What
is drawn then can only be a new arrangement of what the decoder had learned to draw before. Of a
tree the reader is adjusted too: with the encoder it is all that looks at images.
"""

import copy
import dataclasses
import itertools
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor
from tqdm import tqdm

from rnp_lib import data
from rnp_lib.analysis.likelihood import COSTS, costs, log_prior
from rnp_lib.analysis.parsing import mean_and_error
from rnp_lib.data.splits import FIRST_HELD
from rnp_lib.model import build
from rnp_lib.model.batched import batched
from rnp_lib.model.guide import Given
from rnp_lib.model.objective import reconstruction_error, squared_error
from rnp_lib.model.rnp import ImageModel
from rnp_lib.model.tree import ProgramTree
from rnp_lib.presets import PRESETS
from rnp_lib.training.loop import TrainingStopped
from rnp_lib.training.trainer import Trainer

Labelled = tuple[Tensor, Tensor]  # images (N, 1, H, W) in [0, 1] and labels int64 (N,)

DRAWERS = 0.7  # share of a character's images that is learned from: those of 14 drawers of 20
# What differs from the recipe of the model that starts, of every retraining of every task: chosen
# on validation images of the digit 7, which are training images (docs/recipe.md). The part term
# asks for what frozen programs cannot learn any more.
RECIPE = {
    "images": (40_000,),
    "batch_size": 64,
    "part_weight": 0.0,
    "jitter": 0.0,
    "drop": 0.0,
    "warmup": 100,
    "kl_warmup": 0,
}
ERROR_SIGMA2 = 1e-3  # of a pixel, where the error alone is to count: the prior hardly does
# Of a retraining on few images: how many steps, by how many images there are.
SHOT_STEPS = {1: 3, 5: 30, 20: 100}
SHOT_RECIPE = {"warmup": 0, "lr": 1e-3, "adam_lr": 3e-4}
CODE_STEPS = 50
CODE_RATE = 0.1  # of Adam


@dataclass(frozen=True)
class Task:
    """Which models meet which characters.

    Attributes:
        base: the preset of the tree that starts; the committed model is of seed 0.
        digit: the class that `base` has not seen; None for the characters of a test split.
        saw: the run that is as `base` but has seen every class; None if there is none.
        root: the preset of the model with all chance in the root, where it has one of its own.
        models: which models meet them, of `controls.MODELS`, and of each how many, of as many
            seeds.
        old: in words, what forgetting is measured on.
    """

    base: str
    digit: int | None
    saw: str | None = None
    root: str | None = None
    models: Mapping[str, int] = field(default_factory=lambda: {"tree": 1, "vae": 1})
    old: str = "held-out test images of the digits it was trained on"

    def targets(self) -> dict[str, float]:
        """What the SSE after retraining should be at most, by condition: in SSEs of the tree that
        saw every class or, where there is none, in SSEs without retraining."""
        return {"inference": 1.3, "error": 1.1} if self.saw else {"inference": 0.85, "error": 0.85}


_SAW = "mnist-alphabet,images=200000"
_KINDS = dict.fromkeys(("tree", "root", "vae", "wide"), 3)
TASKS = {
    "7": Task("mnist-no7", digit=7, saw=_SAW, models=_KINDS),
    "8": Task("mnist-no8", digit=8, saw=_SAW, models=_KINDS),
    "omniglot": Task(
        "omniglot",
        digit=None,
        root="omniglot-root",
        models=_KINDS,
        old="training images of characters it was trained on",
    ),
}


class Images(NamedTuple):
    """The images of a task, (N, 1, H, W) each.

    Attributes:
        learn: of the new characters; retraining holds its last tenth back for validation.
        new: of the new characters, held out.
        old: of the characters known before: see `Task.old`.
    """

    learn: Tensor
    new: Tensor
    old: Tensor


def split(task: Task, train: Labelled, test: Labelled) -> Images:
    """What is learned from and what is measured, of the two splits of the base model's data set.

    Digits: learned from the new digit's training images, measured on its test images; old are the
    test images of the other digits. Omniglot: of every evaluation character, drawers 1-14 are
    learned from, one drawer after the other, and drawers 15-20 measured; old are drawer 20's images
    of the background characters that were trained on.

    Raises:
        ValueError: there is no image of the task's digit.
    """
    (images, labels), (held, held_labels) = train, test
    if task.digit is None:
        rank = _rank_in_class(held_labels)
        order = rank.argsort(stable=True)
        learn = order[rank[order] < DRAWERS]
        last = _rank_in_class(labels) >= 19 / 20
        return Images(held[learn], held[rank >= DRAWERS], images[last & (labels < FIRST_HELD)])
    mine, held_mine = labels == task.digit, held_labels == task.digit
    if not (mine.any() and held_mine.any()):
        raise ValueError(f"the data have no image of the digit {task.digit}.")
    return Images(images[mine], held[held_mine], held[~held_mine])


def load(task: Task) -> tuple[Images, dict[str, str]]:
    """The images of a task, and the digests of the data they are from, by "name/split"."""
    config = PRESETS[task.base]
    halves = {part: data.load(config.dataset, part, config.image_size) for part in data.SPLITS}
    digests = {f"{config.dataset}/{part}": data.digest(*half) for part, half in halves.items()}
    return split(task, halves["train"], halves["test"]), digests


def _rank_in_class(labels: Tensor) -> Tensor:
    """How far on each image comes among those of its class, from 0 to below 1; (N,).

    In Omniglot, whose images are sorted by character and then by drawer, that names the drawer.
    """
    rank, counts = torch.empty(len(labels)).double(), labels.unique(return_counts=True)[1]
    ranks = [torch.arange(n).double() / n for n in counts.tolist()]
    rank[labels.argsort(stable=True)] = torch.cat(ranks)
    return rank


def hold_back(images: Tensor) -> tuple[Tensor, Tensor]:
    """Images to learn from, and the last tenth of them (5,000 at most) for validation."""
    n = min(5_000, max(1, len(images) // 10))
    return images[:-n], images[-n:]


def retrain(
    model: ImageModel, learn: Tensor, everything: bool = False, **changes
) -> tuple[ImageModel, float]:
    """Train a copy of a model further, by the recipe it was trained by: only what looks at images,
    unless told otherwise.

    Args:
        learn: images (N, 1, H, W), the last tenth of which is for validation.
        everything: whether what draws learns too.
        changes: settings that differ from RECIPE; `seed`, 0 unless told, is that of the images'
            order and of the posterior's noise.

    Returns:
        The retrained model, weights averaged, in eval mode; its SSE per validation image.

    Raises:
        TrainingStopped: the loss is not finite.
        ValueError: the images do not fill one batch.
    """
    model, config = copy.deepcopy(model), model.config
    model.config = dataclasses.replace(model.config, **{**RECIPE, "seed": 0, **changes})
    if not everything:
        model.requires_grad_(False)
        model.inference.requires_grad_(True)
    device = next(model.parameters()).device
    trainer = Trainer(model.config, *hold_back(learn), Path(), device, model)
    with torch.enable_grad():
        for _ in tqdm(range(trainer.total), unit="step", disable=not sys.stderr.isatty()):
            values = trainer.train_step()
    if not values.isfinite().all():
        raise TrainingStopped("the loss or its gradient stopped being finite: try a smaller lr.")
    adapted = trainer.average.module.eval()
    adapted.config = config  # its objective is what it was
    return adapted, trainer.validate()


def few(images: Tensor, shots: int, draw: int) -> tuple[Tensor, Tensor]:
    """`shots` of the images (N, 1, H, W) that `retrain` would learn from, drawn by number `draw`,
    and those for validation."""
    known, validation = hold_back(images)
    generator = torch.Generator().manual_seed(draw)
    return known[torch.randperm(len(known), generator=generator)[:shots]], validation


def retrain_few(
    model: ImageModel, images: Tensor, shots: int, draw: int
) -> tuple[ImageModel, float]:
    """`retrain` a copy of a model on `few` images, for SHOT_STEPS.

    Args:
        images: (N, 1, H, W), the last tenth of which is for validation.
        draw: number that settles which images are drawn, and the noise.

    Returns:
        The retrained model, in eval mode; its SSE per validation image.
    """
    shown, validation = few(images, shots, draw)
    # Copies fill the batches: they differ in the posterior's noise.
    shown = shown.repeat(-(-4 * RECIPE["batch_size"] // shots), 1, 1, 1)
    budget = (SHOT_STEPS[shots] * RECIPE["batch_size"],)
    adapted, _ = retrain(model, shown, images=budget, seed=draw, **SHOT_RECIPE)
    return adapted, float(reconstruction_error(adapted, validation).mean())


def random_decoder(model: ImageModel, seed: int) -> ImageModel:
    """What looks at images of a model, with all that draws new and untrained."""
    fresh = build(model.config, seed)
    fresh.inference.load_state_dict(model.inference.state_dict())
    return fresh.to(next(model.parameters()).device).eval()


@torch.enable_grad()
def adjust_codes(model: ImageModel, x: Tensor, steps: int = CODE_STEPS) -> ProgramTree:
    """The second way to adapt: each image's codes by themselves, under a decoder that stays.

    Adam descends SSE / 2σ² - log p of all programs that are drawn, the negative log of their joint
    density with x less a constant, with ERROR_SIGMA2 as σ², from the posterior means. Nothing is
    learned: this is inference, and it starts anew with every image.

    Args:
        x: images (B, 1, H, W).

    Returns:
        Their trees, from the codes found.
    """
    depth = model.config.depth
    with torch.no_grad():
        start = model.infer(x)
    root, below = start.z.clone(), []
    for level in range(depth - 1, 0, -1) if model.config.posterior == "tree" else ():
        programs = list(start.programs(level))
        below.append(tuple(torch.stack([getattr(p, n) for p in programs], 1) for n in ("z", "u")))
    codes = [root, *itertools.chain(*below)]
    optimiser = torch.optim.Adam([code.requires_grad_() for code in codes], lr=CODE_RATE)

    def drawn() -> ProgramTree:
        return model.unroll(root, depth, guide=Given(below))

    for _ in range(steps):
        tree = drawn()
        loss = squared_error(tree.canvas, x) / (2 * ERROR_SIGMA2) - log_prior(tree)
        grads = torch.autograd.grad(loss.sum(), codes)
        for code, grad in zip(codes, grads, strict=True):
            code.grad = grad
        optimiser.step()
    with torch.no_grad():
        return drawn().map(Tensor.detach)


def code_error(model: ImageModel, images: Tensor, steps: int = CODE_STEPS) -> Tensor:
    """SSE of each image (N, 1, H, W) drawn from its adjusted codes; (N,)."""

    def error(x: Tensor) -> Tensor:
        return squared_error(adjust_codes(model, x, steps).canvas, x)

    return batched(error, images, size=250)


def summary(errors: Tensor, spent: Tensor | None = None) -> dict[str, float]:
    """Of n images: n, the mean `sse` of their SSEs (n,) and its standard error `sse_stderr`; with
    what they cost, (n, 4) as from `costs`, also the mean of each cost and of their sum, `nats`."""
    found = {"n": len(errors)} | mean_and_error("sse", errors)
    if spent is not None:
        found |= mean_and_error("nats", spent.sum(1))
        found |= dict(zip(COSTS, spent.mean(0).tolist(), strict=True))
    return found


def scores(model: ImageModel, images: Images) -> dict[str, dict[str, float]]:
    """`summary` of a model on the images of the new and of the old characters.

    Nats are those of the model's own objective, whatever σ² it was retrained with.
    """
    return {which: score(model, x) for which, x in (("new", images.new), ("old", images.old))}


def score(model: ImageModel, x: Tensor) -> dict[str, float]:
    """`summary` of a model on images (N, 1, H, W)."""
    return summary(reconstruction_error(model, x), costs(model, x))
