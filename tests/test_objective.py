"""The objective against closed forms, Monte Carlo and an independent slow version in float64."""

import dataclasses
import math

import numpy as np
import pytest
import slow_reference as slow
import tiny
import torch
from torch.distributions import Bernoulli, Normal, kl_divergence

from rnp_lib.model import build
from rnp_lib.model.objective import (
    EDGE,
    Terms,
    canvas_part_term,
    constant,
    error_nats,
    reconstruction_error,
    squared_error,
    terms,
    zoom_part_term,
)
from rnp_lib.model.rnp import RNP

TAUS = {1: (3,), 2: (2, 3), 3: (2, 2, 2)}
DEPTHS = pytest.mark.parametrize("k", [1, 2, 3])


def make(k=2, **changes):
    return RNP(dataclasses.replace(slow.SMALL, tau=TAUS[k], extent=(0.3, 0.6), **changes)).double()


def batch(n=3):
    """Images and noise."""
    return torch.rand(n, 1, 12, 12, dtype=torch.float64), torch.randn(n, 5, dtype=torch.float64)


def slow_trees(model, x, noise, until=0):
    """The tree of each image's sampled program, by the slow reference."""
    mean, log_std = model.encoder(x).chunk(2, -1)
    z = (mean + log_std.exp() * noise).detach().numpy()
    return [slow.unroll(model, program, until=until) for program in z]


# The ELBO


@DEPTHS
@pytest.mark.parametrize("feedback", ["child", "own", "none"])
def test_elbo_against_a_slow_one(k, feedback):
    model = make(k, feedback=feedback)
    x, noise = batch()
    result = terms(model, x, noise)

    sigma2 = model.config.sigma2
    mean, log_std = model.encoder(x).chunk(2, -1)
    q = Normal(mean, log_std.exp())
    prior = Normal(torch.zeros_like(mean), torch.ones_like(mean))
    elbos = []
    for b, tree in enumerate(slow_trees(model, x, noise)):
        likelihood = Normal(torch.from_numpy(tree.canvas), math.sqrt(sigma2))
        elbos.append(likelihood.log_prob(x[b, 0]).sum() - kl_divergence(q, prior)[b].sum())
    loss = result.loss(sigma2, part_weight=0.0)
    expected = -torch.stack(elbos).mean()
    torch.testing.assert_close(loss + constant(model.config, 144), expected, rtol=1e-10, atol=1e-10)
    assert all(term.shape == (3,) for term in result)
    model.config = dataclasses.replace(model.config, part_weight=0.0)
    assert not terms(model, x, noise).part.any()


@pytest.mark.parametrize("until", [0, 1, 2])
@pytest.mark.parametrize("part_term", ["canvas", "zoom"])
def test_terms_of_a_cut_tree_against_slow_ones(part_term, until):
    model = make(3, part_term=part_term)
    x, noise = batch(2)
    result = terms(model, x, noise, until)
    for b, tree in enumerate(slow_trees(model, x, noise, until)):
        image = x[b, 0].numpy()
        assert result.sse[b].item() == pytest.approx(((tree.canvas - image) ** 2).sum(), rel=1e-10)
        if part_term == "canvas":
            cuts = [((slow.cut(tree, n) - image) ** 2).sum() for n in range(1, 3 - until)]
            expected = np.mean(cuts) if cuts else 0.0
        else:
            targets = [slow.sample(image, child.affine, 8) for child in tree.children]
            pairs = zip(tree.children, targets, strict=True)
            expected = np.mean([((child.patch - target) ** 2).sum() for child, target in pairs])
        assert result.part[b].item() == pytest.approx(expected, rel=1e-10)


@pytest.mark.parametrize("until", [0, 1])
@pytest.mark.parametrize("prior_z", ["prediction", "symbols", "both"])
def test_terms_of_random_programs_against_slow_ones(prior_z, until):
    settings = dict(posterior="tree", feedback="none", symbols=3, reader_units=8)
    model = make(3, prior_z=prior_z, **settings)
    x, _ = batch(2)
    noise, seen = model.noise(2, seed=0), torch.tensor([1.0, 0.0], dtype=torch.float64)
    result = terms(model, x, noise, until, seen)
    for b in range(2):
        image = x[b, 0].numpy()
        tree = slow.infer(model, image, noise[b].numpy(), bool(seen[b]), until)
        assert result.sse[b].item() == pytest.approx(((tree.canvas - image) ** 2).sum(), rel=1e-9)
        cuts = [((slow.cut(tree, n) - image) ** 2).sum() for n in range(1, 3 - until)]
        assert result.part[b].item() == pytest.approx(np.mean(cuts), rel=1e-9)

        def nats(node):
            return (node.kl or 0.0) + sum(map(nats, node.children))

        assert result.kl[b].item() == pytest.approx(nats(tree), rel=1e-9)
    torch.testing.assert_close(terms(model, x, noise, until).kl[0], result.kl[0])
    assert terms(model, x, noise, until).kl[1] > result.kl[1]


