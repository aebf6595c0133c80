"""What one vector makes of covered digits, and of images of other kinds: a plain VAE, trained as
`mnist` is, measured as the trees are in notebook 07."""

from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from rnp_lib import data
from rnp_lib.analysis import completion, likelihood
from rnp_lib.analysis.classifier import load_classifier
from rnp_lib.analysis.study import Recipe
from rnp_lib.model.rnp import ImageModel

STRIDE = 50  # every so many test images are completed
IMAGES = 10_000  # of each set
OTHERS = ("fashion", "omniglot")
WAYS = {"chains": "likeliest chain", "descent": "by descent"}


def recipes() -> dict[str, Recipe]:
    return {"vae": Recipe("mnist-vae", {})}


def some(images: Tensor, n: int, seed: int = 0) -> Tensor:
    """n images of a set, or all it has, by lot."""
    return images[torch.randperm(len(images), generator=torch.Generator().manual_seed(seed))[:n]]


@torch.no_grad()
def measure(model: ImageModel) -> dict[str, float]:
    """Of completed digits COVER_WAY_SCORE as of `completion.scores`; of the images of other sets
    SET, how well −ELBO tells them from test digits: the area under the ROC curve, and its standard
    error; n_completed and n of each set."""
    size = model.config.image_size
    digits, labels = data.load("mnist", "test", size)
    x, classes, reader = digits[::STRIDE], labels[::STRIDE], load_classifier("mnist")
    found: dict[str, float] = {"n_completed": len(x)}
    for title, where in completion.COVERS.items():
        covered = completion.cover(where, size)
        completed = {
            "chains": completion.complete(model, x, covered).images[:, :1],
            "descent": completion.by_descent(model, x, covered)[:, None],
        }
        for way in WAYS:
            scores = completion.scores(completed[way], x, classes, covered, reader)
            name = title.replace(" ", "_")
            found |= {f"{name}_{way}_{score}": value for score, value in scores.items()}
    known = likelihood.costs(model, digits[:IMAGES]).sum(1)
    found["n"] = len(known)
    for name in OTHERS:
        others = some(data.load(name, "test", size)[0], IMAGES)
        area, error = likelihood.auroc(known, likelihood.costs(model, others).sum(1))
        found |= {name: area, f"{name}_stderr": error}
    return found


def collect(folder: Path) -> dict[str, Any]:
    """The record, of runs in `folder`: by model what `Recipe.measured` has."""
    return {name: recipe.measured(folder, measure) for name, recipe in recipes().items()}


def table(record: dict[str, Any]) -> str:
    """A record as lines of text."""
    found, lines = record["vae"]["numbers"], []
    lines.append(f"{'plain VAE':32}{'error':>16}{'right':>16}")
    for title in completion.COVERS:
        for way, words in WAYS.items():
            name = f"{title.replace(' ', '_')}_{way}"
            error, right = (
                f"{found[f'{name}_{score}']:{form}} ± {found[f'{name}_{score}_stderr']:{form}}"
                for score, form in (("error", ".2f"), ("right", ".1%"))
            )
            lines.append(f"{f'{title}, {words}':32}{error:>16}{right:>16}")
    for name in OTHERS:
        area = f"{found[name]:.4f} ± {found[f'{name}_stderr']:.4f}"
        lines.append(f"{f'{name}: area under the curve':32}{area:>16}")
    return "\n".join(lines)
