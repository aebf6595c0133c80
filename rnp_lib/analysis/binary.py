"""How probable a tree and its peers find digits of nothing but black and white, as published models
are compared: under a Bernoulli likelihood."""

from pathlib import Path
from typing import Any

import torch

from rnp_lib import data
from rnp_lib.analysis import likelihood, oneshot
from rnp_lib.analysis.parsing import mean_and_error
from rnp_lib.analysis.peers import ACTIVE, PEERS
from rnp_lib.analysis.study import Recipe
from rnp_lib.model.rnp import ImageModel

MODELS = ("tree", "root", "one", "vae", "iwae")  # of PEERS
DRAWS = (1, 100, 1_000)  # of each image's bound
FEW = 1_000  # test images, the first: those whose bounds are of more draws than one
# Negative log-likelihoods on digits that others drew once, from the same grey ones; their training
# is twenty times as long and more.
PUBLISHED = {
    "VAE (Rezende and Mohamed, 2015)": 89.9,
    "IWAE, k = 50 (Burda et al., 2016)": 87.1,
    "the same, 5 draws": 87.6,
}


def recipes() -> dict[str, Recipe]:
    """By the name of the peer."""
    return {name: Recipe("mnist-binary", PEERS[name].changes) for name in MODELS}


@torch.no_grad()
def measure(model: ImageModel) -> dict[str, Any]:
    """Of a model, on test images: by the draws of its bound, "1", "100" and "1000", the negative
    bound, `nats`, with its standard error over n images; kl_root and kl_below: nats; active: how
    many numbers of the root are in use."""
    images, _ = data.load(model.config.dataset, "test", model.config.image_size)
    found: dict[str, Any] = {}
    generator = torch.Generator().manual_seed(0)
    one = likelihood.log_weights(model, images, 1, generator)
    many = likelihood.log_weights(model, images[:FEW], max(DRAWS), generator)
    for draws in DRAWS:
        weights = one if draws == 1 else many[:, :draws]
        bound = mean_and_error("nats", -likelihood.iwae(weights))
        found[str(draws)] = {"n": len(weights), **bound}
    spent = likelihood.costs(model, images).mean(0).tolist()
    _, root, *below = spent
    found |= {"kl_root": root, "kl_below": sum(below)}
    active = oneshot.root(model)(images).var(0) > ACTIVE
    return found | {"active": int(active.sum())}


def collect(folder: Path) -> dict[str, Any]:
    """The record, of runs in `folder`: by peer what `Recipe.measured` has."""
    return {name: recipe.measured(folder, measure) for name, recipe in recipes().items()}


def numbers(record: dict[str, Any]) -> dict[str, float]:
    """All numbers of a record as `collect` has it: bound_DRAWS_MODEL, nats, its standard error,
    _stderr, and n_DRAWS; kl_root_MODEL, kl_below_MODEL and active_MODEL."""
    found: dict[str, float] = {}
    for model, row in record.items():
        of_model = dict(row["numbers"])
        for draws in map(str, DRAWS):
            bound = of_model.pop(draws)
            found[f"n_{draws}"] = bound["n"]
            found[f"bound_{draws}_{model}"] = bound["nats"]
            found[f"bound_{draws}_{model}_stderr"] = bound["nats_stderr"]
        found |= {f"{score}_{model}": value for score, value in of_model.items()}
    return found


def table(record: dict[str, Any]) -> str:
    """A record as `collect` has it, as lines of text."""
    head = "".join(f"{f'k = {draws:,}':>16}" for draws in DRAWS)
    lines = [f"{'-log p(x), nats, at most':36}{head}{'root':>8}{'below':>8}{'in use':>8}"]
    for name in MODELS:
        found = record[name]["numbers"]
        bounds = (found[str(draws)] for draws in DRAWS)
        row = "".join(f"{bound['nats']:9.2f} ± {bound['nats_stderr']:.2f}" for bound in bounds)
        row += f"{found['kl_root']:8.1f}{found['kl_below']:8.1f}{found['active']:8}"
        lines.append(f"{PEERS[name].words:36}{row}")
    return "\n".join([*lines, *(f"{words:36}{nats:9.1f}" for words, nats in PUBLISHED.items())])