def test_constant_is_the_normalisation_of_a_gaussian():
    at_its_mean = Normal(torch.zeros(784), math.sqrt(0.05)).log_prob(torch.zeros(784)).sum()
    config = dataclasses.replace(slow.SMALL, sigma2=0.05)
    assert constant(config, 784) == pytest.approx(-at_its_mean.item(), rel=1e-5)


def test_weights():
    error, kl, part = torch.tensor([[1.0, 3.0], [10.0, 30.0], [100.0, 300.0]])
    t = Terms(torch.full((2,), math.nan), error, kl, part)
    assert t.loss(0.25).item() == pytest.approx(2 + 2 * 200 + 20)
    assert t.loss(0.25, part_weight=0.5).item() == pytest.approx(2 + 2 * 100 + 20)
    assert t.loss(0.25, part_weight=0.0, kl_weight=0.1).item() == pytest.approx(2 + 2)
    assert t.loss(0.25, kl_weight=0.0).item() == pytest.approx(2 + 2 * 200)


def test_the_bernoulli_likelihood_against_that_of_a_library():
    config = dataclasses.replace(slow.SMALL, likelihood="bernoulli")
    canvas = torch.tensor([-0.2, 0.0, 0.3, 0.6, 1.0, 1.7]).double().expand(2, 1, 6, 6)
    canvas = canvas.clone().requires_grad_()
    x = (torch.arange(72) % 5 < 2).double().view(2, 1, 6, 6)
    found = error_nats(config, canvas, x)
    p = canvas.detach().clamp(EDGE, 1 - EDGE)
    log_p = Bernoulli(p).log_prob(x).sum((1, 2, 3))
    torch.testing.assert_close(found, -log_p)
    assert constant(config, 36) == 0
    # The gradient is that at the clamped canvas, where there is none to follow too.
    (gradient,) = torch.autograd.grad(found.sum(), canvas)
    torch.testing.assert_close(gradient, (p - x) / (p * (1 - p)))


@pytest.mark.parametrize("kind", [{}, {"model": "vae"}, {"model": "vae", "samples": 3}])
def test_a_bernoulli_model_learns_by_it(kind):
    config = tiny.config(likelihood="bernoulli", part_weight=0.0, **kind)
    model = build(config, 0).double()
    x = (torch.rand(4, 1, 16, 16) > 0.5).double()
    noise = torch.randn(4, config.samples * config.noise).double()
    found = terms(model, x, noise)
    assert (found.error > 0).all()
    torch.testing.assert_close(found.loss(config.sigma2), (found.error + found.kl).mean())
    if config.samples == 1:
        tree = model.infer(x, noise)
        torch.testing.assert_close(found.error, error_nats(config, tree.canvas, x))
    found.loss(config.sigma2).backward()
    assert all(p.grad.isfinite().all() for p in model.parameters() if p.grad is not None)


def test_squared_error_is_summed_over_the_pixels_of_an_image():
    x = torch.tensor([[[[1.0, 2.0], [3.0, 0.0]]], [[[0.0, 0.0], [0.0, -2.0]]]])
    assert squared_error(x, torch.zeros_like(x)).tolist() == [14.0, 4.0]
    assert squared_error(x, x + 1).tolist() == [4.0, 4.0]


def test_noise_moves_the_sample_but_not_the_kl():
    model = make()
    x, noise = batch()
    mean = terms(model, x, torch.zeros_like(noise))
    torch.testing.assert_close(mean.sse, squared_error(model.parse(x).canvas, x))
    assert not torch.allclose(mean.sse, terms(model, x, noise).sse)
    torch.testing.assert_close(mean.kl, terms(model, x, noise).kl)


# The parts


@DEPTHS
def test_the_canvas_term_is_that_of_directly_decoded_parts(k):
    x, noise = batch()
    tree = make(k).decode(noise)
    term = canvas_part_term(tree, x)
    # The canvas of a tree of one level is made of directly decoded parts already.
    errors = [squared_error(tree.cut(level), x) for level in range(1, k)]
    expected = sum(errors) / len(errors) if errors else torch.zeros_like(term)
    torch.testing.assert_close(term, expected)


