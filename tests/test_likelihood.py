"""Scores and bounds against a slow recomputation, and where log p(x) is known."""

import dataclasses
import math

import numpy as np
import pytest
import slow_reference as slow
import tiny
import torch
from torch.distributions import MultivariateNormal, Normal, kl_divergence

from rnp_lib.analysis import likelihood
from rnp_lib.analysis.parsing import evaluate, ink_share
from rnp_lib.config import Config
from rnp_lib.model import build
from rnp_lib.model.objective import reconstruction_error, squared_error, terms
from rnp_lib.model.rnp import RNP, ImageModel
from rnp_lib.model.transforms import place
from rnp_lib.model.tree import ProgramTree


@pytest.fixture(scope="module", params=[(2, 3), (3,)], ids=["two levels", "one level"])
def model(request):
    torch.manual_seed(0)
    images = (160,) * len(request.param)
    return RNP(tiny.config(tau=request.param, images=images)).eval()


@pytest.fixture(scope="module")
def images():
    return torch.rand(503, 1, 16, 16, generator=torch.Generator().manual_seed(1))


@torch.no_grad()
def slow_scores(model, x):
    """The scores of one image (1, 1, H, W), from distributions and sums over children."""
    q = model.encode(x)
    tree = model.decode(q.mean)
    parts = sum(place(child.patch, child.affine, x.shape[-1]) for child in tree.children)
    ink = torch.stack([placed.sum() for placed in tree.placed])
    return {
        "sse": ((tree.canvas - x) ** 2).sum(),
        "mse": ((tree.canvas - x) ** 2).mean(),
        "sse_parts": ((parts - x) ** 2).sum(),
        "sse_blank": (x**2).sum(),
        "kl": kl_divergence(q, Normal(0.0, 1.0)).sum(),
        **{f"ink_part_{t + 1}": share for t, share in enumerate(ink / ink.sum())},
    }


def test_scores_are_those_of_the_slow_way_averaged(model, images):
    scores = evaluate(model, images)
    assert scores.pop("elbo_samples") == 1
    pixels, sigma2 = images[0].numel(), model.config.sigma2
    constant = pixels / 2 * math.log(2 * math.pi * sigma2)
    assert scores.pop("nats") == pytest.approx(-scores["elbo"] - constant)
    del scores["elbo"], scores["elbo_stderr"]  # as below
    rows = [slow_scores(model, x[None]) for x in images]
    assert scores.pop("n") == 503
    sse = torch.stack([row["sse"] for row in rows]).double()
    assert scores.pop("sse_stderr") == pytest.approx(sse.std().item() / 503**0.5, rel=1e-4)
    assert scores.keys() == rows[0].keys()
    for name, value in scores.items():
        expected = torch.stack([row[name] for row in rows]).double().mean().item()
        assert value == pytest.approx(expected, rel=1e-4), name


def test_ink_shares_sum_to_one(model, images):
    tau = model.config.tau[0]
    shares = ink_share(model.parse(images[:20]))
    assert shares.shape == (20, tau)
    assert (shares >= 0).all()
    torch.testing.assert_close(shares.sum(1), torch.ones(20))
    scores = evaluate(model, images)
    assert sum(scores[f"ink_part_{t + 1}"] for t in range(tau)) == pytest.approx(1, abs=1e-5)


def test_ink_share_counts_what_each_child_draws():
    one = torch.zeros(1, 1, 4, 4)
    one[..., 0, :3] = 1.0  # 3 of ink, beside 1 and none
    two, none = torch.zeros_like(one), torch.zeros_like(one)
    two[..., 3, 3] = 1.0
    tree = ProgramTree(
        z=torch.zeros(1, 2), canvas=one + two, parts=torch.stack([one, two, none], 1)
    )
    torch.testing.assert_close(ink_share(tree), torch.tensor([[0.75, 0.25, 0.0]]))
    blank = dataclasses.replace(tree, parts=torch.stack([none, none, none], 1))
    torch.testing.assert_close(ink_share(blank), torch.zeros(1, 3))


def test_scores_need_no_gradient_and_leave_the_model_alone(model, images):
    before = {name: value.clone() for name, value in model.state_dict().items()}
    evaluate(model, images[:10])
    assert all(p.grad is None for p in model.parameters())
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


@pytest.mark.parametrize("kind", [{"model": "vae"}, {"model": "hvae", "posterior": "tree"}])
def test_a_plain_vae_is_scored_but_for_its_parts(kind):
    vae, x = build(tiny.config(**kind), 0).eval(), torch.rand(4, 1, 16, 16)
    scores = evaluate(vae, x)
    assert not [key for key in scores if "part" in key]
    assert scores["sse"] == pytest.approx(float(reconstruction_error(vae, x).mean()))


# ---- bounds --------------------------------------------------------------------------------------


