"""What a prior takes in of few images, beside sums worked out by hand."""

import math

import pytest
import tiny
import torch

from rnp_lib.analysis import fewshot, transfer
from rnp_lib.analysis.classifier import Classifier
from rnp_lib.analysis.likelihood import COSTS, costs
from rnp_lib.analysis.transfer import Images
from rnp_lib.model import build
from rnp_lib.model.chance import Mixture, kl
from rnp_lib.model.rnp import ImageModel


@pytest.fixture(scope="module")
def model():
    torch.manual_seed(0)
    return tiny.tree(prior_z="symbols", symbols=5).eval()


@pytest.fixture(scope="module")
def both():
    """The same with parts that are symbols or what their parent predicts."""
    torch.manual_seed(0)
    return tiny.tree(prior_z="both", symbols=5).eval()


def unchanged(model: ImageModel, before: dict) -> bool:
    return all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


@pytest.mark.parametrize("kind", fewshot.KINDS)
def test_no_weight_changes_and_the_model_stays(model, kind):
    before = {name: value.clone() for name, value in model.state_dict().items()}
    found = fewshot.expect(model, tiny.pictures(3), kind).model
    assert unchanged(model, before)
    after = {
        name.replace("grammar.grammar", "grammar"): v for name, v in found.state_dict().items()
    }
    assert unchanged(model, after)


@torch.no_grad()
def test_a_root_mean_is_that_of_the_images_drawn_toward_zero(model):
    x = tiny.pictures(4)
    found = fewshot.expect(model, x[:3], "root")
    assert torch.allclose(found.mean, model.encode(x[:3]).mean.mean(0) * 3 / 4)
    spent, before = found.costs(x), costs(model, x)
    others = [COSTS.index(name) for name in ("error", "places", "programs")]
    assert torch.equal(spent[:, others], before[:, others])
    q = model.encode(x)
    parts = [
        0.5 * (q.scale**2 + (q.mean - mean) ** 2 - 1 - 2 * q.scale.log()).sum(1)
        for mean in (torch.zeros(8), found.mean)
    ]
    by_hand = -torch.logsumexp(math.log(0.5) - torch.stack(parts), 0)
    assert torch.allclose(spent[:, 1].float(), by_hand, rtol=1e-4)


@torch.no_grad()
def test_what_is_expected_costs_less_and_what_is_not_more(model):
    far = torch.full((8,), 5.0)
    found = fewshot.Expectation(model, far)
    near = torch.distributions.Normal(far.expand(2, -1), torch.ones(2, 8))
    assert torch.allclose(kl(near, found.root(2)), torch.full((2,), math.log(2)), atol=1e-3)
    other = torch.distributions.Normal(torch.zeros(2, 8), torch.ones(2, 8))
    assert torch.allclose(kl(other, found.root(2)), torch.full((2,), math.log(2)), atol=1e-3)


@torch.no_grad()
def test_the_parts_are_new_symbols(both):
    x = tiny.pictures(2)
    found = fewshot.expect(both, x, "symbols")
    parts = torch.cat([child.z for child in both.parse(x).children])
    assert torch.equal(found.model.grammar.symbols, parts)
    given = torch.randn(3, 8), torch.randn(3, 8), torch.randn(3, 6)
    old, new = both.grammar(*given), found.model.grammar(*given)
    assert isinstance(new.z, Mixture)
    assert new.z.mean.shape == (3, 4 + 5 + 1, 8)
    weights = new.z.log_weights.exp()
    assert torch.allclose(weights[:, :4], torch.full((3, 4), fewshot.SHARE / 4))
    assert torch.allclose(weights[:, 4:], (1 - fewshot.SHARE) * old.z.log_weights.exp())
    assert torch.equal(new.z.mean[:, :4], parts.expand(3, -1, -1))
    assert torch.equal(new.z.prediction.mean, old.z.prediction.mean)
    assert torch.equal(new.u.mean, old.u.mean)


@torch.no_grad()
def test_rules_count_which_symbols_parts_are(model):
    grammar = model.grammar
    tree = model.parse(tiny.pictures(2))
    for child in tree.children:  # parts that are symbol 3, beyond doubt
        child.z[:] = child.prior.z.mean[:, 3]
        child.prior.z.scale[:] = 1e-3
    bias = fewshot._rules(tree.children)
    expected = torch.cat([child.prior.z.log_weights.exp() for child in tree.children]).mean(0)
    count = 4 * (torch.arange(5) == 3).float()
    by_hand = (count + fewshot.RULES * expected) / (4 + fewshot.RULES) / expected
    assert torch.allclose(bias, by_hand.log(), atol=1e-4)
    given = torch.randn(3, 8), torch.randn(3, 8), torch.randn(3, 6)
    biased = fewshot.Expecting(grammar, bias, None)(*given).z.log_weights.exp()
    plain = grammar(*given).z.log_weights.exp() * bias.exp()
    assert torch.allclose(biased, plain / plain.sum(1, keepdim=True), atol=1e-5)


def test_it_is_drawn_around_the_mean(model):
    plain = fewshot.Expectation(model, None)
    assert torch.equal(plain.draw(3, seed=1), model.sample(3, seed=1).canvas)
    moved = fewshot.Expectation(model, torch.full((8,), 2.0))
    noise = model.noise(3, seed=1)
    noise[:, :8] += 2
    assert torch.allclose(moved.draw(3, seed=1), model.expand(noise).canvas)


def test_scores_are_of_new_and_old_images_and_of_drawings(model, monkeypatch):
    class Eights(Classifier):
        """Reads every image as an eight but the first."""

        def read(self, images):
            label = torch.full((len(images),), 8)
            label[0] = 1
            return label == 8, label

    monkeypatch.setattr(fewshot, "load_classifier", lambda name: Eights(10))
    monkeypatch.setattr(fewshot, "DRAWN", 4)
    x = tiny.pictures(6)
    images = Images(x, x[:2], x[1:])
    found = fewshot.scores(fewshot.Expectation(model, None), images, 8)
    assert found["drawn"]["read"] == 0.75
    before = transfer.scores(model, images._replace(old=x[[1, 3, 5]]))
    for which in ("new", "old"):
        for name in ("n", "sse", "nats", *COSTS):
            assert found[which][name] == pytest.approx(before[which][name], rel=1e-5)


@pytest.mark.parametrize(
    ("config", "kind", "sentence"),
    [
        (tiny.config(), "symbols", "symbols needs a model whose parts are symbols"),
        (tiny.config(posterior="tree"), "rules", "rules needs a model whose parts are symbols"),
        (tiny.config(model="vae"), "prior", "prior needs a model whose parts are symbols"),
        (tiny.config(), "luck", "kind must be one of root, symbols, rules, prior: got 'luck'"),
    ],
)
def test_what_cannot_be_expected_is_said(config, kind, sentence):
    with pytest.raises(ValueError, match=sentence):
        fewshot.expect(build(config).eval(), tiny.pictures(2), kind)


def test_a_plain_vae_can_expect_a_root_mean():
    model = build(tiny.config(model="vae")).eval()
    found = fewshot.expect(model, tiny.pictures(2), "root")
    assert found.draw(3, seed=0).shape == (3, 1, 16, 16)
