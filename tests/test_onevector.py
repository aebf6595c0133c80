"""A plain VAE on covered digits and strange images, by the library's own measures."""

import json

import pytest
import tiny
import torch
from click.testing import CliRunner

from rnp_lib import data
from rnp_lib.analysis import completion, likelihood, onevector
from rnp_lib.analysis.classifier import Classifier
from rnp_lib.cli import commands
from rnp_lib.model import build
from rnp_lib.presets import PRESETS


@pytest.fixture
def few(monkeypatch):
    """Sets of few images, a classifier that knows nothing, and a recipe of few steps."""
    generator = torch.Generator().manual_seed(0)
    sets = {
        name: (torch.rand(n, 1, 28, 28, generator=generator), torch.arange(n) % 10)
        for name, n in (("mnist", 200), ("fashion", 30), ("omniglot", 30))
    }
    monkeypatch.setattr(data, "load", lambda name, *_: sets[name])
    reader = Classifier(10).eval()
    monkeypatch.setattr(onevector, "load_classifier", lambda name: reader)
    config = tiny.config(dataset="mnist", image_size=28, model="vae", batch_size=16)
    monkeypatch.setitem(PRESETS, "mnist-vae", config)
    return sets


def test_it_is_trained_as_the_tree_is():
    own, tree = onevector.recipes()["vae"].config.to_dict(), PRESETS["mnist"].to_dict()
    changed = {key for key in own if own[key] != tree[key]}
    assert changed <= {"model", "posterior", "drop", "extent"}  # what a VAE has none of
    assert own["model"] == "vae"


@torch.no_grad()
def test_scores_are_those_of_the_parts_of_the_library(few):
    model = build(PRESETS["mnist-vae"], 0).eval()
    found = onevector.measure(model)
    assert (found["n_completed"], found["n"]) == (4, 200)
    x, _ = (of[:: onevector.STRIDE] for of in few["mnist"])
    covered = completion.cover(completion.COVERS["right half"], 28)
    drawn = completion.by_descent(model, x, covered)
    error = completion.covered_error(drawn, x, covered).mean()
    assert found["right_half_descent_error"] == pytest.approx(float(error))
    for name in ("fashion", "omniglot"):
        sets = few["mnist"][0], onevector.some(few[name][0], onevector.IMAGES)
        area, error = likelihood.auroc(*(likelihood.costs(model, of).sum(1) for of in sets))
        assert (found[name], found[f"{name}_stderr"]) == (area, error)


def test_some_images_are_some_of_them_each_once():
    images = torch.arange(20.0).view(-1, 1, 1, 1)
    found = onevector.some(images, 8).flatten().tolist()
    assert len(set(found)) == 8
    assert found != sorted(found)
    assert len(onevector.some(images, 50)) == 20


def test_evaluate_measures_it(few, tmp_path):
    arguments = ["evaluate", "--peers", str(tmp_path), "--study", "onevector", "--json"]
    result = CliRunner().invoke(commands, [*arguments, str(tmp_path / "found.json")])
    assert result.exit_code == 0, result.output
    record = json.loads((tmp_path / "found.json").read_text())
    assert onevector.table(record) in result.output
    assert record["vae"]["run"] == "mnist-vae"
