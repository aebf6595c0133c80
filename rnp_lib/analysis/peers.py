"""The model beside its peers: all trained alike, on the same images, and measured alike.

Settings, budgets and measures were fixed before a test image was read; docs/evaluation.md has the
protocol. Digits are MNIST's; combinations are characters some of whose strokes never came together
in training, or never where they lie (`data.combinations`).
"""

import math
from pathlib import Path
from typing import Any, NamedTuple

import torch

from rnp_lib import data
from rnp_lib.analysis import oneshot, parsing, programs, sampling, topography
from rnp_lib.analysis.classifier import load_classifier
from rnp_lib.analysis.controls import latents
from rnp_lib.analysis.parsing import mean_and_error
from rnp_lib.analysis.study import Recipe
from rnp_lib.data.combinations import KINDS, STROKES, Combinations, combinations
from rnp_lib.model.batched import batched
from rnp_lib.model.objective import error_nats, squared_error
from rnp_lib.model.rnp import ImageModel

# Data set, which is also the preset that all peers of it start from -> images each is trained on.
BUDGETS = {"mnist": 200_000, "combinations": 60_000}
IWAE = 1_000  # samples of the bound of the first images: see `parsing.evaluate`
SAMPLES = 10_000  # of the prior, beside as many test images
PROBED = 10_000  # training images that probes are fitted on
ACTIVE = 0.01  # variance of a posterior mean above which a number of the root is in use


class Peer(NamedTuple):
    """In words, and by what its recipe differs from the tree's."""

    words: str
    changes: dict[str, Any]


PEERS = {
    "tree": Peer("tree", {}),
    "root": Peer("all chance in the root", {"posterior": "root"}),
    "levels": Peer("a hypernetwork for each level", {"hypernets": "levels"}),
    "one": Peer("one level of sixteen parts", {"tau": (16,)}),
    "vae": Peer("plain VAE", {"model": "vae"}),
    "iwae": Peer("plain VAE, trained as IWAE, k = 5", {"model": "vae", "samples": 5}),
    "hvae": Peer("hierarchical VAE, as many numbers as the tree", {"model": "hvae"}),
    "air": Peer(
        "AIR, four objects", {"model": "air", "tau": (4,), "optimiser": "adam", "lr": 1e-3}
    ),
}


def recipes() -> dict[tuple[str, str], Recipe]:
    """Those of all peers on all data sets, by both."""
    found = {}
    for dataset, images in BUDGETS.items():
        for name, peer in PEERS.items():
            changes = {"images": images, **peer.changes}
            if name == "air":  # without it, or with a longer one, it learns that nothing is there
                changes["kl_warmup"] = images // 2
            found[dataset, name] = Recipe(dataset, changes)
    return found


@torch.no_grad()
def digits(model: ImageModel, samples: int = SAMPLES, iwae: int = IWAE) -> dict[str, float]:
    """A model of MNIST on its test images, nothing of which is chosen by them.

    Returns:
        Of `parsing.evaluate`, with the bound of `iwae` samples, what concerns the whole image;
        kl_below: nats of all that is drawn below the root; active: how many numbers of the root are
        in use (Burda et al. 2016); latents: how many are drawn in all; acc, nmi: of k-means on
        roots; probe, knn: accuracies of labels read from roots; sse_omniglot: of characters, which
        the model never saw, with its standard error; legible, fid, kid, precision, recall, density,
        coverage: of `samples` draws of the prior, beside as many test images. Of AIR, which has no
        bounds, samples or roots, n and squared errors alone.
    """
    c = model.config
    images, labels = data.load("mnist", "test", c.image_size)
    characters, _ = data.load("omniglot", "test", c.image_size)
    redrawn = squared_error(programs.redraw(model, characters), characters)
    of_others = mean_and_error("sse_omniglot", redrawn)
    if c.model == "air":
        sse = squared_error(programs.redraw(model, images), images)
        return {"n": len(images), **mean_and_error("sse", sse), **of_others}
    found = parsing.evaluate(model, images, iwae=iwae)
    kept = ("n", "sse", "sse_root", "nats", "elbo", "iwae_nats", "iwae", "iwae_images", "kl")
    names = [*kept, "sse_stderr", "elbo_stderr", "iwae_stderr"]
    scores = {name: found[name] for name in names if name in found}
    root = found.get("kl_root", found["kl"])
    scores |= {"kl_root": root, "kl_below": found["kl"] - root} | of_others

    codes = oneshot.root(model)
    z, train = codes(images), data.load("mnist", "train", c.image_size)
    few = [values[:PROBED] for values in train]
    scores |= {"active": int((z.var(0) > ACTIVE).sum()), "latents": latents(c)}
    scores |= topography.cluster_scores(z, labels)
    read = topography.readout((codes(few[0]), few[1]), (z, labels))
    scores |= {name: read[name] for name in ("probe", "knn")}

    reader = load_classifier("mnist")
    drawn = programs.expand(model, model.noise(samples, seed=0)).clamp(0, 1).cpu()
    scores["legible"] = sampling.legibility(reader, drawn)["legible"]
    real = images[:samples]
    close = sampling.fid_kid(reader, real, drawn)
    scores |= {name: close[name] for name in ("fid", "kid")}
    features = (reader.features(x).cpu() for x in (real, drawn))
    return scores | sampling.precision_recall_density_coverage(*features)


