"""Distributions of a program: against torch's, against products of densities, and Monte Carlo."""

import math

import pytest
import torch
from torch.distributions import Categorical, Independent, MixtureSameFamily, Normal, kl_divergence

from rnp_lib.model.chance import Mixture, draw, kl, log_density, merge, normal


def gaussian(*shape):
    """Normals with means and scales of their own, in float64."""
    return Normal(
        torch.randn(shape, dtype=torch.float64), torch.rand(shape, dtype=torch.float64) + 0.2
    )


def standard(q):
    return Normal(torch.zeros_like(q.mean), torch.ones_like(q.mean))


def mixture(n=3, parts=4, z=5):
    each = gaussian(n, parts, z)
    log_weights = torch.randn(n, parts, dtype=torch.float64).log_softmax(1)
    return Mixture(log_weights, each.mean, each.scale)


def parameters(mix):
    return mix.log_weights, mix.mean, mix.scale


def of_torch(mix):
    """The same mixture, as torch has it."""
    parts = Independent(Normal(mix.mean, mix.scale), 1)
    return MixtureSameFamily(Categorical(logits=mix.log_weights), parts)


def monte_carlo(q, p, samples=100_000):
    """KL(q ‖ p) by averaging, and its standard error, (B,); p is a whole program's."""
    z = q.sample((samples,))
    ratio = q.log_prob(z).sum(-1) - p.log_prob(z)
    return ratio.mean(0), ratio.std(0) / math.sqrt(samples)


# Normals


def test_a_normal_is_float32_at_least_and_never_degenerate():
    log_std = torch.tensor([-1e4, -1.0, 0.0, 2.0, 1e4])
    for dtype, wide in ((torch.bfloat16, torch.float32), (torch.float64, torch.float64)):
        found = normal(torch.ones(5, dtype=dtype), log_std.to(dtype))
        assert found.mean.dtype == found.scale.dtype == wide
        torch.testing.assert_close(found.scale[1:4], log_std[1:4].to(wide).exp())
        assert found.scale.isfinite().all()
        assert (found.scale > 0).all()
        assert (found.scale.square().reciprocal()).isfinite().all()


# KL


def test_kl_is_that_of_torch_distributions():
    q, prior = gaussian(4, 6), gaussian(4, 6)
    for p in (prior, standard(q)):
        torch.testing.assert_close(kl(q, p), kl_divergence(q, p).sum(-1))
    assert kl(q, prior).shape == (4,)
    assert torch.equal(kl(q, q), torch.zeros(4, dtype=torch.float64))
    torch.testing.assert_close(kl(standard(q), standard(q)), torch.zeros(4, dtype=torch.float64))


def test_kl_is_that_of_monte_carlo():
    q, prior = gaussian(2, 3), gaussian(2, 3)
    for p in (prior, standard(q)):
        mean, error = monte_carlo(q, Independent(p, 1))
        assert ((mean - kl(q, p)).abs() < 5 * error).all()
        assert (error < 0.03 * (1 + kl(q, p))).all()


def test_gradient_of_the_kl():
    q, prior, mix = gaussian(2, 3), gaussian(2, 3), mixture(2, 4, 3)
    both = (q.mean, q.scale, prior.mean, prior.scale)
    inputs = [value.requires_grad_() for value in both]
    assert torch.autograd.gradcheck(lambda m, s, a, b: kl(Normal(m, s), Normal(a, b)), inputs)
    inputs = [v.requires_grad_() for v in (q.mean, q.scale, *parameters(mix))]
    assert torch.autograd.gradcheck(lambda m, s, *of: kl(Normal(m, s), Mixture(*of)), inputs)


def test_kl_to_a_mixture_of_one_is_exact():
    q, prior = gaussian(3, 5), gaussian(3, 5)
    zero = torch.zeros(3, 1, dtype=torch.float64)
    one = Mixture(zero, prior.mean[:, None], prior.scale[:, None])
    torch.testing.assert_close(kl(q, one), kl_divergence(q, prior).sum(-1))
    # And where parts are alike, whatever their weights.
    weights = torch.randn(3, 4, dtype=torch.float64).log_softmax(1)
    parts = (v[:, None].expand(-1, 4, -1) for v in (prior.mean, prior.scale))
    torch.testing.assert_close(kl(q, Mixture(weights, *parts)), kl(q, prior))


def test_kl_to_a_mixture_is_a_bound_from_above():
    for seed in range(5):
        torch.manual_seed(seed)
        q, mix = gaussian(8, 2), mixture(8, 3, 2)
        mean, error = monte_carlo(q, of_torch(mix), 20_000)
        found = kl(q, mix)
        assert (found > mean - 5 * error).all()
        # It is what the best q(part) gives: no worse than to say one part, or to say the prior's.
        each = torch.stack([kl(q, Normal(mix.mean[:, m], mix.scale[:, m])) for m in range(3)], 1)
        assert (found <= (each - mix.log_weights).amin(1) + 1e-12).all()
        assert (found <= (mix.log_weights.exp() * each).sum(1) + 1e-12).all()
        best = (mix.log_weights - each).softmax(1)
        joint = (best * (best.log() - mix.log_weights + each)).sum(1)
        torch.testing.assert_close(found, joint)


def test_kl_to_a_mixture_of_distant_parts_is_exact():
    q, mix = gaussian(3, 2), mixture(3, 4, 2)
    mix.mean[:, 1:] += 1e3  # q says the first
    exact = kl(q, Normal(mix.mean[:, 0], mix.scale[:, 0])) - mix.log_weights[:, 0]
    torch.testing.assert_close(kl(q, mix), exact)
    mean, error = monte_carlo(q, of_torch(mix))
    assert ((kl(q, mix) - mean).abs() < 5 * error).all()


