"""AIR: its objective against a slow version, what it finds, and what it is not asked."""

import math
import sys

import pyro
import pytest
import tiny
import torch
from click.testing import CliRunner
from pyro import poutine
from torch.distributions import Bernoulli, Normal

from rnp_lib import checkpoints
from rnp_lib.analysis import parsing
from rnp_lib.cli import commands
from rnp_lib.model import build
from rnp_lib.model.air import LIKELIEST, PRESENT, likeliest, window
from rnp_lib.model.objective import constant
from rnp_lib.model.transforms import place, zoom
from rnp_lib.training import loop


def config(**changes):
    return tiny.config(**{"model": "air", "tau": (3,), "images": (160,), **changes})


@pytest.fixture
def air():
    """A model whose patches are seen, and whose objects are there or not."""
    model = build(config(), 0).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter += 0.1 * torch.randn(
                parameter.shape, generator=torch.Generator().manual_seed(parameter.numel())
            )
    return model


def values(trace):
    return {name: site["value"] for name, site in trace.iter_stochastic_nodes()}


def test_the_objective_is_the_negative_elbo_of_the_objects_drawn(air):
    x, noise = tiny.pictures(6), torch.randn(6, air.config.noise)
    weight = torch.tensor(0.5)
    _, (nats, sse, rest, part) = air.loss(x, noise, weight)

    with torch.random.fork_rng([]):
        torch.manual_seed(int(noise[0, 0].view(torch.int32)) & 0xFFFFFFFF)
        trace = poutine.trace(air.guide).get_trace(x, PRESENT**weight)
    drawn, total = values(trace), torch.zeros(6)
    canvas, before = torch.zeros_like(x), torch.ones(6)
    for t in range(3):
        present, where, what = (drawn[f"{name}_{t}"] for name in ("present", "where", "what"))
        assert (present <= before).all()  # where none is, none follows
        q = {name: trace.nodes[f"{name}_{t}"]["fn"] for name in ("where", "what")}
        share = trace.nodes[f"present_{t}"]["fn"].probs
        total += Bernoulli(share).log_prob(present) - Bernoulli(PRESENT**0.5 * before).log_prob(
            present
        )
        prior = Normal(air.middle, air.spread).log_prob(where).sum(1)
        total += present * (q["where"].base_dist.log_prob(where) - prior)
        prior = Normal(0, 1).log_prob(what).sum(1)
        total += present * (q["what"].base_dist.log_prob(what) - prior)
        picture = place(air.patch(what), window(where), 16)
        canvas, before = canvas + present[:, None, None, None] * picture, present
    error = (canvas - x).square().sum((1, 2, 3))
    assert sse == pytest.approx(error.mean().item(), rel=1e-5)
    assert rest == pytest.approx(total.mean().item(), rel=1e-4)
    assert nats == pytest.approx((total + error / (2 * air.config.sigma2)).mean().item(), rel=1e-4)
    assert part == 0
    full = nats + constant(air.config, 256)
    of_pixels = Normal(canvas, air.config.sigma2**0.5).log_prob(x).sum((1, 2, 3))
    assert full == pytest.approx((total - of_pixels).mean().item(), rel=1e-4)


def test_gradients_are_those_of_the_elbo_on_average():
    """Whether there is an object is drawn: its score estimates what adding up both cases has."""
    air = build(config(tau=(1,)), 0).eval()
    with torch.no_grad():
        air.attend[-1].bias[0] = -2.0  # as likely as not
        air.attend[-1].bias[1 + 3 :] = -12.0  # places and looks without chance to speak of
        air.look[-1].bias[air.config.z_dim :] = -12.0
        air.draw[-1].bias += 4
    x, share = tiny.pictures(1).expand(256, -1, -1, -1), torch.tensor(0.3)
    trace = poutine.trace(poutine.condition(air.guide, {"present_0": torch.ones(256)}))
    seen = trace.get_trace(x, share)
    q = seen.nodes["present_0"]["fn"].probs
    gains = []
    for present in (0.0, 1.0):
        given = values(seen) | {"present_0": torch.full((256,), present)}
        model = poutine.trace(poutine.condition(air.model, given)).get_trace(x, share)
        at = poutine.trace(poutine.condition(air.guide, given)).get_trace(x, share)
        gains.append((model.log_prob_sum() - at.log_prob_sum()).item() / 256)
    q = q[0].item()
    expected = q * (1 - q) * (gains[0] - gains[1])  # of -ELBO, by q's logit

    bias = air.attend[-1].bias
    found = []
    weight = share.log() / math.log(PRESENT)
    for seed in range(40):
        noise = torch.full((1, 1), float(seed + 1))
        loss, _ = air.loss(x, noise, weight)
        found.append(torch.autograd.grad(loss, bias)[0][0])
    found = torch.stack(found)
    error = found.std() / len(found) ** 0.5
    assert abs(found.mean() - expected) < 4 * error
    assert abs(expected) > 5 * error  # or nothing was tested