@torch.no_grad()
def combined(model: ImageModel) -> dict[str, float]:
    """A model of combinations on test characters of each kind, "seen", "pair" and "place".

    Returns:
        For each kind its n_, sse_ and nats_ (negative ELBO of one sample, without the constant);
        for the latter two kinds rise_sse_ and rise_nats_, by how much they exceed those seen. All
        but n with the standard error over images, `_stderr`. Of models with parts also what
        `retrieved` has; of AIR, which has no bounds, no nats.
    """
    drawn = combinations(*data.COMBINATIONS["test"], model.config.image_size)
    images, labels = drawn.images, drawn.labels
    generator = torch.Generator().manual_seed(0)

    bounded = model.config.model != "air"

    def score(x: torch.Tensor) -> torch.Tensor:
        sse = squared_error(model.infer(x).canvas, x)
        if not bounded:
            return sse[:, None].double()
        noise = torch.randn(len(x), model.config.noise, generator=generator)
        tree = model.infer(x, noise)
        error = error_nats(model.config, tree.canvas, x)
        return torch.stack([sse, error + tree.nats], 1).double()

    names = ("sse", "nats") if bounded else ("sse",)
    scores = dict(zip(names, batched(score, images).unbind(1), strict=True))
    found: dict[str, float] = {}
    for i, kind in enumerate(KINDS):
        found[f"n_{kind}"] = int((labels == i).sum())
        for name, values in scores.items():
            found |= mean_and_error(f"{name}_{kind}", values[labels == i])
    for name in scores:
        seen, error = found[f"{name}_seen"], found[f"{name}_seen_stderr"]
        for kind in KINDS[1:]:
            found[f"rise_{name}_{kind}"] = found[f"{name}_{kind}"] - seen
            both = found[f"{name}_{kind}_stderr"] ** 2 + error**2
            found[f"rise_{name}_{kind}_stderr"] = both**0.5
    return found | (retrieved(model, drawn) if model.config.model in ("rnp", "air") else {})


@torch.no_grad()
def retrieved(model: ImageModel, drawn: Combinations) -> dict[str, float]:
    """Has the same stroke the same program elsewhere? A stroke's program is that of the part which
    draws most of it, and the nearest one is sought in other characters, in other quarters.

    Returns:
        retrieved: share of strokes whose nearest is of the same shape, with its standard error over
        characters; retrieved_chance: the share of that shape among all in other quarters.
    """

    def programs_of(index: torch.Tensor) -> torch.Tensor:
        tree, parts = model.parse(drawn.images[index]), drawn.parts[index]
        own = torch.stack([parts == stroke for stroke in range(STROKES)], 1).to(tree.parts.dtype)
        inked = torch.einsum("bthw,bshw->bst", tree.parts[:, :, 0], own)
        z = torch.stack([child.z for child in tree.children], 1)
        return z[torch.arange(len(z))[:, None], inked.argmax(2)]  # (B, strokes, |z|)

    z = batched(programs_of, torch.arange(len(drawn.images))).double()
    shape, quarter = drawn.shapes.flatten(), drawn.quarters.flatten()
    far = torch.cdist(z.flatten(0, 1), z.flatten(0, 1))
    character = torch.arange(len(z)).repeat_interleave(STROKES)
    barred = (quarter[:, None] == quarter) | (character[:, None] == character)
    same = shape[:, None] == shape
    right = same.gather(1, far.masked_fill(barred, math.inf).argmin(1, keepdim=True))
    by_character = right.view(-1, STROKES).double().mean(1)
    chance = (same & ~barred).sum() / (~barred).sum()
    return mean_and_error("retrieved", by_character) | {"retrieved_chance": float(chance)}


MEASURES = {"mnist": digits, "combinations": combined}


def collect(folder: Path) -> dict[str, Any]:
    """The record of all peers, whose runs are in `folder`: by data set and peer what
    `Recipe.measured` has."""
    found: dict[str, Any] = {"budgets": BUDGETS, "seed": 0, "peers": {}}
    for (dataset, peer), recipe in recipes().items():
        rows = found["peers"].setdefault(dataset, {})
        rows[peer] = recipe.measured(folder, MEASURES[dataset])
    return found


def numbers(record: dict[str, Any]) -> dict[str, float]:
    """All scores of a record as `collect` has it: by DATASET_SCORE_PEER, and with `_stderr`."""
    found = {}
    for dataset, rows in record["peers"].items():
        for peer, row in rows.items():
            for name, value in row["numbers"].items():
                score = name.removesuffix("_stderr")
                found[f"{dataset}_{score}_{peer}{name[len(score) :]}"] = value
    return found


# What `table` shows, by data set: names of numbers, and in words.
ROWS = {
    "mnist": {
        "sse": "SSE",
        "nats": "-ELBO, nats",
        "iwae_nats": "bound, nats",
        "kl_root": "root, nats",
        "active": "in use",
        "sse_omniglot": "SSE, Omniglot",
        "legible": "legible",
        "fid": "FID",
        "precision": "precision",
        "recall": "recall",
        "coverage": "coverage",
        "acc": "ACC",
        "probe": "probe",
    },
    "combinations": {
        "sse_seen": "SSE seen",
        "sse_pair": "SSE new pairs",
        "sse_place": "SSE places",
        "nats_seen": "nats seen",
        "nats_pair": "nats pairs",
        "nats_place": "nats places",
        "retrieved": "same program",
    },
}


def table(record: dict[str, Any]) -> str:
    """A record as `collect` has it, as lines of text: a column for each peer."""
    lines = []
    for dataset, found in record["peers"].items():
        lines.append(f"{dataset:14}" + "".join(f"{peer:>10}" for peer in found))
        for name, head in ROWS[dataset].items():
            values = (row["numbers"].get(name) for row in found.values())
            cells = (f"{'' if value is None else f'{value:.3f}':>10}" for value in values)
            lines.append(f"{head:14}" + "".join(cells))
    words = {peer: PEERS[peer].words for found in record["peers"].values() for peer in found}
    return "\n".join([*lines, *(f"{peer:8}{what}" for peer, what in words.items())])
