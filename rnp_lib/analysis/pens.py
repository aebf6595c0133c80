"""Parts against people's strokes on all eight alphabets whose pen strokes are known, by models that
were trained without them: the protocol of docs/evaluation.md, in full."""

from pathlib import Path
from typing import Any

import torch

from rnp_lib.analysis import people
from rnp_lib.analysis.study import Recipe
from rnp_lib.model.rnp import ImageModel
from rnp_lib.presets import PRESETS

MODELS = {  # what differs from the tree
    "tree": {},
    "root": {"posterior": "root", "batch_size": PRESETS["omniglot-root"].batch_size},
    "air": {"model": "air", "tau": (4,), "optimiser": "adam", "lr": 1e-3},
}
WORDS = {
    "tree": "parts",
    "tree_sub": "sub-parts",
    "root": "parts, chance in the root",
    "root_sub": "its sub-parts",
    "air": "objects of AIR",
    "skeleton": "skeleton, cut at branches",
    "kmeans": "k-means, 4 clumps",
    "components": "connected pieces",
    "one": "one part",
    "random": "by lot",
}


def recipes() -> dict[str, Recipe]:
    """By the kind of model."""
    return {model: Recipe("omniglot-nopens", changes) for model, changes in MODELS.items()}


@torch.no_grad()
def measure(model: ImageModel) -> dict[str, float]:
    """`people.compare` of a model's parts, "model", its sub-parts and `people.RIVALS`, on drawings
    of two strokes or more of all eight alphabets."""
    drawings = people.by_people(size=model.config.image_size)
    drawings = drawings.where(drawings.counts > 1)
    return people.compare(drawings, people.cuts({"model": model}, drawings), against="model")


def collect(folder: Path) -> dict[str, Any]:
    """The record, of runs in `folder`: by model what `Recipe.measured` has."""
    return {model: recipe.measured(folder, measure) for model, recipe in recipes().items()}


def numbers(record: dict[str, Any]) -> dict[str, float]:
    """All scores of a record as `collect` has it, named as in `people.compare`, the models' by
    MODEL and MODEL_sub; of the rivals one each, and how far below the tree."""
    found: dict[str, float] = {}
    for model in reversed(record):  # the tree last: what rivals are compared with
        for name, value in record[model]["numbers"].items():
            found[name.replace("_model", f"_{model}")] = value
    return found


def table(record: dict[str, Any]) -> str:
    """A record as `collect` has it, as lines of text: how well each way to cut agrees."""
    found = numbers(record)
    lines = [f"{found['n']:,} drawings of {found['characters']} characters, two strokes or more"]
    lines.append(f"{'':28}" + "".join(f"{score:>16}" for score in ("ARI", "IoU", "covering")))
    for name, words in WORDS.items():
        pairs = (
            (found[f"{score}_{name}"], found[f"{score}_{name}_stderr"]) for score in people.SCORES
        )
        lines.append(f"{words:28}" + "".join(f"{mean:8.3f} ± {error:.3f}" for mean, error in pairs))
    return "\n".join(lines)
