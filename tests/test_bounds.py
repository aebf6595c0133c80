"""How probable models find digits, and how those of black and white are drawn."""

import json

import pytest
import tiny
import torch
from click.testing import CliRunner

from rnp_lib import checkpoints, data
from rnp_lib.analysis import bounds, likelihood, parsing, peers
from rnp_lib.cli import commands
from rnp_lib.model import build
from rnp_lib.presets import PRESETS


def test_pixels_are_drawn_once_each_with_its_brightness_as_probability():
    grey = torch.full((3, 1, 200, 200), 51, dtype=torch.uint8)
    one, again, other = (data.binarised(grey, seed) for seed in (0, 0, 1))
    assert torch.equal(one, again)
    assert not torch.equal(one, other)
    assert set(one.unique().tolist()) == {0, 255}
    assert float((one > 0).double().mean()) == pytest.approx(0.2, abs=0.005)
    ends = torch.tensor([0, 255], dtype=torch.uint8).expand(100, 2)
    assert torch.equal(data.binarised(ends, 0), ends)


@pytest.mark.full_data("mnist")
def test_the_set_is_mnist_in_black_and_white():
    images, labels = data.load("mnist-binary", "test")
    grey, same = data.load("mnist", "test")
    assert torch.equal(labels, same)
    assert set(images.unique().tolist()) == {0.0, 1.0}
    assert (images[grey == 0] == 0).all()
    assert float(images.mean()) == pytest.approx(float(grey.mean()), rel=0.01)


def test_models_differ_in_what_their_peers_differ_in():
    for (dataset, name), recipe in bounds.recipes().items():
        config = recipe.config
        assert config.dataset == dataset
        assert config.likelihood == {"mnist": "gaussian", "mnist-binary": "bernoulli"}[dataset]
        assert config.images == (200_000,)
        assert config.samples == (5 if name == "iwae" else 1)


def test_evaluate_bounds_the_likelihood_of_each_model(tmp_path, monkeypatch):
    x = (torch.rand(300, 1, 16, 16, generator=torch.Generator().manual_seed(0)) > 0.5).float()
    monkeypatch.setattr(data, "load", lambda *_: (x, torch.zeros(300).long()))
    monkeypatch.setattr(bounds, "DRAWS", (1, 5, 20))
    monkeypatch.setattr(bounds, "EVERY", {"mnist": 5, "mnist-binary": 1})
    monkeypatch.setattr(bounds, "FEW", 20)
    monkeypatch.setitem(peers.BUDGETS, "mnist", 96)
    for dataset, likely in (("mnist", "gaussian"), ("mnist-binary", "bernoulli")):
        config = tiny.config(dataset=dataset, likelihood=likely, posterior="tree")
        monkeypatch.setitem(PRESETS, dataset, config)
    monkeypatch.setattr(bounds, "MODELS", ("tree", "vae", "iwae"))

    arguments = ["evaluate", "--peers", str(tmp_path), "--study", "bounds", "--json"]
    result = CliRunner().invoke(commands, [*arguments, str(tmp_path / "found.json")])
    assert result.exit_code == 0, result.output
    record = json.loads((tmp_path / "found.json").read_text())
    assert bounds.table(record) in result.output
    named = bounds.numbers(record)
    for dataset, most in (("mnist", 5), ("mnist-binary", 1)):
        assert [*record[dataset]] == ["tree", "vae", "iwae"]
        for name, row in record[dataset].items():
            found = row["numbers"]
            for draws in (1, 5, 20):
                assert found[str(draws)]["n"] == (300 if draws <= most else 20)
                assert named[f"{dataset}_bound_{draws}_{name}"] == found[str(draws)]["nats"] > 0
        assert found["1"]["nats"] != found["5"]["nats"]
        assert named[f"{dataset}_bound_n_20"] == 20
        below = [record[dataset][name]["numbers"]["kl_below"] for name in ("vae", "tree")]
        assert below[0] == 0 < below[1]
    model = checkpoints.load(tmp_path / record["mnist"]["vae"]["run"] / "model.safetensors")
    expected = parsing.evaluate(model, x, samples=5)  # the mean of the draws, not their bound
    grey = record["mnist"]["vae"]["numbers"]
    assert grey["5"]["nats"] < expected["nats"]
    assert grey["1"]["nats"] == pytest.approx(expected["nats"], rel=0.02)


def test_a_bound_is_that_of_a_bernoulli():
    config = tiny.config(likelihood="bernoulli", model="vae")
    model = build(config, 0).eval()
    x = (torch.rand(6, 1, 16, 16) > 0.5).float()
    weights = likelihood.log_weights(model, x, 3, torch.Generator().manual_seed(0))
    noise = torch.randn(6, config.noise, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        tree = model.infer(x, noise)
    p = tree.canvas.double()
    log_p = torch.where(x > 0, p.log(), (1 - p).log()).sum((1, 2, 3))
    ratio = likelihood.log_prior(tree) - likelihood.log_posterior(tree)
    torch.testing.assert_close(weights[:, 0], log_p + ratio, rtol=1e-5, atol=1e-3)
