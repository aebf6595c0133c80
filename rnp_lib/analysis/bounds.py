"""How probable a tree and its peers find digits: grey ones, and those of nothing but black and
white, under a Bernoulli likelihood, as published models are compared."""

from pathlib import Path
from typing import Any

import torch

from rnp_lib import data
from rnp_lib.analysis import likelihood, oneshot, peers
from rnp_lib.analysis.parsing import mean_and_error
from rnp_lib.analysis.study import Recipe
from rnp_lib.model.objective import constant
from rnp_lib.model.rnp import ImageModel

MODELS = ("tree", "root", "one", "vae", "iwae")  # of `peers.PEERS`
DRAWS = (1, 100, 1_000)  # of each image's bound
FEW = 1_000  # test images, the first: those whose bounds are of the most draws
EVERY = {"mnist": 100, "mnist-binary": 1}  # by data set, most draws of a bound of all test images
# Negative log-likelihoods on digits in black and white that others drew once, from the same grey
# ones; their training is twenty times as long and more.
PUBLISHED = {
    "VAE (Rezende and Mohamed, 2015)": 89.9,
    "IWAE, k = 50 (Burda et al., 2016)": 87.1,
    "the same, 5 draws": 87.6,
}


def recipes() -> dict[tuple[str, str], Recipe]:
    """By data set and the name of the peer; on grey digits the peers' own."""
    grey = {("mnist", name): peers.recipes()["mnist", name] for name in MODELS}
    return grey | {
        ("mnist-binary", name): Recipe("mnist-binary", peers.PEERS[name].changes) for name in MODELS
    }


@torch.no_grad()
def measure(model: ImageModel) -> dict[str, Any]:
    """Of a model, on test images: by the draws of its bound, "1", "100" and "1000", the negative
    bound without the constant of the pixels' Gaussian, `nats`, with its standard error over n
    images; kl_root and kl_below: nats; active: how many numbers of the root are in use."""
    c = model.config
    images, _ = data.load(c.dataset, "test", c.image_size)
    found: dict[str, Any] = {}
    generator = torch.Generator().manual_seed(0)
    every = likelihood.log_weights(model, images, EVERY[c.dataset], generator)
    few = likelihood.log_weights(model, images[:FEW], max(DRAWS), generator)
    for draws in DRAWS:
        weights = every if draws <= every.shape[1] else few
        nats = -likelihood.iwae(weights[:, :draws]) - constant(c, images[0].numel())
        found[str(draws)] = {"n": len(weights), **mean_and_error("nats", nats)}
    spent = likelihood.costs(model, images).mean(0).tolist()
    _, root, *below = spent
    found |= {"kl_root": root, "kl_below": sum(below)}
    active = oneshot.root(model)(images).var(0) > peers.ACTIVE
    return found | {"active": int(active.sum())}


def collect(folder: Path) -> dict[str, Any]:
    """The record, of runs in `folder`: by data set and peer what `Recipe.measured` has."""
    found: dict[str, Any] = {dataset: {} for dataset in EVERY}
    for (dataset, name), recipe in recipes().items():
        found[dataset][name] = recipe.measured(folder, measure)
    return found


def numbers(record: dict[str, Any]) -> dict[str, float]:
    """All numbers of a record as `collect` has it: DATASET_bound_DRAWS_MODEL, nats, its standard
    error, _stderr; DATASET_bound_n_DRAWS, _kl_root_MODEL, _kl_below_MODEL and _active_MODEL."""
    found: dict[str, float] = {}
    for dataset, rows in record.items():
        for model, row in rows.items():
            of_model, prefix = dict(row["numbers"]), f"{dataset}_bound"
            for draws in map(str, DRAWS):
                bound = of_model.pop(draws)
                found[f"{prefix}_n_{draws}"] = bound["n"]
                found[f"{prefix}_{draws}_{model}"] = bound["nats"]
                found[f"{prefix}_{draws}_{model}_stderr"] = bound["nats_stderr"]
            found |= {f"{prefix}_{score}_{model}": value for score, value in of_model.items()}
    return found


def table(record: dict[str, Any]) -> str:
    """A record as `collect` has it, as lines of text."""
    lines = []
    for dataset, rows in record.items():
        head = "".join(f"{f'k = {draws:,}':>16}" for draws in DRAWS)
        lines.append(f"{f'{dataset}: -log p(x), nats, at most':36}{head}    root   below  in use")
        for name, row in rows.items():
            found = row["numbers"]
            bounds = (found[str(draws)] for draws in DRAWS)
            text = "".join(f"{bound['nats']:9.2f} ± {bound['nats_stderr']:.2f}" for bound in bounds)
            text += f"{found['kl_root']:8.1f}{found['kl_below']:8.1f}{found['active']:8}"
            lines.append(f"{peers.PEERS[name].words:36}{text}")
    return "\n".join([*lines, *(f"{words:36}{nats:9.1f}" for words, nats in PUBLISHED.items())])