# Merging


def test_merging_is_the_product_of_densities():
    prior, message = gaussian(1, 2), gaussian(1, 2)
    for seen in (1.0, 0.4):
        merged = merge(prior, message, torch.full((1,), seen, dtype=torch.float64))
        at = torch.linspace(-8, 8, 40_001, dtype=torch.float64)[:, None]
        log = prior.log_prob(at) + seen * message.log_prob(at)
        density = log.exp() / log.exp().sum(0) / (at[1] - at[0])
        torch.testing.assert_close(merged.log_prob(at).exp(), density, rtol=1e-6, atol=1e-9)


def test_a_message_counts_by_its_precision():
    prior, message = gaussian(3, 4), gaussian(3, 4)
    seen = torch.ones(3, dtype=torch.float64)
    merged = merge(prior, message, seen)
    precision = prior.scale**-2 + message.scale**-2
    torch.testing.assert_close(merged.scale, precision**-0.5)
    weighted = prior.mean * prior.scale**-2 + message.mean * message.scale**-2
    torch.testing.assert_close(merged.mean, weighted / precision)
    assert (merged.scale < torch.minimum(prior.scale, message.scale)).all()
    other_way = merge(message, prior, seen)
    torch.testing.assert_close(merged.mean, other_way.mean)
    torch.testing.assert_close(merged.scale, other_way.scale)
    vague = merge(prior, Normal(message.mean, 1e6 + 0 * message.scale), seen)
    torch.testing.assert_close(vague.mean, prior.mean)
    sharp = merge(prior, Normal(message.mean, 1e-6 + 0 * message.scale), seen)
    torch.testing.assert_close(sharp.mean, message.mean)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_where_nothing_is_seen_the_prior_stays(dtype):
    torch.manual_seed(0)
    prior, message = (
        Normal(torch.randn(2000, 4).to(dtype), (torch.rand(2000, 4) + 0.1).to(dtype))
        for _ in range(2)
    )
    seen = (torch.arange(2000) % 2).to(dtype)
    merged = merge(prior, message, seen)
    assert torch.equal(merged.mean[::2], prior.mean[::2])
    assert torch.equal(merged.scale[::2], prior.scale[::2])
    found = kl(merged, prior)
    assert not found[::2].any()
    assert (found[1::2] > 0).all()


# Draws


def test_a_draw_is_the_mean_and_so_many_standard_deviations():
    q, noise = gaussian(3, 5), torch.randn(3, 5, dtype=torch.float64)
    torch.testing.assert_close(draw(q, noise), q.mean + q.scale * noise)
    assert torch.equal(draw(q, None), q.mean)


def test_draws_of_a_mixture_have_its_shares():
    n, weights = 40_000, torch.tensor([0.1, 0.0, 0.55, 0.3, 0.05], dtype=torch.float64)
    centres = torch.arange(5.0, dtype=torch.float64)[:, None] * torch.tensor([1.0, -2.0])
    scales = 0.01 * torch.arange(1.0, 6, dtype=torch.float64)[:, None].expand(5, 2)
    mix = Mixture(
        weights.log().expand(n, 5), centres.expand(n, 5, 2), scales.expand(n, 5, 2).contiguous()
    )
    noise, pick = (torch.randn(n, *s, dtype=torch.float64) for s in ((2,), ()))
    z = draw(mix, noise, pick)
    part = z[:, 0].round().long()
    shares = part.bincount(minlength=5) / n
    error = (weights * (1 - weights) / n).sqrt()
    assert ((shares - weights).abs() <= 5 * error).all()
    torch.testing.assert_close(z, centres[part] + scales[part] * noise)
    # The same pick gives the same part, whatever the noise; the mean is that of the likeliest.
    again = draw(mix, torch.zeros_like(noise), pick)
    torch.testing.assert_close(again, centres[part])
    assert torch.equal(draw(mix, None), centres[2].expand(n, 2))
    extreme = torch.tensor([-40.0, 40.0], dtype=torch.float64)
    few = Mixture(mix.log_weights[:2], mix.mean[:2], mix.scale[:2])
    torch.testing.assert_close(draw(few, None, extreme), centres[[0, 4]])


def test_every_image_of_a_batch_has_its_own_mixture():
    mix = mixture(3, 4, 5)
    noise = torch.randn(3, 5, dtype=torch.float64)
    pick = torch.randn(3, dtype=torch.float64)
    whole = draw(mix, noise, pick)
    for b in range(3):
        one = Mixture(*(value[b : b + 1] for value in parameters(mix)))
        assert torch.equal(draw(one, noise[b : b + 1], pick[b : b + 1]), whole[b : b + 1])


# Densities


def test_log_density_is_that_of_torch():
    q, mix, z = gaussian(3, 5), mixture(), torch.randn(3, 5, dtype=torch.float64)
    torch.testing.assert_close(log_density(q, z), q.log_prob(z).sum(-1))
    torch.testing.assert_close(log_density(mix, z), of_torch(mix).log_prob(z))
    single = Normal(q.mean.float(), q.scale.float())
    assert log_density(single, z.float()).dtype == torch.float64


def test_draws_of_a_mixture_are_as_dense_as_it_says():
    mix = mixture(1, 3, 2)
    many = Mixture(*(v.expand(50_000, *v.shape[1:]) for v in parameters(mix)))
    noise = torch.randn(50_000, 2, dtype=torch.float64)
    pick = torch.randn(50_000, dtype=torch.float64)
    found = log_density(many, draw(many, noise, pick))
    theirs = of_torch(mix)
    expected = theirs.log_prob(theirs.sample((50_000,)))[:, 0]
    error = (found.var() / 50_000 + expected.var() / 50_000).sqrt()
    assert (found.mean() - expected.mean()).abs() < 5 * error
