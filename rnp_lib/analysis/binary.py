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
# Draws of each image's bound -> of how many test images, the first.
BOUNDS = {1: 10_000, 100: 10_000, 1_000: 1_000}
# Negative log-likelihoods on digits that others drew once, from the same grey ones; their training
# is twenty times as long and more.
PUBLISHED = {"IWAE, k = 50 (Burda et al., 2016)": 87.1, "the same, 5 draws": 87.6}


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
    for draws, n in BOUNDS.items():
        few, generator = images[:n], torch.Generator().manual_seed(0)
        weights = likelihood.log_weights(model, few, draws, generator)
        bound = mean_and_error("nats", -likelihood.iwae(weights))
        found[str(draws)] = {"n": len(few), **bound}
    spent = likelihood.costs(model, images).mean(0).tolist()
    _, root, *below = spent
    found |= {"kl_root": root, "kl_below": sum(below)}
    active = oneshot.root(model)(images).var(0) > ACTIVE
    return found | {"active": int(active.sum())}


def collect(folder: Path) -> dict[str, Any]:
    """The record, of runs in `folder`: by peer what `Recipe.measured` has."""
    return {name: recipe.measured(folder, measure) for name, recipe in recipes().items()}


def table(record: dict[str, Any]) -> str:
    """A record as `collect` has it, as lines of text."""
    head = "".join(f"{f'k = {draws:,}':>16}" for draws in BOUNDS)
    lines = [f"{'-log p(x), nats, at most':36}{head}{'root':>8}{'below':>8}{'in use':>8}"]
    for name in MODELS:
        found = record[name]["numbers"]
        bounds = (found[str(draws)] for draws in BOUNDS)
        row = "".join(f"{bound['nats']:9.2f} ± {bound['nats_stderr']:.2f}" for bound in bounds)
        row += f"{found['kl_root']:8.1f}{found['kl_below']:8.1f}{found['active']:8}"
        lines.append(f"{PEERS[name].words:36}{row}")
    return "\n".join([*lines, *(f"{words:36}{nats:9.1f}" for words, nats in PUBLISHED.items())])
