"""What other seeds say of one shot (figure 8b): models of Omniglot trained as the committed ones
were, from other starts."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from rnp_lib import data
from rnp_lib.analysis import oneshot
from rnp_lib.analysis.parsing import mean_and_error
from rnp_lib.analysis.study import Recipe
from rnp_lib.data import runs
from rnp_lib.model.rnp import ImageModel

SEEDS = (1, 2)  # the committed models are of seed 0
KINDS = {  # by the names of figure 8b
    "tree": ("omniglot", {}),
    "root": ("omniglot-root", {}),
    "vae": ("omniglot", {"model": "vae"}),
}
WORDS = {"tree": "tree", "root": "all from the root", "vae": "plain VAE"}


def recipes() -> dict[str, Recipe]:
    """By KIND_SEED."""
    return {
        f"{kind}_{seed}": Recipe(preset, {**changes, "seed": seed})
        for kind, (preset, changes) in KINDS.items()
        for seed in SEEDS
    }


@torch.no_grad()
def measure(model: ImageModel) -> dict[str, float]:
    """One-shot classification of the official runs by all numbers of a model's programs, as
    `oneshot.errors` has it: error_nats and error_distance."""
    size = model.config.image_size
    background = oneshot.background(data.load("omniglot", "train", size)[0])
    official, code = runs.official(size), oneshot.code(model)
    given = oneshot.answers(official, oneshot.learned(background, code), code)
    answers = dict(zip(("nats", "distance"), given, strict=True))
    found = oneshot.errors(answers, official, against="nats")
    return {name: value for name, value in found.items() if not name.startswith("less")}


def collect(folder: Path) -> dict[str, Any]:
    """The record, of runs in `folder`: by KIND_SEED what `Recipe.measured` has."""
    return {name: recipe.measured(folder, measure) for name, recipe in recipes().items()}


def of_all(record: dict[str, Any], first: Mapping[str, float]) -> dict[str, float]:
    """Errors over all seeds, those of a record and the first.

    Args:
        record: as `collect` has it.
        first: of seed 0, error_KIND and error_KIND_distance, as in figure 8b's record.

    Returns:
        seeds_KIND and seeds_KIND_distance: the mean, with its standard error over seeds, _stderr,
        and the least and the most, _least and _most.
    """
    found: dict[str, float] = {}
    for kind in KINDS:
        for way, key in (("nats", kind), ("distance", f"{kind}_distance")):
            others = [record[f"{kind}_{seed}"]["numbers"][f"error_{way}"] for seed in SEEDS]
            errors = torch.tensor([first[f"error_{key}"], *others], dtype=torch.float64)
            found |= mean_and_error(f"seeds_{key}", errors)
            found |= {f"seeds_{key}_least": float(errors.min())}
            found |= {f"seeds_{key}_most": float(errors.max())}
    return found


def table(record: dict[str, Any]) -> str:
    """A record as `collect` has it, as lines of text."""
    lines = [f"{'one-shot error, 20-way':28}{'by nats':>16}{'by distance':>16}"]
    for kind, words in WORDS.items():
        for seed in SEEDS:
            found = record[f"{kind}_{seed}"]["numbers"]
            cells = (
                f"{found[f'error_{way}']:.1%} ± {found[f'error_{way}_stderr']:.1%}"
                for way in ("nats", "distance")
            )
            lines.append(f"{f'{words}, seed {seed}':28}" + "".join(f"{c:>16}" for c in cells))
    return "\n".join(lines)