@torch.no_grad()
def slow_weights(model, x, samples):
    """log p(x, z) / q(z | x) of new samples for one image (1, 1, H, W), in NumPy: (samples,)."""
    q, sigma2 = model.encode(x), model.config.sigma2
    mean, std = q.mean[0].double().numpy(), q.stddev[0].double().numpy()
    noise = np.random.default_rng(0).normal(size=(samples, len(mean)))
    canvas = model.decode(torch.from_numpy(mean + std * noise).float()).canvas.double().numpy()
    squares = np.square(canvas - x.numpy()).sum((1, 2, 3)) / sigma2
    likelihood = -0.5 * (squares + x.numel() * np.log(2 * np.pi * sigma2))
    prior = -0.5 * (np.square(mean + std * noise) + np.log(2 * np.pi)).sum(1)
    posterior = -0.5 * (np.square(noise) + np.log(2 * np.pi * np.square(std))).sum(1)
    return likelihood + prior - posterior


def test_the_bounds_are_those_of_samples_drawn_and_weighed_the_slow_way(model, images):
    few = images[:3]
    many = few.repeat_interleave(50, 0)  # 20 samples of 50 copies are faster than 1,000 of one
    weights = likelihood.log_weights(model, many, 20, torch.Generator().manual_seed(0))
    assert weights.shape == (150, 20)
    for x, found in zip(few, weights.view(3, 1_000), strict=True):
        expected = slow_weights(model, x[None], 1_000)
        noise = expected.std() * (2 / 1_000) ** 0.5  # of the difference of two such means
        assert found.mean().item() == pytest.approx(expected.mean(), abs=5 * noise)
        assert found.std().item() == pytest.approx(expected.std(), rel=0.2)


def test_the_elbo_is_of_samples_and_not_of_the_posterior_mean(model, images):
    few = images[:50]
    scores = evaluate(model, few, samples=10)
    assert scores["elbo_samples"] == 10
    expected = np.stack([slow_weights(model, x[None], 100) for x in few])
    noise = expected.std(1).mean() / (50 * 10) ** 0.5
    assert scores["elbo"] == pytest.approx(expected.mean(), abs=4 * noise)
    assert scores["elbo_stderr"] == pytest.approx(expected.mean(1).std() / 50**0.5, rel=0.4)


def test_bounds_come_from_their_seed_alone(model, images):
    torch.manual_seed(5)
    first, after = evaluate(model, images[:20], iwae=3), torch.rand(3)
    assert evaluate(model, images[:20], iwae=3) == first
    assert first["iwae_samples"] == 3
    assert evaluate(model, images[:20], iwae=3, seed=1)["elbo"] != first["elbo"]
    without = evaluate(model, images[:20])
    assert without == {key: value for key, value in first.items() if "iwae" not in key}
    torch.manual_seed(5)
    assert torch.equal(torch.rand(3), after)
    with pytest.raises(ValueError, match="at least one sample: got 0"):
        evaluate(model, images[:20], samples=0)


def tree_model(prior_z="prediction", amount=0.1, **changes):
    """A small model, in float64, whose programs are all random."""
    settings = dict(tau=(2, 2, 1), extent=(0.3, 0.6), prior_z=prior_z) | changes
    config = dataclasses.replace(slow.TREE, **settings)
    return tiny.disturbed(config, amount=amount).requires_grad_(False)


def every(node):
    return [node, *(below for child in node.children for below in every(child))]


@pytest.mark.parametrize("prior_z", ["prediction", "symbols", "both"])
def test_samples_of_a_tree_are_weighed_as_slow_sums_of_log_densities_weigh_them(prior_z):
    model, x = tree_model(prior_z), torch.rand(2, 1, 12, 12, dtype=torch.float64)
    seeded = torch.Generator().manual_seed
    found = likelihood.log_weights(model, x, 2, seeded(3))
    generator, sigma2 = seeded(3), model.config.sigma2
    for sample in range(2):
        noise = torch.randn(2, model.config.noise, generator=generator).double().numpy()
        for b in range(2):
            tree = slow.infer(model, x[b, 0].numpy(), noise[b])
            expected = slow.Gaussian(tree.canvas.ravel(), [sigma2**0.5] * 144)
            expected = expected.log_density(x[b].flatten().tolist())
            drawn = [node for node in every(tree) if node.prior]
            assert len(drawn) == 1 + 2 + 4
            for node in drawn:
                pairs = zip((node.z, node.u), node.prior, node.posterior, strict=True)
                for value, prior, posterior in pairs:
                    if prior is not None:
                        expected += prior.log_density(value) - posterior.log_density(value)
            assert found[b, sample].item() == pytest.approx(expected, rel=1e-9)


