"""Transfer (section 3.3, Fig. 6): a model meets characters that it was not trained on.

The paper adjusts the image encoder to them and leaves the decoder, the hypernetwork, as it is. What
is drawn then can only be a new arrangement of what the decoder had learned to draw before.
"""

import copy
import dataclasses
import itertools
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor
from tqdm import tqdm

from rnp_lib import data
from rnp_lib.analysis.likelihood import log_prior
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
# What differs from the recipe of the model that starts, chosen on validation images of the digit 7
# (docs/recipe.md). The part term asks for what a frozen decoder cannot learn any more, and with so
# small a variance the prior hardly counts: the paper's objective has none.
RECIPE = {
    "batch_size": 64,
    "sigma2": 1e-4,
    "part_weight": 0.0,
    "jitter": 0.06,
    "warmup": 100,
    "kl_warmup": 0,
}
# Of a retraining on few images, of which validation images choose one.
SHOT_STEPS = (3, 10, 30, 100)
SHOT_RECIPE = {"warmup": 0, "lr": 1e-3, "adam_lr": 3e-4}
CODE_STEPS = 50
CODE_RATE = 0.1  # of Adam


@dataclass(frozen=True)
class Task:
    """Which model meets which characters.

    Attributes:
        base: the committed model that starts, and the preset that trains it.
        digit: the class that `base` has not seen; None for the characters of a test split.
        images: how many images a retraining sees, counting each as often as it is seen.
        reference: the committed model that saw every class; None if there is none.
        seeds: how many models, of as many seeds, meet the characters.
        jitter: of the images while retraining.
        old: in words, what forgetting is measured on.
    """

    base: str
    digit: int | None
    images: int
    reference: str | None = None
    seeds: int = 1
    jitter: float = RECIPE["jitter"]
    old: str = "held-out test images of the digits it was trained on"

    @property
    def target(self) -> float:
        """What a retrained encoder's SSE should be at most: in SSEs of the model that saw every
        class or, where there is none, in SSEs without retraining."""
        return 1.3 if self.reference else 0.85


TASKS = {
    "7": Task("mnist-no7", digit=7, images=1_000_000, reference="mnist-root", seeds=3, jitter=0.08),
    "8": Task("mnist-no8", digit=8, images=150_000, reference="mnist-root"),
    "omniglot": Task(
        "omniglot-root",
        digit=None,
        images=600_000,
        jitter=0.15,
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
    model: ImageModel, images: Tensor, budget: int, everything: bool = False, **changes
) -> tuple[ImageModel, float]:
    """Train a copy of a model further, by the recipe it was trained by: only its image encoder,
    unless told otherwise.

    Args:
        images: (N, 1, H, W), the last tenth of which is for validation.
        budget: images seen in all.
        everything: whether the decoder learns too.
        changes: settings of the recipe to change; `seed`, 0 unless told, is that of the images'
            order and of the posterior's noise.

    Returns:
        The retrained model, weights averaged, in eval mode; its SSE per validation image.

    Raises:
        TrainingStopped: the loss is not finite.
        ValueError: the images do not fill one batch.
    """
    settings = {**RECIPE, "images": (budget,), "seed": 0, **changes}
    model = copy.deepcopy(model)
    model.config = dataclasses.replace(model.config, **settings)
    if not everything:
        model.requires_grad_(False)
        model.encoder.requires_grad_(True)
    device = next(model.parameters()).device
    trainer = Trainer(model.config, *hold_back(images), Path(), device, model)
    with torch.enable_grad():
        for _ in tqdm(range(trainer.total), unit="step", disable=not sys.stderr.isatty()):
            values = trainer.train_step()
    if not values.isfinite().all():
        raise TrainingStopped("the loss or its gradient stopped being finite: try a smaller lr.")
    return trainer.average.module.eval(), trainer.validate()


def retrain_few(
    model: ImageModel, images: Tensor, shots: int, draw: int
) -> tuple[ImageModel, float]:
    """Retrain a copy's image encoder on `shots` of the images that `retrain` would learn from.

    It is retrained for each of SHOT_STEPS, and kept as the validation images like it best: what is
    left is more than so few images could give by themselves.

    Args:
        images: (N, 1, H, W), the last tenth of which is for validation.
        draw: number that settles which images are drawn, and the noise.

    Returns:
        The retrained model, in eval mode; its SSE per validation image.
    """
    known, validation = hold_back(images)
    generator = torch.Generator().manual_seed(draw)
    few = known[torch.randperm(len(known), generator=generator)[:shots]]
    # Copies fill the batches: they differ in the posterior's noise.
    few = few.repeat(-(-4 * RECIPE["batch_size"] // shots), 1, 1, 1)
    tried = []
    for steps in SHOT_STEPS:
        adapted, _ = retrain(model, few, steps * RECIPE["batch_size"], seed=draw, **SHOT_RECIPE)
        tried.append((adapted, float(reconstruction_error(adapted, validation).mean())))
    return min(tried, key=lambda pair: pair[1])


def random_decoder(model: ImageModel, seed: int) -> ImageModel:
    """The encoder of a model with a new decoder of the same architecture, untrained."""
    fresh = build(model.config, seed)
    fresh.encoder.load_state_dict(model.encoder.state_dict())
    return fresh.to(next(model.parameters()).device).eval()


@torch.enable_grad()
def adjust_codes(model: ImageModel, x: Tensor, steps: int = CODE_STEPS) -> ProgramTree:
    """The second way to adapt: each image's codes by themselves, under a decoder that stays.

    Adam descends SSE / 2σ² - log p of all programs that are drawn, the negative log of their joint
    density with x less a constant, with the σ² of RECIPE, from the posterior means. Nothing is
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
        loss = squared_error(tree.canvas, x) / (2 * RECIPE["sigma2"]) - log_prior(tree)
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


def summary(errors: Tensor) -> dict[str, float]:
    """SSEs of n images (n,): n, their mean `sse` and its standard error `sse_stderr`."""
    return {"n": len(errors)} | mean_and_error("sse", errors)


def scores(model: ImageModel, images: Images) -> dict[str, dict[str, float]]:
    """`summary` of a model on the images of the new and of the old characters."""
    found = {"new": images.new, "old": images.old}
    return {which: summary(reconstruction_error(model, x)) for which, x in found.items()}
