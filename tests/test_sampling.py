"""Scores of samples against cases whose answers are known, and against slow recomputation."""

import json
from functools import partial

import numpy as np
import pytest
import scipy.linalg
import tiny
import torch
from torch import nn

from rnp_lib.analysis import sampling
from rnp_lib.analysis.classifier import Classifier
from rnp_lib.analysis.sampling import (
    fid_kid,
    gaussian_mixture,
    legibility,
    nearest,
    precision_recall_density_coverage,
)
from rnp_lib.data.strokes import strokes
from rnp_lib.model.rnp import RNP


class Stub(Classifier):
    """Reads a class, and how sure it is of it, from an image's first pixels."""

    def __init__(self):
        super().__init__(4)

    def forward(self, x):
        probability = x[:, 0, 0, 1]
        others = ((1 - probability) / 3)[:, None].repeat(1, 4)
        return others.scatter(1, x[:, 0, 0, :1].long(), probability[:, None]).log()


def test_legibility_counts_confident_images_and_classes():
    images = torch.zeros(600, 1, 28, 28)
    images[:, 0, 0, 1] = 0.7
    images[:150, 0, 0, 1] = 0.9
    images[300:, 0, 0, 0] = 3
    scores = legibility(Stub(), images)
    assert scores == {"n": 600, "legible": 0.25, "classes": [0.5, 0.0, 0.0, 0.5]}
    assert json.loads(json.dumps(scores)) == scores


@pytest.fixture(scope="module")
def images():
    return strokes(900).images


@pytest.fixture(scope="module")
def classifier(images):
    """Untrained, but with features of mean 0 and variance 1, as a trained one has."""
    torch.manual_seed(0)
    classifier = Classifier(3)
    for layer in classifier.modules():
        if isinstance(layer, (nn.BatchNorm1d, nn.BatchNorm2d)):
            layer.momentum = 1.0
    classifier(images[:200])
    return classifier.eval()


def closed_formula(a, b):
    """Fréchet distance of two sets of features by the matrix square root."""
    a, b = a.double().numpy(), b.double().numpy()
    s, t = np.cov(a, rowvar=False), np.cov(b, rowvar=False)
    root = scipy.linalg.sqrtm(s @ t).real
    return np.square(a.mean(0) - b.mean(0)).sum() + np.trace(s + t - 2 * root)


def kernel_distance(a, b):
    """The unbiased estimate of the squared maximum mean discrepancy, by its definition."""
    a, b = a.double().numpy(), b.double().numpy()

    def kernel(x, y):
        return (x @ y.T / x.shape[1] + 1) ** 3

    def within(x):
        k, n = kernel(x, x), len(x)
        return (k.sum() - np.trace(k)) / (n * (n - 1))

    return within(a) + within(b) - 2 * kernel(a, b).mean()


def test_fid_and_kid_against_their_formulas(classifier, images):
    real, generated = images[:500], (images[400:] * 0.7 + 0.1).contiguous()
    scores = fid_kid(classifier, real, generated)
    a, b = classifier.features(real), classifier.features(generated)
    assert scores["fid"] == pytest.approx(closed_formula(a, b), rel=1e-6)
    assert scores["kid"] == pytest.approx(kernel_distance(a, b), rel=1e-6)  # each subset is all
    assert scores["fid"] > 1
    assert json.loads(json.dumps(scores)) == scores


def test_fid_and_kid_of_sets_that_do_not_differ(classifier, images):
    same = fid_kid(classifier, images[:300], images[:300])
    assert same["fid"] == pytest.approx(0, abs=1e-6)
    halves = fid_kid(classifier, images[:450], images[450:])
    far = fid_kid(classifier, images[:450], 1 - images[450:])
    assert abs(halves["kid"]) < 0.01 * far["kid"]
    assert halves["fid"] < 0.1 * far["fid"]


def test_the_seed_draws_the_subsets_and_nothing_else(classifier, images, monkeypatch):
    few = partial(sampling.KernelInceptionDistance, subsets=4)
    monkeypatch.setattr(sampling, "KernelInceptionDistance", few)
    real, generated = images.repeat(2, 1, 1, 1)[:1_200], (images * 0.5).repeat(2, 1, 1, 1)[:1_100]
    torch.manual_seed(5)
    first, after = fid_kid(classifier, real, generated, seed=1), torch.rand(3)
    assert fid_kid(classifier, real, generated, seed=1) == first
    other = fid_kid(classifier, real, generated, seed=2)
    assert other["kid"] != first["kid"]
    assert other["kid"] == pytest.approx(first["kid"], abs=2 * first["kid_std"])
    assert other["fid"] == first["fid"]
    torch.manual_seed(5)
    assert torch.equal(torch.rand(3), after)


def test_one_image_has_no_covariance(classifier, images):
    with pytest.raises(ValueError, match="at least 2"):
        fid_kid(classifier, images, images[:1])


