"""One-shot generation (Lake et al., 2015): new drawings of a character that was seen once.

What a drawing is made of is kept, and something of it is drawn anew: as the model expects, or as
people vary it from drawing to drawing of one character, learned on the characters that the model
trains on. The protocol is in docs/evaluation.md.
"""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from rnp_lib.analysis import oneshot
from rnp_lib.analysis.oneshot import Code, Variation
from rnp_lib.data.runs import Run
from rnp_lib.model.batched import batched
from rnp_lib.model.guide import Given, Guide
from rnp_lib.model.rnp import RNP
from rnp_lib.model.tree import ProgramTree

# Of the standard deviations from drawing to drawing; chosen on the validation alphabets.
SHARE = 0.5

# From images (N, 1, H, W) and a generator to as many new ones.
Maker = Callable[[Tensor, torch.Generator], Tensor]


def _noise(model: RNP, n: int, generator: torch.Generator) -> list[Tensor]:
    """What the programs of n trees below their roots are drawn with: see `Guide`."""
    drawn = torch.randn(n, model.config.noise, generator=generator)
    return model.split(drawn.to(next(model.parameters())))[1]


def _places(tree: ProgramTree) -> tuple[Tensor, Tensor]:
    """Programs (N, τ, |z|) and places (N, τ, 6), before squashing, of the parts of trees."""
    return tuple(torch.stack([getattr(c, name) for c in tree.children], 1) for name in ("z", "u"))


def _spread(codes: Tensor) -> Tensor:
    """How codes (C, n, D) vary within C characters, n drawings of each: L (D, D), float64, so that
    noise @ L has their covariance."""
    off = (codes - codes.mean(1, keepdim=True)).double().flatten(0, 1)
    within = off.T @ off / (codes.shape[0] * (codes.shape[1] - 1))
    value, vector = torch.linalg.eigh(within)
    return value.clamp_min(0).sqrt()[:, None] * vector.T


def _of(background: Tensor, code: Code) -> Tensor:
    return code(background.flatten(0, 1)).unflatten(0, background.shape[:2])


def parts_anew(model: RNP) -> Maker:
    """The root's program is kept; its parts and their places are drawn from its predictions."""

    def make(images: Tensor, generator: torch.Generator) -> Tensor:
        guide = Guide(_noise(model, len(images), generator))
        return model.unroll(model.encode(images).mean, model.config.depth, guide=guide).canvas.cpu()

    return torch.no_grad()(make)


def places_anew(model: RNP) -> Maker:
    """All programs are kept; the places of parts are drawn from the root's predictions."""

    def make(images: Tensor, generator: torch.Generator) -> Tensor:
        tree = model.parse(images)
        guide = Given([(_places(tree)[0], None)], _noise(model, len(images), generator))
        return model.unroll(tree.z, model.config.depth, guide=guide).canvas.cpu()

    return torch.no_grad()(make)


def places_varied(model: RNP, background: Tensor) -> Maker:
    """All programs are kept; the places of parts move together as people vary them.

    background: images (C, n, 1, H, W) of C other characters, n drawings of each.
    """

    def code(images: Tensor) -> Tensor:
        return batched(lambda x: _places(model.parse(x))[1].flatten(1).cpu(), images)

    spread = SHARE * _spread(_of(background, code))

    def make(images: Tensor, generator: torch.Generator) -> Tensor:
        tree = model.parse(images)
        programs, places = _places(tree)
        moves = torch.randn(len(images), len(spread), generator=generator).double() @ spread
        places = places + moves.view_as(places).to(places)
        return model.unroll(
            tree.z, model.config.depth, guide=Given([(programs, places)])
        ).canvas.cpu()

    return torch.no_grad()(make)


def root_varied(model: RNP, background: Tensor) -> Maker:
    """The root's program moves as people vary it, and all else follows: of a model with all chance
    in the root, or of a VAE.

    background: as of `places_varied`.
    """
    spread = SHARE * _spread(_of(background, oneshot.root(model)))

    def make(images: Tensor, generator: torch.Generator) -> Tensor:
        z = model.encode(images).mean
        moves = torch.randn(z.shape, generator=generator).double() @ spread
        return model.decode(z + moves.to(z)).canvas.cpu()

    return torch.no_grad()(make)


def recognised(
    runs: Sequence[Run], makers: dict[str, Maker], variation: Variation, code: Code, seed: int = 0
) -> dict[str, float]:
    """Which new drawings one-shot classification takes for what they are meant to be.

    Of every known drawing of a run a new one is made, and compared with the drawings by another
    person that the run asks about.

    Args:
        runs: of images.
        makers: by name.
        variation, code: the classifier, as `oneshot.learned` has it.

    Returns:
        n drawings; for the drawings that were known, "real", and each maker, right_NAME: share
        recognised, with its standard error over runs, and moved_NAME: squared distance from the
        known one, "real" being that of the other person's.
    """
    generator = torch.Generator().manual_seed(seed)
    made = {"real": [run.known for run in runs]}
    for name, maker in makers.items():
        made[name] = [maker(run.known, generator).clamp(0, 1) for run in runs]
    others = [run.new[run.labels.argsort()] for run in runs]
    right = [torch.arange(len(run.known)) for run in runs]
    found = {"n": sum(map(len, right))}
    for name, drawings in made.items():
        asked = [Run(*each) for each in zip(others, drawings, right, strict=True)]
        answers = oneshot.nearest(oneshot.coded(asked, code), variation.nats)
        wrong = oneshot.errors({name: answers}, asked, against=name)
        found[f"right_{name}"] = 1 - wrong[f"error_{name}"]
        found[f"right_{name}_stderr"] = wrong[f"error_{name}_stderr"]
        away = others if name == "real" else drawings
        pairs = zip(away, (run.known for run in runs), strict=True)
        moved = [(a - b).square().flatten(1).sum(1).mean() for a, b in pairs]
        found[f"moved_{name}"] = float(torch.stack(moved).mean())
    return found
