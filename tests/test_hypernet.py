"""The hypernetwork: how much it generates, and that what it generates is what is computed with."""

import dataclasses
import itertools
import math

import numpy as np
import pytest
import slow_reference as slow
import tiny
import torch
import torch.nn.functional as F
from torch import nn

from rnp_lib.config import Config
from rnp_lib.model.hypernet import E_DIM, FactorisedLinear, FullLinear, HyperNetwork
from rnp_lib.presets import PRESETS

KINDS = ("full", "factorised")
FEEDBACKS = ("child", "own", "none")
PAPER_LIKE = dict(
    normalise=False, state_activation="elu", patch_activation="relu", action_activation="sin"
)


def make(**changes):
    """A small float64 hypernetwork whose parameters are all random, the zero ones too."""
    net = HyperNetwork(dataclasses.replace(slow.SMALL, **changes)).double()
    with torch.no_grad():
        for parameter in net.parameters():
            parameter += 0.1 * torch.randn_like(parameter)
    return net


def random(*shape):
    return torch.randn(*shape, dtype=torch.float64)


# How much is generated


def generated_by_network(net):
    """Generated numbers of each sub-network, initial hidden states included."""
    counts = dict(encode=0, state=net.state_0.out_features, policy=net.policy_0.out_features)
    for name, layer in net.layers.items():
        network = name.split("_")[0]
        full = isinstance(layer, FullLinear)
        numbers = layer.generated if full else layer.head.out_features
        counts[network] = counts.get(network, 0) + numbers
    return counts


@pytest.mark.parametrize("preset", ["paper-mnist", "paper-fashion"])
def test_the_paper_s_hypernetwork_generates_133376_numbers(preset):
    net = HyperNetwork(PRESETS[preset])
    assert generated_by_network(net) == dict(
        encode=65_184, state=2_112, policy=2_112, patch=60_608, action=3_360
    )
    assert sum(generated_by_network(net).values()) == 133_376
    heads = [net.state_0, net.policy_0]
    heads += [h for layer in net.layers.values() for h in (layer.head, layer.bias) if h]
    assert sum(head.weight.numel() for head in heads) == 133_376 * 64  # 8.54 million


def test_the_paper_s_trunk_and_start_heads():
    net = HyperNetwork(PRESETS["paper-mnist"])
    kinds = [type(module) for module in net.trunk]
    assert kinds == [nn.Linear, nn.LayerNorm, nn.ELU] * 6
    sizes = [(m.in_features, m.out_features) for m in net.trunk if isinstance(m, nn.Linear)]
    assert sizes == [(32, 64)] + [(64, 64)] * 5
    for head, outputs in ((net.action_0, 6), (net.patch_0, 784)):
        sizes = [(m.in_features, m.out_features) for m in head if isinstance(m, nn.Linear)]
        assert sizes == [(64, 64), (64, outputs)]


def test_a_generated_network_starts_as_one_glorot_head():
    torch.manual_seed(0)
    net = HyperNetwork(PRESETS["paper-mnist"])
    emitted = dict(encode=65_184, state=2_080, policy=2_080, patch=60_608, action=3_360)
    for name, layer in net.layers.items():
        std = math.sqrt(2 / (64 + emitted[name.split("_")[0]]))
        assert layer.head.weight.std().item() == pytest.approx(std, rel=0.1), name
        zeros = [layer.common.weight]
        if layer.bias:
            assert layer.bias.weight.std().item() == pytest.approx(std, rel=0.1), name
            zeros.append(layer.bias.bias)
        assert not any(tensor.any() for tensor in zeros)


def test_omniglot_s_sizes():
    counts = generated_by_network(HyperNetwork(PRESETS["paper-omniglot"]))
    assert counts["state"] == counts["policy"] == 96 * 96 + 32 * 96 + 96 + 96
    assert counts["patch"] == 60_608 + (96 - 32) * 64
    assert counts["action"] == 3_360 + (96 - 32) * 32


def test_factors_are_far_fewer_numbers():
    config = dataclasses.replace(PRESETS["paper-mnist"], rank=64)
    full = HyperNetwork(config)
    factorised = HyperNetwork(dataclasses.replace(config, hypernet="factorised"))
    biases = 4 * 64 + 32 + 2 * 32 + 3 * 64 + 3 * 32  # encoder, states, patch, action
    generated = sum(generated_by_network(factorised).values())
    assert generated == len(factorised.layers) * 64 + biases + 2 * 32
    size = {net: sum(p.numel() for p in net.parameters()) for net in (full, factorised)}
    assert size[factorised] < size[full] / 10