def slow_balls(real, generated, k):
    """Precision, recall, density and coverage, one pair of points at a time."""

    def inside(points, others):
        radii = [sorted(np.linalg.norm(p - q) for q in points)[k] for p in points]
        pairs = zip(points, radii, strict=True)
        return np.array([[np.linalg.norm(p - q) < r for q in others] for p, r in pairs])

    of_real, of_generated = inside(real, generated), inside(generated, real)
    return {
        "precision": of_real.any(0).mean(),
        "recall": of_generated.any(0).mean(),
        "density": of_real.sum() / (k * len(generated)),
        "coverage": of_real.any(1).mean(),
    }


@pytest.mark.parametrize("k", [1, 3, 5])
def test_balls_against_the_slow_way(k):
    generator = np.random.default_rng(k)
    real = generator.normal(size=(70, 3))
    generated = generator.normal(size=(50, 3)) * [0.5, 1.0, 2.0] + 0.3
    scores = precision_recall_density_coverage(
        torch.from_numpy(real), torch.from_numpy(generated), k
    )
    assert scores == pytest.approx(slow_balls(real, generated, k), abs=1e-9)
    assert json.loads(json.dumps(scores)) == scores


def test_balls_by_hand():
    real = torch.tensor([[0.0], [1.0], [3.0]])  # radii 1, 1, 2
    generated = torch.tensor([[0.5], [2.9], [9.0], [10.0]])  # radii 2.4, 2.4, 1, 1
    scores = precision_recall_density_coverage(real, generated, k=1)
    # 0.5 lies in the first two balls, 2.9 in the third; of 3 real points, all are within 2.4.
    assert scores == {"precision": 0.5, "recall": 1.0, "density": 0.75, "coverage": 1.0}


def test_identical_and_disjoint_sets():
    points = torch.randn(1_300, 8, generator=torch.Generator().manual_seed(0))  # several chunks
    same = precision_recall_density_coverage(points, points)
    assert same == pytest.approx(
        {"precision": 1, "recall": 1, "density": 1, "coverage": 1}, abs=1e-6
    )
    apart = precision_recall_density_coverage(points, points + 1_000)
    assert apart == {"precision": 0, "recall": 0, "density": 0, "coverage": 0}


def test_samples_at_one_point_are_precise_and_cover_little():
    points = torch.randn(500, 8, generator=torch.Generator().manual_seed(0))
    spread = torch.randn(500, 8, generator=torch.Generator().manual_seed(1))
    scores = precision_recall_density_coverage(points, spread * 0.01)
    assert scores["precision"] == 1
    assert scores["recall"] < 0.05
    assert scores["density"] > 1
    assert scores["coverage"] < 0.5


def test_balls_need_more_than_k_points():
    points = torch.randn(6, 2)
    precision_recall_density_coverage(points, points, k=5)
    with pytest.raises(ValueError, match="over 5 points"):
        precision_recall_density_coverage(points, points[:5], k=5)


def test_the_nearest_image_is_found(images):
    noisy = images + 0.1 * torch.rand(images.shape)
    order = torch.randperm(len(images))
    indices, distances = nearest(images[order], noisy)
    assert torch.equal(order[indices], torch.arange(len(images)))
    torch.testing.assert_close(distances, (images - noisy).square().sum((1, 2, 3)))
    indices, distances = nearest(images, images[7:8])
    assert (indices.item(), distances.item()) == (7, 0)


class Means(nn.Module):
    """Stands for a model whose posterior means are the first pixels of an image."""

    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(()))  # which says where the model lies

    def encode(self, x):
        return torch.distributions.Normal(x[:, 0, 0, :2], 1.0)


def test_a_mixture_samples_what_it_was_fitted_to():
    generator = torch.Generator().manual_seed(0)
    images = torch.zeros(1_200, 1, 4, 4)
    z = torch.randn(1_200, 2, generator=generator) @ torch.tensor([[0.5, 0.4], [0.0, 0.2]])
    z[:400] += 6.0  # a third of them, far from the others
    images[:, 0, 0, :2] = z
    sample = gaussian_mixture(Means(), images, components=2)
    drawn = sample(6_000, 1)
    assert drawn.shape == (6_000, 2)
    assert drawn.dtype == torch.float32
    far = drawn[:, 0] > 3
    assert far.float().mean().item() == pytest.approx(1 / 3, abs=0.03)
    for mine, fitted in ((drawn[far], z[:400]), (drawn[~far], z[400:])):
        torch.testing.assert_close(mine.mean(0), fitted.mean(0), atol=0.05, rtol=0)
        torch.testing.assert_close(mine.T.cov(), fitted.T.cov(), atol=0.03, rtol=0)


def test_a_mixture_of_a_real_model_gives_programs_it_can_draw(images):
    model = RNP(tiny.config()).eval()
    small = images[:80, :, ::2, ::2][:, :, :16, :16]
    small = nn.functional.pad(small, (1, 1, 1, 1))
    sample = gaussian_mixture(model, small, components=2, seed=3)
    first = sample(5, 0)
    assert torch.equal(first, gaussian_mixture(model, small, 2, seed=3)(5, 0))
    assert not torch.equal(first, sample(5, 1))
    with torch.no_grad():
        assert model.decode(first).canvas.shape == (5, 1, 16, 16)