def test_the_zoomed_target_is_detached():
    x, noise = batch()
    tree = make().decode(noise)
    for child in tree.children:
        child.affine = child.affine.detach().requires_grad_()
        child.patch = child.patch.detach().requires_grad_()
    term = zoom_part_term(tree, x.requires_grad_()).sum()
    for child in tree.children:
        at_map, at_image, at_patch = torch.autograd.grad(
            term, (child.affine, x, child.patch), retain_graph=True, allow_unused=True
        )
        assert at_map is None
        assert at_image is None
        assert at_patch.abs().sum() > 0


def test_the_zoomed_target_is_what_the_window_shows():
    # A part that shows exactly what lies in its window costs nothing.
    x = torch.zeros(1, 1, 12, 12, dtype=torch.float64)
    x[..., 2:10, 3:11] = torch.rand(8, 8, dtype=torch.float64)
    tree = make(1).decode(torch.randn(1, 5, dtype=torch.float64))
    scale, (left, top) = 7 / 11, (2 * 6.5 / 11 - 1, 2 * 5.5 / 11 - 1)
    for child in tree.children:
        child.affine = torch.tensor([[[scale, 0, left], [0, scale, top]]], dtype=torch.float64)
        child.patch = x[..., 2:10, 3:11]
    assert zoom_part_term(tree, x).item() < 1e-20


# Gradients


@pytest.mark.parametrize("part_term", ["canvas", "zoom"])
@pytest.mark.parametrize("feedback", ["child", "own", "none"])
@pytest.mark.parametrize("until", [0, 1, 2])
def test_gradients_are_finite_wherever_the_tree_is_cut(until, feedback, part_term):
    model = make(3, feedback=feedback, part_term=part_term).float()
    x, noise = (t.float() for t in batch())
    terms(model, x, noise, until).loss(0.05).backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.isfinite().all(), name
    assert model.encoder[-1].weight.grad[5:].any(), "the noise reaches σ"
    assert model.hypernet.layers["patch_4"].head.weight.grad.any()


def test_gradient_of_the_loss_against_finite_differences():
    model = make(2)
    x, noise = batch(2)
    parameters = [model.hypernet.trunk[0].weight, model.step, model.encoder[-1].bias]

    def loss():
        return terms(model, x, noise).loss(model.config.sigma2)

    gradients = torch.autograd.grad(loss(), parameters)
    for parameter, gradient in zip(parameters, gradients, strict=True):
        direction = torch.randn_like(parameter)
        values = []
        for sign in (1, -1):
            with torch.no_grad():
                parameter += sign * 1e-7 * direction
            values.append(loss().item())
            with torch.no_grad():
                parameter -= sign * 1e-7 * direction
        slope = (values[0] - values[1]) / 2e-7
        # Layers of so few units, normalised, bend sharply: hence the small step.
        assert (gradient * direction).sum().item() == pytest.approx(slope, rel=1e-3)


# What is reported


def test_the_loss_of_several_draws_has_the_gradient_of_their_bound():
    config = tiny.config(model="vae", samples=4)
    vae = build(config, 0).double()
    x, noise = torch.rand(3, 1, 16, 16).double(), torch.randn(3, 4 * config.z_dim).double()
    found = terms(vae, x, noise)
    q = vae.root(x)
    z = torch.stack([q.mean + q.scale * eps for eps in noise.split(config.z_dim, 1)])
    canvas = torch.stack([vae.unroll(one, 2).canvas for one in z])
    likelihood = Normal(canvas, config.sigma2**0.5).log_prob(x).sum((2, 3, 4))
    prior = Normal(0.0, 1.0).log_prob(z).sum(2)
    bound = (likelihood + prior - q.log_prob(z).sum(2)).logsumexp(0) - math.log(4)
    weights = list(vae.parameters())
    expected = torch.autograd.grad(-bound.mean(), weights)
    gradient = torch.autograd.grad(found.loss(config.sigma2), weights)
    torch.testing.assert_close(gradient, expected)
    assert (found.part == 0).all()


def test_reconstruction_error_is_of_the_posterior_mean():
    model = make()
    x, _ = batch(4)
    errors = reconstruction_error(model, x)
    torch.testing.assert_close(errors, squared_error(model.parse(x).canvas, x))
    assert not errors.requires_grad
    cut = reconstruction_error(model, x, until=1)
    mean = model.encode(x).mean
    torch.testing.assert_close(cut, squared_error(model.unroll(mean, 2, 1).canvas, x))
    assert not torch.allclose(cut, errors)


def test_reconstruction_error_of_many_images_is_in_their_order():
    model = make(1).float()
    x = torch.rand(503, 1, 12, 12)
    errors = reconstruction_error(model, x)
    assert errors.shape == (503,)
    last = reconstruction_error(model, x[-5:])
    torch.testing.assert_close(errors[-5:], last, rtol=1e-4, atol=1e-4)
