"""Scores against a slow recomputation, one image at a time."""

import dataclasses

import pytest
import tiny
import torch
from rnp_lib.analysis.metrics import evaluate, ink_share
from torch.distributions import Normal, kl_divergence

from rnp_lib.model import build
from rnp_lib.model.rnp import RNP
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
    sigma = model.config.sigma2**0.5
    q = model.encode(x)
    tree = model.decode(q.mean)
    parts = sum(place(child.patch, child.affine, x.shape[-1]) for child in tree.children)
    ink = torch.stack([placed.sum() for placed in tree.placed])
    kl = kl_divergence(q, Normal(0.0, 1.0)).sum()
    return {
        "sse": ((tree.canvas - x) ** 2).sum(),
        "mse": ((tree.canvas - x) ** 2).mean(),
        "sse_parts": ((parts - x) ** 2).sum(),
        "sse_blank": (x**2).sum(),
        "kl": kl,
        "elbo": Normal(tree.canvas, sigma).log_prob(x).sum() - kl,
        **{f"ink_part_{t + 1}": share for t, share in enumerate(ink / ink.sum())},
    }


def test_scores_are_those_of_the_slow_way_averaged(model, images):
    scores = evaluate(model, images)
    slow = [slow_scores(model, x[None]) for x in images]
    assert scores.pop("n") == 503
    sse = torch.stack([row["sse"] for row in slow]).double()
    assert scores.pop("sse_stderr") == pytest.approx(sse.std().item() / 503**0.5, rel=1e-4)
    assert scores.keys() == slow[0].keys()
    for name, value in scores.items():
        expected = torch.stack([row[name] for row in slow]).double().mean().item()
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


def test_a_plain_vae_is_refused_in_one_sentence():
    with pytest.raises(ValueError, match="a plain VAE has no parts to score"):
        evaluate(build(tiny.config(model="vae")), torch.zeros(2, 1, 16, 16))