# One generated layer


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("norm", [None, lambda y: F.layer_norm(y, y.shape[-1:])])
def test_full_layer_against_one_sample_at_a_time(bias, norm):
    layer = FullLinear(width=6, n_in=3, n_out=4, bias=bias, rank=0).double()
    h, v = random(5, 6), random(5, 2, 3)
    y = layer(h)(v, norm)
    assert y.shape == (5, 2, 4)
    assert layer.generated == 3 * 4 + 4 * bias
    for b, t in itertools.product(range(5), range(2)):
        weight = (layer.head.weight @ h[b]).view(4, 3) + layer.common.weight
        expected = F.linear(v[b, t], weight)
        expected = norm(expected) if norm else expected
        expected = expected + layer.bias(h[b]) if bias else expected  # the norm goes before it
        torch.testing.assert_close(y[b, t], expected, rtol=1e-12, atol=1e-12)


def test_gradients_of_a_full_layer_used_several_times():
    """They are collected over the uses of its weights, so autograd's own are the reference."""
    layer = FullLinear(width=6, n_in=4, n_out=4, bias=True, rank=0).double()
    h, v = random(5, 6).requires_grad_(), random(5, 2, 4).requires_grad_()

    def recurrent(apply):
        state = v
        for _ in range(3):
            state = apply(state).tanh()
        return state.square().sum()

    def plain(v):
        weight = layer.head(h).view(-1, 4, 4) + layer.common.weight
        return v @ weight.mT + layer.bias(h).unsqueeze(1)

    inputs = [h, v, *layer.parameters()]
    expected = torch.autograd.grad(recurrent(plain), inputs)
    loss = recurrent(layer(h))
    for kept in (True, False):  # a second pass over the same graph starts afresh
        for found, true in zip(
            torch.autograd.grad(loss, inputs, retain_graph=kept), expected, strict=True
        ):
            torch.testing.assert_close(found, true, rtol=1e-10, atol=1e-12)
    assert torch.autograd.gradcheck(lambda h: layer(h)(v.detach()), (h,))


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("norm", [None, lambda y: F.layer_norm(y, y.shape[-1:])])
def test_factorised_layer_against_one_sample_at_a_time(bias, norm):
    layer = FactorisedLinear(width=6, n_in=3, n_out=4, bias=bias, rank=2).double()
    nn.init.normal_(layer.head.bias)
    h, v = random(5, 6), random(5, 2, 3)
    y = layer(h)(v, norm)
    assert layer.head.out_features == 2 + 4 * bias
    for b, t in itertools.product(range(5), range(2)):
        numbers = layer.head.weight @ h[b] + layer.head.bias
        weight = layer.u.weight @ torch.diag(numbers[:2]) @ layer.v.weight
        expected = F.linear(v[b, t], weight)
        expected = norm(expected) if norm else expected
        expected = expected + numbers[2:] if bias else expected
        torch.testing.assert_close(y[b, t], expected, rtol=1e-12, atol=1e-12)


