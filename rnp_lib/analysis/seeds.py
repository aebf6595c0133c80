"""How much of a result is its seed's: models that were trained as others are, from other starts, on
digits, on new combinations of known strokes (both figure 8) and on one shot (figure 8b)."""

from pathlib import Path
from typing import Any

import torch

from rnp_lib import data
from rnp_lib.analysis import oneshot
from rnp_lib.analysis.parsing import mean_and_error
from rnp_lib.analysis.peers import BUDGETS, PEERS, ROWS, combined, digits
from rnp_lib.analysis.study import Recipe
from rnp_lib.data import runs
from rnp_lib.model.rnp import ImageModel

# By data set, how many seeds: from 0, that of the committed models and of the peers.
SEEDS = {"mnist": 5, "omniglot": 3, "combinations": 3}
# By data set and kind of model, a preset and what differs from it.
KINDS: dict[str, dict[str, tuple[str, dict[str, Any]]]] = {
    "mnist": {
        kind: ("mnist", {"images": BUDGETS["mnist"], **PEERS[kind].changes})
        for kind in ("tree", "vae")
    },
    "omniglot": {
        "tree": ("omniglot", {}),
        "root": ("omniglot-root", {}),
        "vae": ("omniglot", {"model": "vae"}),
    },
    "combinations": {
        kind: ("combinations", {"images": BUDGETS["combinations"], **PEERS[kind].changes})
        for kind in ("tree", "root", "levels", "vae")
    },
}


def recipes() -> dict[tuple[str, str, int], Recipe]:
    """By data set, kind and seed."""
    return {
        (dataset, kind, seed): Recipe(preset, {**changes, **({"seed": seed} if seed else {})})
        for dataset, kinds in KINDS.items()
        for kind, (preset, changes) in kinds.items()
        for seed in range(SEEDS[dataset])
    }


@torch.no_grad()
def one_shot(model: ImageModel) -> dict[str, float]:
    """One-shot classification of the official runs by all numbers of a model's programs, as
    `oneshot.errors` has it: error_nats and error_distance."""
    size = model.config.image_size
    background = oneshot.background(data.load("omniglot", "train", size)[0])
    official, code = runs.official(size), oneshot.code(model)
    given = oneshot.answers(official, oneshot.learned(background, code), code)
    answers = dict(zip(("nats", "distance"), given, strict=True))
    found = oneshot.errors(answers, official, against="nats")
    return {name: value for name, value in found.items() if not name.startswith("less")}


MEASURES = {"mnist": digits, "omniglot": one_shot, "combinations": combined}
# By data set, what is put together over seeds: names of numbers, and in words.
SCORES = {
    "mnist": ROWS["mnist"],
    "omniglot": {"error_nats": "error, nats", "error_distance": "by distance"},
    "combinations": {
        "sse_seen": "SSE, seen",
        "sse_pair": "new pairs",
        "rise_sse_pair": "more than seen",
        "sse_place": "new places",
        "nats_place": "nats, new places",
        "retrieved": "same program",
    },
}


def collect(folder: Path) -> dict[str, Any]:
    """The record, of runs in `folder`: by data set and KIND_SEED what `Recipe.measured` has."""
    found: dict[str, Any] = {dataset: {} for dataset in KINDS}
    for (dataset, kind, seed), recipe in recipes().items():
        found[dataset][f"{kind}_{seed}"] = recipe.measured(folder, MEASURES[dataset])
    return found


def numbers(record: dict[str, Any]) -> dict[str, float]:
    """What a record as `collect` has it says over seeds, by SCORE_KIND of `SCORES` and `KINDS`,
    where a kind has such a score: the mean, with its standard error over seeds, _stderr, and the
    least and the most, _least and _most."""
    found: dict[str, float] = {}
    for dataset, kinds in KINDS.items():
        for name in (f"{score}_{kind}" for score in SCORES[dataset] for kind in kinds):
            score, kind = name.rsplit("_", 1)
            rows = [record[dataset][f"{kind}_{seed}"]["numbers"] for seed in range(SEEDS[dataset])]
            if score not in rows[0]:
                continue
            values = torch.tensor([row[score] for row in rows], dtype=torch.float64)
            found |= mean_and_error(name, values)
            found |= {f"{name}_least": float(values.min()), f"{name}_most": float(values.max())}
    return found


def table(record: dict[str, Any]) -> str:
    """A record as `collect` has it, as lines of text: means over seeds, with their errors."""
    found, lines = numbers(record), []
    for dataset, kinds in KINDS.items():
        lines.append(
            f"{f'{dataset}, {SEEDS[dataset]} seeds':24}" + "".join(f"{k:>18}" for k in kinds)
        )
        for score, words in SCORES[dataset].items():
            cells = (
                f"{found[f'{score}_{kind}']:.3f} ± {found[f'{score}_{kind}_stderr']:.3f}"
                if f"{score}_{kind}" in found
                else ""
                for kind in kinds
            )
            lines.append(f"{words:24}" + "".join(f"{cell:>18}" for cell in cells))
    used = {kind: PEERS[kind].words for kinds in KINDS.values() for kind in kinds}
    return "\n".join([*lines, *(f"{kind:8}{words}" for kind, words in used.items())])
