"""The benchmark compares like with like: same results, honest counts."""

import dataclasses
import json

import pytest
import torch

import rnp_lib as rnp
from rnp_lib import bench
from rnp_lib.baselines import NaivePort, PlainVAE
from rnp_lib.objective import terms

CPU = torch.device("cpu")
PAPER = dataclasses.replace(rnp.PRESETS["paper-mnist"], encoder="light")


def batch(config, dtype, n=3):
    x = torch.rand(n, 1, config.image_size, config.image_size, dtype=dtype)
    return x, torch.randn(n, config.z_dim, dtype=dtype)


@pytest.mark.parametrize("changes", [{}, {"tau": (2, 3), "step_vector": True, "patch_size": 14}])
def test_the_naive_port_computes_what_the_model_computes(changes):
    model = rnp.RNP(dataclasses.replace(PAPER, **changes)).double()
    naive = NaivePort(model).double()
    x, noise = batch(model.config, torch.float64)
    ours, theirs = terms(model, x, noise), naive.terms(x, noise)
    for name in ours._fields:
        torch.testing.assert_close(getattr(ours, name), getattr(theirs, name), rtol=1e-5, atol=0)
    torch.testing.assert_close(model.parse(x).canvas, naive.reconstruct(x), rtol=1e-5, atol=1e-8)


def test_and_so_do_its_gradients_in_float32():
    model = rnp.RNP(PAPER)
    naive = NaivePort(model)
    x, noise = batch(model.config, torch.float32)
    for computed in (terms(model, x, noise), naive.terms(x, noise)):
        computed.loss(model.config.sigma2).backward()
    layers = model.hypernet.layers.values()
    heads = [head for layer in layers for head in (layer.head, layer.bias) if head]
    ours, theirs = torch.cat([head.weight.grad for head in heads]), naive.head.weight.grad
    assert (ours - theirs).norm() < 1e-4 * theirs.norm()


@pytest.mark.parametrize(
    "model",
    [
        lambda: rnp.RNP(PAPER),
        lambda: rnp.RNP(rnp.PRESETS["mnist"]),
        lambda: rnp.RNP(rnp.PRESETS["paper-mnist"]),
        lambda: rnp.RNP(rnp.Config(tau=(2, 3, 4))),
        lambda: PlainVAE(rnp.PRESETS["mnist"]),
    ],
    ids=["full", "factorised", "resnet encoder", "three levels", "vae"],
)
def test_the_formula_and_the_counter_agree(model):
    row = bench.Row(model().eval(), 2, CPU)
    assert bench.flops_per_image(row.model) == pytest.approx(bench.counted_flops(row), rel=0.05)


def test_a_vae_is_trained_by_its_step():
    row = bench.Row(PlainVAE(rnp.PRESETS["mnist"]), 2, CPU)
    decoder = list(row.model.decoder.parameters())
    before = [p.clone() for p in decoder]
    row.train_step()
    assert all(not torch.equal(b, p) for b, p in zip(before, decoder, strict=True))


def test_the_record_and_the_table_have_every_row(monkeypatch):
    monkeypatch.setattr(bench, "growth", lambda device, base, rounds: {"batch 32": 1.0})
    result = json.loads(json.dumps(bench.run(CPU, batch=2, rounds=2)))
    rows = {"naive_full", "full", "factorised", "vae"}
    for key in ("train_images_per_s", "parse_images_per_s", "flops_per_image"):
        assert result[key].keys() == rows
        assert all(value > 0 for value in result[key].values())
    assert result["limits"].keys() == {"matmul_gflops", "copy_gb_s"}
    table = bench.report(result)
    assert rows <= set(table.split())
