"""Every digit held out once (section 3.3): what a tree and a plain VAE make of a digit that they
have not seen, before and after what looks at images learns of it.

A tenth of the images of the recipe, half of the retraining, one seed: for a table of ten digits, by
settings that were fixed before a test image was read. Digits 7 and 8 with all of both, and more
controls, are in `controls`.
"""

from pathlib import Path
from typing import Any

import numpy as np

from rnp_lib import data
from rnp_lib.analysis import transfer
from rnp_lib.analysis.study import Recipe
from rnp_lib.analysis.transfer import Task
from rnp_lib.model.rnp import ImageModel

BASE = "mnist-alphabet"
IMAGES = 60_000  # each model is trained on
RETRAINED = 20_000  # images that inference is retrained on
DIGITS = range(10)
MODELS = {"tree": {}, "vae": {"model": "vae"}}  # what differs from the tree
# What is measured of new digits.
CONDITIONS = {
    "none": "nothing retrained",
    "inference": "inference retrained",
    "saw": "saw every digit",
}


def recipes() -> dict[tuple[int | None, str], Recipe]:
    """By the digit held out, None for none, and the kind of model."""
    return {
        (digit, model): Recipe(BASE, {"images": IMAGES, **held, **changes})
        for digit in (*DIGITS, None)
        for held in [{} if digit is None else {"without": digit}]
        for model, changes in MODELS.items()
    }


def measure(model: ImageModel) -> dict[str, Any]:
    """`transfer.score` on a digit's test images: of a model without it, with nothing retrained,
    "none", and with "inference" retrained, with the SSE of validation images; of a model that saw
    all digits, of each."""
    c = model.config
    halves = [data.load(c.dataset, part, c.image_size) for part in ("train", "test")]
    if not c.without:
        return {
            str(digit): transfer.score(model, transfer.split(Task(BASE, digit), *halves).new)
            for digit in DIGITS
        }
    images = transfer.split(Task(BASE, *c.without), *halves)
    adapted, validation = transfer.retrain(model, images.learn, images=(RETRAINED,))
    return {
        "none": transfer.score(model, images.new),
        "inference": transfer.score(adapted, images.new) | {"validation_sse": validation},
    }


def collect(folder: Path) -> dict[str, Any]:
    """The record of all models, whose runs are in `folder`: by the digit held out, "" for none, and
    by kind what `Recipe.measured` has."""
    found: dict[str, Any] = {
        "inputs": {"images": IMAGES, "retrained": transfer.RECIPE | {"images": [RETRAINED]}},
        "seed": 0,
        "without": {},
    }
    for (digit, model), recipe in recipes().items():
        rows = found["without"].setdefault("" if digit is None else str(digit), {})
        rows[model] = recipe.measured(folder, measure)
    return found


def of_digit(record: dict, digit: int, model: str, condition: str) -> dict[str, float]:
    """What a model made of the test images of a digit: `transfer.summary`."""
    if condition == "saw":
        return record["without"][""][model]["numbers"][str(digit)]
    return record["without"][str(digit)][model]["numbers"][condition]


def numbers(record: dict) -> dict[str, float]:
    """SCORE_CONDITION_MODEL_DIGIT, SSE and nats; over digits the mean, SCORE_CONDITION_MODEL, and
    SCORE_CONDITION_less, by how much the tree's is below the VAE's, with the `_stderr` of both."""
    found = {}
    for score in ("sse", "nats"):
        for condition in CONDITIONS:
            values = {}
            for model in MODELS:
                values[model] = np.array(
                    [of_digit(record, digit, model, condition)[score] for digit in DIGITS]
                )
                found |= {
                    f"{score}_{condition}_{model}_{digit}": float(value)
                    for digit, value in zip(DIGITS, values[model], strict=True)
                }
            for name, each in {**values, "less": values["vae"] - values["tree"]}.items():
                found[f"{score}_{condition}_{name}"] = float(each.mean())
                stderr = float(each.std(ddof=1) / len(each) ** 0.5)
                found[f"{score}_{condition}_{name}_stderr"] = stderr
    return found


def table(record: dict) -> str:
    """What each digit costs the tree and the VAE, as lines of text: SSE and nats an image."""
    found, lines = numbers(record), []
    columns = [f"{condition}_{model}" for condition in CONDITIONS for model in MODELS]
    for score, title in (("sse", "SSE"), ("nats", "-ELBO, nats")):
        lines.append(f"{title:14}" + "".join(f"{what:>24}" for what in CONDITIONS.values()))
        lines.append(
            f"{'digit':14}" + "".join(f"{model:>12}" for model in MODELS) * len(CONDITIONS)
        )
        for digit in (*map(str, DIGITS), "mean"):
            end = "" if digit == "mean" else f"_{digit}"
            cells = (f"{found[f'{score}_{column}{end}']:12.2f}" for column in columns)
            lines.append(f"{digit:14}" + "".join(cells))
    return "\n".join(lines)
