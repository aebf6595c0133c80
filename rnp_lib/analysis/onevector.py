"""What one vector makes of what trees are asked in notebooks 07 and 08: plain VAEs, trained as the
trees are, on covered digits, on images of other kinds, and on characters seen once."""

from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from rnp_lib import checkpoints, data
from rnp_lib.analysis import completion, exemplars, likelihood, oneshot
from rnp_lib.analysis.classifier import load_classifier
from rnp_lib.analysis.study import Recipe
from rnp_lib.data import runs
from rnp_lib.model.rnp import ImageModel

STRIDE = 50  # every so many test digits are completed
IMAGES = 10_000  # of each set
OTHERS = ("fashion", "omniglot")
WAYS = {"chains": "likeliest chain", "descent": "by descent"}


def recipes() -> dict[str, Recipe]:
    """By the data set."""
    return {"mnist": Recipe("mnist-vae", {}), "omniglot": Recipe("omniglot", {"model": "vae"})}


def some(images: Tensor, n: int, seed: int = 0) -> Tensor:
    """n images of a set, or all it has, by lot."""
    return images[torch.randperm(len(images), generator=torch.Generator().manual_seed(seed))[:n]]


@torch.no_grad()
def digits(model: ImageModel) -> dict[str, float]:
    """Of completed digits COVER_WAY_SCORE as of `completion.scores`; of the images of other sets
    SET, how well −ELBO tells them from test digits: the area under the ROC curve, and its standard
    error; n_completed and n of each set."""
    size = model.config.image_size
    images, labels = data.load("mnist", "test", size)
    x, classes, reader = images[::STRIDE], labels[::STRIDE], load_classifier("mnist")
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
    known = likelihood.costs(model, images[:IMAGES]).sum(1)
    found["n"] = len(known)
    for name in OTHERS:
        others = some(data.load(name, "test", size)[0], IMAGES)
        area, error = likelihood.auroc(known, likelihood.costs(model, others).sum(1))
        found |= {name: area, f"{name}_stderr": error}
    return found


@torch.no_grad()
def characters(model: ImageModel) -> dict[str, Any]:
    """One-shot classification by its codes, and new drawings by its one vector, of the official
    runs.

    Returns:
        answers: by nats and by distance, for each run what its new images are taken for, lists;
        and of the drawings what `exemplars.recognised` says of the maker "vae", by the programs of
        the committed tree.
    """
    size = model.config.image_size
    background = oneshot.background(data.load("omniglot", "train", size)[0])
    official, code = runs.official(size), oneshot.root(model)
    answers = oneshot.answers(official, oneshot.learned(background, code), code)
    of_tree = oneshot.code(checkpoints.load("omniglot"))
    makers = {"vae": exemplars.root_varied(model, background)}
    learned = oneshot.learned(background, of_tree)
    made = exemplars.recognised(official, makers, learned, of_tree)
    asked = zip(("nats", "distance"), answers, strict=True)
    return {
        "answers": {way: [one.tolist() for one in given] for way, given in asked},
        **{name: value for name, value in made.items() if "vae" in name},
    }


MEASURES = {"mnist": digits, "omniglot": characters}


def collect(folder: Path) -> dict[str, Any]:
    """The record, of runs in `folder`: by data set what `Recipe.measured` has."""
    return {name: recipe.measured(folder, MEASURES[name]) for name, recipe in recipes().items()}


def table(record: dict[str, Any]) -> str:
    """What a record says of digits and of drawings, as lines of text."""
    found, lines = record["mnist"]["numbers"], []
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
    made = record["omniglot"]["numbers"]
    share = f"{made['right_vae']:.1%} ± {made['right_vae_stderr']:.1%}"
    lines.append(f"{'drawings of characters, right':32}{share:>32}")
    return "\n".join(lines)
