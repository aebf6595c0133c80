"""Plain VAEs on covered digits, strange images and characters seen once, by the library's own
measures."""

import pytest
import tiny
import torch

from rnp_lib import alphabets, checkpoints, data
from rnp_lib.analysis import completion, likelihood, oneshot, onevector
from rnp_lib.analysis.classifier import Classifier
from rnp_lib.data import runs
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


@pytest.mark.parametrize("dataset", ["mnist", "omniglot"])
def test_it_is_trained_as_the_tree_is(dataset):
    own = onevector.recipes()[dataset].config.to_dict()
    tree = PRESETS[dataset].to_dict()
    changed = {key for key in own if own[key] != tree[key]}
    assert changed <= {"model", "posterior", "drop", "extent"}  # what a VAE has none of
    assert own["model"] == "vae"


@torch.no_grad()
def test_scores_are_those_of_the_parts_of_the_library(few):
    model = build(onevector.recipes()["mnist"].config, 0).eval()
    found = onevector.digits(model)
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


@pytest.fixture
def drawn(few, monkeypatch):
    """Six characters by four drawers, of which one is held back, and two runs of them."""
    generator = torch.Generator().manual_seed(1)
    shapes = torch.rand(6, 1, 1, 28, 28, generator=generator)
    images = (shapes + 0.1 * torch.rand(6, 4, 1, 28, 28, generator=generator)).clamp(0, 1)
    few["omniglot"] = images.flatten(0, 1), torch.arange(6).repeat_interleave(4)
    monkeypatch.setattr(alphabets, "DRAWERS", 4)
    monkeypatch.setattr(alphabets, "labels", lambda *names: (5,))
    monkeypatch.setattr(oneshot, "READINGS", 2)
    of_runs = runs.drawn(few["omniglot"][0], few["omniglot"][1], 2, 0, way=5)
    monkeypatch.setattr(runs, "official", lambda size: of_runs)
    tree = build(tiny.config(image_size=28, posterior="tree"), 0).eval()
    monkeypatch.setattr(checkpoints, "load", lambda name: tree)
    return of_runs


def test_characters_are_told_by_codes_and_drawn_anew(drawn, few):
    assert torch.equal(
        oneshot.background(few["omniglot"][0]), few["omniglot"][0].unflatten(0, (6, 4))[:5]
    )
    model = build(tiny.config(image_size=28, model="vae"), 0).eval()
    found = onevector.characters(model)
    for way in ("nats", "distance"):
        assert [len(run) for run in found["answers"][way]] == [5, 5]
        given = [torch.tensor(run) for run in found["answers"][way]]
        assert oneshot.errors({way: given}, drawn, against=way)[f"error_{way}"] <= 1
    assert {"right_vae", "right_vae_stderr", "moved_vae"} == found.keys() - {"answers"}


def test_a_record_is_told_as_a_table(few, monkeypatch, tmp_path):
    monkeypatch.setattr(onevector, "MEASURES", {"mnist": onevector.digits})
    mnist = onevector.recipes()["mnist"]
    monkeypatch.setattr(onevector, "recipes", lambda: {"mnist": mnist})
    mnist.train(tmp_path)
    record = onevector.collect(tmp_path)
    assert record["mnist"]["run"] == "mnist-vae"
    record["omniglot"] = {"numbers": {"right_vae": 0.5, "right_vae_stderr": 0.1}}
    lines = onevector.table(record).splitlines()
    assert len(lines) == 1 + 2 * len(completion.COVERS) + 2 + 1
    assert "50.0% ± 10.0%" in lines[-1]