def test_factorised_layer_is_a_full_one_whose_tensor_has_rank_r():
    factorised = FactorisedLinear(width=6, n_in=3, n_out=4, bias=True, rank=2).double()
    nn.init.normal_(factorised.head.bias)
    full = FullLinear(width=6, n_in=3, n_out=4, bias=True, rank=0).double()
    u, v, head = factorised.u.weight, factorised.v.weight, factorised.head
    with torch.no_grad():
        full.head.weight.copy_(torch.einsum("or,ri,rk->oik", u, v, head.weight[:2]).view(12, 6))
        full.common.weight.copy_(torch.einsum("or,ri,r->oi", u, v, head.bias[:2]))
        full.bias.weight.copy_(head.weight[2:])
        full.bias.bias.copy_(head.bias[2:])
    h, v = random(5, 6), random(5, 2, 3)
    torch.testing.assert_close(factorised(h)(v), full(h)(v), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("kind", [FullLinear, FactorisedLinear])
def test_a_new_layer_keeps_the_scale_of_its_input(kind):
    layer = kind(width=64, n_in=50, n_out=400, bias=True, rank=64)
    y = layer(torch.randn(200, 64))(torch.randn(200, 4, 50))
    assert 0.5 < y.std().item() < 2


# All of them together


@pytest.mark.parametrize("feedback", FEEDBACKS)
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("style", [{}, PAPER_LIKE], ids=["ours", "paper"])
def test_networks_against_one_program_at_a_time(kind, feedback, style):
    net = make(hypernet=kind, feedback=feedback, **style)
    z, steps = random(3, 5), 2
    patch, action, e = random(3, steps, 64), random(3, steps, 6), random(3, steps, E_DIM)
    state = random(3, steps, 5)
    program = net(z)
    results = dict(
        encode=program.encode(None if feedback == "none" else patch, action),
        state=program.next_state(state, e),
        policy=program.next_policy(state, e),
        place=program.place(state),
        squash=program.squash(3 * action),
        patch=program.patch(state),
    )
    for b in range(3):
        expected = slow.Networks(net, z[b].numpy())
        for t in range(steps):
            x, a, s = patch[b, t].numpy(), action[b, t].numpy(), state[b, t].numpy()
            values = dict(
                encode=expected.encode(x, a),
                state=expected.recur("state", s, e[b, t].numpy()),
                policy=expected.recur("policy", s, e[b, t].numpy()),
                place=expected.place(s),
                squash=expected.squash(3 * a),
                patch=expected.patch(s),
            )
            for name, value in values.items():
                np.testing.assert_allclose(
                    results[name][b, t].detach(), value, rtol=1e-10, atol=1e-10, err_msg=name
                )
        for name in ("state_0", "policy_0", "action_0", "patch_0")[: 3 + (feedback != "none")]:
            value = getattr(expected, name)
            np.testing.assert_allclose(getattr(program, name)[b, 0].detach(), value, atol=1e-10)


@pytest.mark.parametrize("feedback", FEEDBACKS)
def test_ranges_and_shapes(feedback):
    program = make(feedback=feedback)(3 * random(20, 5))
    u, patch = program.place(random(20, 2, 5)), program.patch(random(20, 2, 5))
    action = program.squash(3 * u)
    assert u.shape == action.shape == (20, 2, 6)
    assert patch.shape == (20, 2, 64)
    assert program.state_0.shape == program.policy_0.shape == (20, 1, 5)
    assert program.action_0.shape == (20, 1, 6)
    assert max(action.abs().max(), program.action_0.abs().max()) <= 1
    assert patch.min() >= 0
    assert patch.max() <= 1
    if feedback == "none":
        assert program.patch_0 is None
    else:
        assert program.patch_0.shape == (20, 1, 64)
        assert program.patch_0.min() >= 0


def test_patches_start_dark():
    net = HyperNetwork(Config())
    patch = net(torch.randn(50, 32)).patch(torch.tanh(torch.randn(50, 4, 32)))
    assert 0.02 < patch.mean().item() < 0.25


@pytest.mark.parametrize("kind", KINDS)
def test_every_generated_layer_depends_on_z(kind):
    net = make(hypernet=kind)
    first, second = net(random(1, 5)), net(random(1, 5))
    for name in net.layers:
        n_in = net.layers[name].n_in if kind == "full" else net.layers[name].v.in_features
        v = random(1, 1, n_in)
        assert not torch.allclose(first.layers[name](v), second.layers[name](v)), name
    for name in ("state_0", "policy_0", "action_0", "patch_0"):
        assert not torch.allclose(getattr(first, name), getattr(second, name)), name


@pytest.mark.parametrize("feedback", FEEDBACKS)
@pytest.mark.parametrize("kind", KINDS)
def test_gradients_reach_every_parameter(kind, feedback):
    net = make(hypernet=kind, feedback=feedback)
    program = net(random(3, 5))
    e = program.encode(program.patch_0, program.action_0)
    state = program.next_state(program.state_0, e)
    policy = program.next_policy(program.policy_0, e)
    results = program.patch(state), program.place(policy)
    sum((random(*r.shape) * r).sum() for r in results).backward()
    idle = [name for name, p in net.named_parameters() if p.grad is None or not p.grad.any()]
    assert idle == []


# Dabs


def test_patches_are_dabs_at_first_and_then_what_is_decoded():
    config = tiny.config(dabs=40)
    torch.manual_seed(0)
    net = HyperNetwork(config)
    torch.manual_seed(0)
    plain = HyperNetwork(dataclasses.replace(config, dabs=0))
    assert net.state_dict().keys() == plain.state_dict().keys()  # a checkpoint knows no dabs
    z, states = torch.randn(3, config.z_dim), torch.randn(3, 2, config.z_dim)
    decoded = plain(z).patch(states)
    assert torch.equal(net(z).patch(states), decoded), "as a model is loaded"
    shares = []
    for seen in (0, 40, 60, 80, 500):
        net.mix_in_dabs(seen)
        shares.append(float(net.dab_share))
        expected = decoded.lerp(net.dab.expand_as(decoded), shares[-1])
        torch.testing.assert_close(net(z).patch(states), expected)
    assert shares == [1, 1, 0.5, 0, 0]


def test_a_dab_is_round_and_bright_in_its_middle():
    side = tiny.SETTINGS["patch_size"]
    dab = HyperNetwork(tiny.config(dabs=40)).dab.view(side, side)
    assert torch.equal(dab, dab.T)
    torch.testing.assert_close(dab, dab.flip(0))
    assert dab.max() == dab[side // 2, side // 2] > 0.8
    assert dab[0].max() < 0.05
