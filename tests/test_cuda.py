"""What only a GPU can show: `rnp gpu` runs these where there is one."""

import copy

import pytest
import tiny
import torch

from rnp_lib.analysis import likelihood
from rnp_lib.model import build
from rnp_lib.training.trainer import Trainer

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no CUDA GPU here")
KINDS = [
    {},
    {"posterior": "tree", "drop": 0.2, "reader_units": 8},
    {"posterior": "tree", "prior_z": "symbols", "symbols": 4, "reader_units": 8},
    {"hypernet": "full", "feedback": "child", "optimiser": "adam", "part_term": "zoom"},
    {"model": "vae", "samples": 3},
]


@pytest.mark.parametrize("changes", KINDS, ids=str)
def test_a_model_draws_on_a_gpu_as_on_a_cpu(changes):
    model = build(tiny.config(**changes), 0).eval()
    other, x = copy.deepcopy(model).cuda(), tiny.pictures(6)
    torch.testing.assert_close(other.parse(x).canvas.cpu(), model.parse(x).canvas, **near())
    noise = model.noise(6, seed=1)
    drawn = other.expand(noise.cuda()).canvas.cpu()
    torch.testing.assert_close(drawn, model.expand(noise).canvas, **near())
    weights = [
        likelihood.log_weights(m, x.to(d), 2, torch.Generator().manual_seed(0)).cpu()
        for m, d in ((model, "cpu"), (other, "cuda"))
    ]
    torch.testing.assert_close(*weights, rtol=1e-3, atol=1e-2)


def near():
    return {"rtol": 1e-3, "atol": 1e-4}


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
@pytest.mark.parametrize("changes", KINDS, ids=str)
def test_steps_that_are_replayed_train_as_steps_that_are_run(tmp_path, changes, precision):
    """Weights cast for bfloat16 must be cast anew in every replay."""
    config = tiny.config(precision=precision, images=(160, 160), **changes)
    x = tiny.pictures(40)
    replayed, run = (Trainer(config, x, x[:4], tmp_path, torch.device("cuda")) for _ in range(2))
    assert replayed.update.replay
    run.update.replay = False
    for _ in range(run.total):
        expected, found = run.train_step(), replayed.train_step()
        torch.testing.assert_close(found, expected, rtol=2e-2, atol=1e-2)
    assert replayed.update.graph is not None
    assert replayed.validate() == pytest.approx(run.validate(), rel=2e-2)


def test_a_run_on_a_gpu_goes_on_from_its_state(tmp_path):
    config, x, gpu = tiny.config(posterior="tree"), tiny.pictures(40), torch.device("cuda")
    whole, half = (Trainer(config, x, x[:4], tmp_path, gpu) for _ in range(2))
    for trainer in (whole, half):
        for _ in range(10):
            trainer.train_step()
    half.save_state()
    again = Trainer(config, x, x[:4], tmp_path, gpu)
    again.load_state()
    for trainer in (whole, again):
        while trainer.step < trainer.total:
            trainer.train_step()
    assert again.validate() == pytest.approx(whole.validate(), rel=2e-2)
