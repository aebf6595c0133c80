"""Every digit held out once: which models, and how they are measured."""

import json

import numpy as np
import pytest
import tiny
import torch
from click.testing import CliRunner

from rnp_lib import data
from rnp_lib.analysis import heldout, transfer
from rnp_lib.cli import commands
from rnp_lib.model import build
from rnp_lib.plots import transfer as plots_transfer
from rnp_lib.presets import PRESETS

DIGITS = range(3)


@pytest.fixture
def few(monkeypatch):
    """Three digits, of few images, and recipes of few steps."""
    generator = torch.Generator().manual_seed(0)
    halves = {
        part: (torch.rand(n, 1, 16, 16, generator=generator), torch.arange(n) % 3)
        for part, n in (("train", 300), ("test", 30))
    }
    monkeypatch.setattr(data, "load", lambda name, part, *_: halves[part])
    monkeypatch.setattr(heldout, "DIGITS", DIGITS)
    monkeypatch.setattr(heldout, "IMAGES", 160)
    monkeypatch.setattr(heldout, "RETRAINED", 128)
    config = tiny.config(dataset="mnist", posterior="tree", batch_size=16)
    monkeypatch.setitem(PRESETS, "mnist-alphabet", config)
    return halves


def test_every_digit_is_held_out_of_a_model_of_each_kind():
    recipes = heldout.recipes()
    assert [*recipes] == [(d, kind) for d in (*range(10), None) for kind in ("tree", "vae")]
    for (digit, kind), recipe in recipes.items():
        own, plain = recipe.config.to_dict(), PRESETS["mnist-alphabet"].to_dict()
        assert own["without"] == (() if digit is None else (digit,))
        assert own["model"] == ("rnp" if kind == "tree" else "vae")
        changed = {key for key in own if own[key] != plain[key]}
        assert changed <= {"images", "without", "model", "posterior", "drop", "extent"}
        assert own["images"] == (60_000,)


def test_new_digits_are_measured_before_and_after_retraining(few):
    recipes = heldout.recipes()
    model = build(recipes[1, "tree"].config, 0).eval()
    found = heldout.measure(model)
    images, labels = few["test"]
    assert found["none"]["n"] == int((labels == 1).sum())
    expected = transfer.summary((model.parse(images).canvas - images).square().flatten(1).sum(1))
    of_new = (model.parse(images[labels == 1]).canvas - images[labels == 1]).square()
    assert found["none"]["sse"] == pytest.approx(float(of_new.flatten(1).sum(1).mean()))
    assert found["inference"]["sse"] != found["none"]["sse"]
    assert found["inference"]["validation_sse"] > 0
    every = heldout.measure(build(recipes[None, "tree"].config, 0).eval())
    assert [*every] == ["0", "1", "2"]
    mean = np.mean([every[d]["sse"] for d in every])
    assert mean == pytest.approx(expected["sse"], rel=1e-5)  # as many of each digit


def test_the_digit_held_out_is_not_trained_on(few):
    images, labels = data.leave_out(*few["train"], heldout.recipes()[2, "vae"].config.without)
    assert set(labels.tolist()) == {0, 1}
    assert len(images) == 200


def test_evaluate_holds_every_digit_out_and_says_what_it_costs(few, tmp_path):
    arguments = ["evaluate", "--peers", str(tmp_path), "--study", "heldout", "--json"]
    result = CliRunner().invoke(commands, [*arguments, str(tmp_path / "found.json")])
    assert result.exit_code == 0, result.output
    record = json.loads((tmp_path / "found.json").read_text())
    assert [*record["without"]] == ["0", "1", "2", ""]
    assert record["inputs"]["retrained"]["images"] == [128]
    assert heldout.table(record) in result.output
    figure = plots_transfer.digits(record)
    figure.canvas.draw()
    assert [len(axes.lines) for axes in figure.axes] == [6, 6]
    found = heldout.numbers(record)
    trees = [found[f"sse_none_tree_{d}"] for d in DIGITS]
    vaes = [found[f"sse_none_vae_{d}"] for d in DIGITS]
    assert trees[1] == record["without"]["1"]["tree"]["numbers"]["none"]["sse"]
    assert found["sse_none_tree"] == pytest.approx(np.mean(trees))
    less = np.subtract(vaes, trees)
    assert found["sse_none_less"] == pytest.approx(less.mean())
    assert found["sse_none_less_stderr"] == pytest.approx(less.std(ddof=1) / 3**0.5)
    saw = record["without"][""]["vae"]["numbers"]["2"]
    assert found["nats_saw_vae_2"] == saw["nats"]