def test_baselines_teach_the_encoder_nothing(air):
    for parameter in air.parameters():
        parameter.requires_grad_(False)
    air.judge[-1].bias.requires_grad_(True)
    loss, _ = air.loss(tiny.pictures(4), torch.ones(4, 1), torch.ones(()))
    loss.backward()
    assert air.judge[-1].bias.grad.abs() > 0
    state = air.judge_rnn.weight_ih.requires_grad_(True)
    features = air.encoder[-1].bias.requires_grad_(True)
    with torch.no_grad():
        air.attend[-1].weight.zero_(), air.look[0].weight.zero_()
    loss, _ = air.loss(tiny.pictures(4), torch.ones(4, 1), torch.ones(()))
    into_judge, into_encoder = torch.autograd.grad(loss, [state, features])
    assert into_judge.abs().sum() > 0
    assert into_encoder.abs().sum() == 0


def test_drawing_for_training_leaves_the_callers_generator_alone(air):
    x, noise = tiny.pictures(4), torch.randn(4, 1)
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    first = air.loss(x, noise, torch.ones(()))[1]
    assert torch.equal(torch.rand(3), expected)
    assert torch.equal(air.loss(x, noise, torch.ones(()))[1], first)
    assert not torch.equal(air.loss(x, noise + 1, torch.ones(()))[1], first)


def test_objects_are_parts_and_those_that_are_not_there_are_blank(air):
    x = tiny.pictures(40)
    with torch.no_grad():
        air.attend[-1].bias[0] -= 2.0
        air.attend[-1].weight[0] *= 20
    tree = air.parse(x)
    assert (tree.level, tree.parts.shape) == (1, (40, 3, 1, 16, 16))
    assert torch.allclose(tree.canvas, tree.parts.sum(1))
    assert 0 < tree.z.mean() < 1
    assert (tree.z[:, 1:] <= tree.z[:, :-1]).all()
    inked = tree.parts.flatten(2).sum(2) > 0
    assert torch.equal(inked, tree.z > 0)
    found = air.find(x, likeliest)
    assert torch.equal(tree.children[1].z, found[1][2])


def test_a_window_is_where_a_patch_is_seen_again():
    where = torch.tensor([[math.log(0.5), 0.2, -0.3]])
    patch = torch.nn.functional.interpolate(tiny.pictures(1)[..., :4, :4], 8, mode="bilinear")
    canvas = place(patch, window(where), 32)
    inside = ..., slice(1, -1), slice(1, -1)
    assert canvas[0, 0, :, :9].sum() == 0  # it lies to the right of the middle
    assert torch.allclose(zoom(canvas, window(where), 8)[inside], patch[inside], atol=0.1)


def test_training_learns_to_draw_and_is_the_same_again(tmp_path):
    pngs = tiny.write_pngs(tmp_path / "pngs")
    made = config(
        dataset=str(pngs), images=(800,), optimiser="adam", lr=3e-3, kl_warmup=400, tau=(1,)
    )
    found = [checkpoints.load(loop.train(made, tmp_path / name)) for name in ("one", "again")]
    for one, other in zip(*(model.parameters() for model in found), strict=True):
        assert torch.equal(one, other)
    row = (tmp_path / "one" / "metrics.csv").read_text().splitlines()[-1].split(",")
    loss, sse, kl = map(float, row[5:8])
    assert loss == pytest.approx(sse / (2 * made.sigma2) + kl, rel=1e-4)
    assert not [*pyro.get_param_store().keys()]  # Pyro keeps nothing of it


@pytest.mark.parametrize(
    "changes",
    [{"tau": (2, 2), "images": (80, 80)}, {"channels": 3}, {"likelihood": "bernoulli"}],
)
def test_settings_that_it_has_not_are_refused(changes):
    with pytest.raises(ValueError, match=r"^AIR finds objects without parts.*gaussian\.$"):
        config(**changes)


def test_without_pyro_one_sentence_says_how_to_get_it(monkeypatch):
    monkeypatch.delitem(sys.modules, "rnp_lib.model.air")
    monkeypatch.setitem(sys.modules, "pyro", None)
    with pytest.raises(ValueError, match=r"pip install -e '.\[peers\]'"):
        build(config())


def test_a_study_misses_pyro_before_it_trains(tmp_path, monkeypatch):
    monkeypatch.delitem(sys.modules, "rnp_lib.model.air")
    monkeypatch.setitem(sys.modules, "pyro", None)
    arguments = ["evaluate", "--peers", str(tmp_path), "--study", "counting"]
    result = CliRunner().invoke(commands, arguments)
    assert "written in Pyro" in str(result.exception)
    assert not [*tmp_path.iterdir()]


def test_it_has_no_bounds_and_no_samples(air, tmp_path):
    for ask in (
        lambda: parsing.evaluate(air, tiny.pictures(4)),
        lambda: air.sample(2),
        lambda: air.infer(tiny.pictures(2), torch.randn(2, air.config.noise)),
    ):
        with pytest.raises(ValueError, match="no bounds and no samples"):
            ask()
    path = tmp_path / "air.safetensors"
    checkpoints.save(path, air, {})
    data = str(tiny.write_pngs(tmp_path / "pngs"))
    result = CliRunner().invoke(
        commands, ["evaluate", str(path), "--data", data, "--plot", "a.png"]
    )
    assert result.exit_code != 0
    assert str(result.exception) == LIKELIEST