@pytest.mark.parametrize("prior_z", ["prediction", "both"])
def test_nats_are_what_log_densities_are_on_average(prior_z):
    model, n = tree_model(prior_z, amount=0.03, tau=(2, 1, 1)), 4_000
    model.reader.what_layers[-1].bias[:5] += 1  # so that an image says much
    x = torch.rand(1, 1, 12, 12, dtype=torch.float64).expand(n, -1, -1, -1)
    tree = model.infer(x, torch.randn(n, model.config.noise, dtype=torch.float64))
    of_root = (tree.prior.z.log_prob(tree.z) - tree.posterior.z.log_prob(tree.z)).sum(1)
    ratio = likelihood.log_prior(tree) - likelihood.log_posterior(tree) - of_root
    off, nats = ratio + tree.nats - tree.kl, (tree.nats - tree.kl).mean()
    error = off.std() / n**0.5
    assert error < 0.02 * nats
    if prior_z == "prediction":
        assert abs(off.mean()) < 5 * error
    else:  # to a mixture the KL is a bound from above
        assert off.mean() > -5 * error


def test_the_density_of_a_tree_under_its_prior_is_that_of_all_its_programs():
    model = tree_model()
    tree = model.sample(3, seed=1)
    expected = Normal(0.0, 1.0).log_prob(tree.z).sum(1)
    for level in (1, 2):
        for node in tree.programs(level):
            expected = expected + node.prior.z.log_prob(node.z).sum(1)
            expected = expected + node.prior.u.log_prob(node.u).sum(1)
    torch.testing.assert_close(likelihood.log_prior(tree), expected)
    root = tree_model(posterior="root")
    tree = root.sample(3)
    expected = Normal(0.0, 1.0).log_prob(tree.z).sum(1)
    torch.testing.assert_close(likelihood.log_prior(tree), expected)


def test_the_bounds_of_a_tree_are_ordered():
    tree, x = tree_model().float(), torch.rand(40, 1, 12, 12)
    weights = likelihood.log_weights(tree, x, 20, torch.Generator().manual_seed(0))
    assert weights.dtype == torch.float64
    assert likelihood.elbo(weights).mean() < likelihood.iwae(weights).mean()


@pytest.mark.parametrize("prior_z", ["prediction", "both"])
def test_scores_of_a_tree_also_say_what_the_root_alone_does(prior_z):
    model, x = tree_model(prior_z).float(), torch.rand(20, 1, 12, 12)
    scores = evaluate(model, x, iwae=2)
    tree = model.parse(x)
    alone = model.decode(model.encode(x).mean)
    for name, value in {
        "kl": tree.nats,
        "kl_root": kl_divergence(model.encode(x), Normal(0.0, 1.0)).sum(1),
        "sse": squared_error(tree.canvas, x),
        "sse_root": squared_error(alone.canvas, x),
        "sse_parts": squared_error(tree.cut(2), x),
    }.items():
        assert scores[name] == pytest.approx(value.mean().item(), rel=1e-4), name
    assert scores["kl"] > scores["kl_root"]
    assert scores["sse"] != scores["sse_root"]
    assert scores["elbo"] < scores["iwae"]


class Linear(ImageModel):
    """x = A z + noise with orthogonal columns in A: p(x) and p(z | x) are known Gaussians.

    Its q is the posterior itself, but with `width` times its standard deviation.
    """

    def __init__(self, width):
        super().__init__(Config(posterior="root", z_dim=3, sigma2=0.3))
        generator = torch.Generator().manual_seed(0)
        basis, _ = torch.linalg.qr(torch.randn(16, 3, generator=generator).double())
        self.matrix = basis * torch.tensor([0.5, 1.0, 2.0])
        self.width = width

    def root(self, x):
        precision = 1 + self.matrix.square().sum(0) / 0.3
        mean = x.flatten(1) @ self.matrix / 0.3 / precision
        return Normal(mean, (self.width * precision.rsqrt()).expand_as(mean))

    def unroll(self, z, level, until=0, guide=None):
        return ProgramTree(z=z, canvas=(z @ self.matrix.T).view(-1, 1, 4, 4))

    def log_probability(self, x):
        covariance = self.matrix @ self.matrix.T + 0.3 * torch.eye(16).double()
        return MultivariateNormal(torch.zeros(16).double(), covariance).log_prob(x.flatten(1))


def linear_weights(width, samples):
    x = torch.randn(600, 1, 4, 4, generator=torch.Generator().manual_seed(1)).double()
    model, generator = Linear(width), torch.Generator().manual_seed(2)
    return model.log_probability(x), likelihood.log_weights(model, x, samples, generator)


def test_with_the_true_posterior_every_sample_gives_log_p_of_x():
    exact, weights = linear_weights(1.0, 5)
    torch.testing.assert_close(weights, exact.unsqueeze(1).expand(-1, 5))
    torch.testing.assert_close(likelihood.elbo(weights), exact)
    torch.testing.assert_close(likelihood.iwae(weights), exact)


@torch.no_grad()
def test_two_vectors_are_weighed_as_one_after_the_other():
    config = tiny.config(model="hvae", posterior="tree", sigma2=0.1)
    vae = build(config, 0).double().eval()
    x = torch.rand(2, 1, 16, 16, generator=torch.Generator().manual_seed(0)).double()
    found = likelihood.log_weights(vae, x, 1, torch.Generator().manual_seed(3))[:, 0]
    noise = torch.randn(2, config.noise, generator=torch.Generator().manual_seed(3)).double()
    q = vae.root(x)
    z = q.mean + q.scale * noise[:, : config.z_dim]
    mean, log_std = vae.predict(z).chunk(2, 1)
    told, log_told = vae.reader(x).chunk(2, 1)
    precision = (-2 * log_std).exp() + (-2 * log_told).exp()
    merged = (mean * (-2 * log_std).exp() + told * (-2 * log_told).exp()) / precision
    posterior, prior = Normal(merged, precision.rsqrt()), Normal(mean, log_std.exp())
    each = noise[:, config.z_dim :].view(2, -1, config.noise_each)[..., :-1].flatten(1)
    below = merged + precision.rsqrt() * each
    assert below.shape[1] == 2 * (config.z_dim + 6)  # as many numbers as two parts of a tree
    canvas = vae.decoder(torch.cat([z, below], 1))
    expected = Normal(canvas, 0.1**0.5).log_prob(x).sum((1, 2, 3))
    expected += (Normal(0.0, 1.0).log_prob(z) - q.log_prob(z)).sum(1)
    expected += (prior.log_prob(below) - posterior.log_prob(below)).sum(1)
    torch.testing.assert_close(found, expected)
    nats = vae.infer(x, noise).nats
    exact = kl_divergence(q, Normal(torch.zeros_like(z), torch.ones_like(z))).sum(1)
    torch.testing.assert_close(nats, exact + kl_divergence(posterior, prior).sum(1))
    # Images that nothing but the first vector is told of keep the second's prior.
    unseen = vae.infer(x, noise, seen=torch.zeros(2).double())
    torch.testing.assert_close(unseen.nats, exact)
    torch.testing.assert_close(unseen.children[0].z, mean + log_std.exp() * each)
    drawn = vae.expand(noise)
    root, first = noise[:, : config.z_dim], drawn.children[0]
    mean, log_std = vae.predict(root).chunk(2, 1)
    torch.testing.assert_close(first.z, mean + log_std.exp() * each)


def test_the_importance_weighted_bound_climbs_from_the_elbo_to_log_p_of_x():
    exact, weights = linear_weights(1.5, 1_000)
    elbo = likelihood.elbo(weights).mean()
    gap = 3 * (1.5**2 / 2 - 0.5 - math.log(1.5))  # KL(q ‖ p(z | x)), the same for every x
    assert (exact.mean() - elbo).item() == pytest.approx(gap, abs=0.01)
    bounds = [likelihood.iwae(weights[:, :k]).mean().item() for k in (1, 5, 50, 1_000)]
    assert bounds == sorted(bounds)
    assert bounds[0] == pytest.approx(elbo.item(), abs=0.2)
    assert exact.mean().item() == pytest.approx(bounds[-1], abs=0.01)


@pytest.mark.parametrize(
    "settings", [{"posterior": "tree", "tau": (2, 2, 2)}, {}, {"model": "vae"}]
)
def test_costs_by_term_are_the_negative_elbo(settings):
    config = tiny.config(**settings, sigma2=0.1)
    model = tiny.disturbed(config, amount=0.02) if not settings.get("model") else build(config, 0)
    x = torch.rand(5, 1, 16, 16, generator=torch.Generator().manual_seed(0))
    x = x.to(next(model.parameters()))
    spent = likelihood.costs(model, x, seed=3)
    assert spent.shape == (5, len(likelihood.COSTS))
    with torch.no_grad():
        noise = torch.randn(5, config.noise, generator=torch.Generator().manual_seed(3)).to(x)
        found = terms(model, x, noise)
    total = found.sse / (2 * 0.1) + found.kl
    torch.testing.assert_close(spent.sum(1), total.double())
    torch.testing.assert_close(spent[:, 1], model.parse(x).kl.double())
    if config.posterior == "tree":
        assert (spent[:, 2:] > 0).all()
    else:
        assert (spent[:, 2:] == 0).all()


def test_the_area_under_the_curve_by_hand():
    known, other = torch.tensor([1.0, 2, 3]), torch.tensor([2.5, 4])
    area, stderr = likelihood.auroc(known, other)
    assert area == pytest.approx(5 / 6)
    assert 0 < stderr < 0.5
    assert likelihood.auroc(known, known + 10) == (1.0, 0.0)
