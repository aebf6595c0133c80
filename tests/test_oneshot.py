"""One-shot classification: how characters vary, in nats, and runs of them."""

import pytest
import tiny
import torch
from torch.distributions import MultivariateNormal

from rnp_lib.analysis import oneshot
from rnp_lib.analysis.oneshot import Variation
from rnp_lib.data import runs
from rnp_lib.data.runs import Run
from rnp_lib.model import build


@pytest.fixture(scope="module")
def drawn():
    """Codes (C, n, D) of characters whose covariances, between and within, are known."""
    torch.manual_seed(0)
    between, within = (a @ a.T for a in torch.randn(2, 3, 3, dtype=torch.float64))
    zero = torch.zeros(3, dtype=torch.float64)
    middle = MultivariateNormal(zero + 2, between).sample((3_000,))
    off = MultivariateNormal(zero, within).sample((3_000, 5))
    return middle[:, None] + off, between, within


def test_covariances_within_and_between_characters_are_found(drawn):
    codes, between, within = drawn
    found = Variation.fit(codes, shrink=0)
    back = torch.linalg.inv(found.basis)
    scale = float(within.abs().amax())
    torch.testing.assert_close(back @ back.T, within, atol=0.05 * scale, rtol=0)
    scale = float(between.abs().amax())
    torch.testing.assert_close(
        back @ found.between.diag() @ back.T, between, atol=0.08 * scale, rtol=0
    )


def test_nats_are_those_of_the_joint_gaussian(drawn):
    codes, *_ = drawn
    found = Variation.fit(codes)
    back = torch.linalg.inv(found.basis)
    within, between = back @ back.T, back @ found.between.diag() @ back.T
    alone = MultivariateNormal(found.mean, within + between)
    both = torch.cat([torch.cat([within + between, between], 1)] * 2)
    both[3:] = torch.cat([between, within + between], 1)
    joint = MultivariateNormal(found.mean.repeat(2), both)
    new, known = codes[:4, 0], codes[:3, 1]
    slow = torch.tensor(
        [
            [
                joint.log_prob(torch.cat([x, y])) - alone.log_prob(x) - alone.log_prob(y)
                for y in known
            ]
            for x in new
        ]
    )
    torch.testing.assert_close(found.nats(new, known), slow)


def test_what_never_varies_is_no_evidence_and_no_trouble(drawn):
    codes = torch.cat([drawn[0], torch.zeros(3_000, 5, 1)], -1)
    found = Variation.fit(codes)
    nats = found.nats(codes[:3, 0], codes[:3, 1])
    torch.testing.assert_close(
        nats, Variation.fit(drawn[0]).nats(*drawn[0][:3, :2].unbind(1)), atol=1e-3, rtol=1e-3
    )


@pytest.mark.parametrize("posterior", ["root", "tree"])
def test_a_code_is_all_numbers_of_a_tree_and_first_that_of_the_image_itself(posterior):
    images = tiny.pictures(4)
    model = build(tiny.config(posterior=posterior)).eval()
    code = oneshot.code(model)
    tree = model.parse(images)
    found = code(images)
    c = model.config
    parts, leaves = c.tau[0], c.tau[0] * c.tau[1]
    assert found.shape == (4, c.z_dim * (1 + parts) + 6 * (parts + leaves))
    assert found[:, : c.z_dim].equal(tree.z.double())
    assert found[:, -6:].equal(tree.children[-1].children[-1].u.double())
    read = oneshot.readings(code, images, copies=3, seed=0)
    torch.testing.assert_close(read[:, 0], found)
    assert (read[:, 1] != read[:, 2]).any()
    assert read.equal(oneshot.readings(code, images, copies=3, seed=0))


def test_wrong_is_the_share_of_new_images_given_to_another_character():
    known = torch.tensor([[0.0], [1], [2], [3]])
    run = Run(known, torch.tensor([[2.1], [0.1], [3.1], [3.2]]), torch.tensor([2, 0, 1, 3]))
    assert oneshot.wrong([run, run], oneshot.minus_distance).tolist() == [0.25, 0.25]


def test_runs_of_characters_that_differ_are_right_and_errors_are_over_runs():
    torch.manual_seed(0)
    marks = torch.rand(30, 1, 1, 12, 12).expand(30, 6, 1, 12, 12)
    noisy = (marks + 0.02 * torch.randn(marks.shape)).clamp(0, 1)
    labels = torch.arange(10).repeat_interleave(6)
    drawn = runs.drawn(noisy[20:].flatten(0, 1), labels, n=3, seed=1, way=5)
    found = oneshot.compare(
        drawn, noisy[:20], {"pixels": oneshot.pixels, "blind": lambda x: x[:, 0, :1, 0]}, "pixels"
    )
    assert (found["n"], found["runs"]) == (15, 3)
    assert found["error_pixels"] == found["error_pixels_distance"] == 0
    blind = found["error_blind"]
    assert blind > 0.2
    assert found["less_blind"] == pytest.approx(blind)
    assert found["less_blind_stderr"] == pytest.approx(found["error_blind_stderr"])


def test_runs_are_drawn_of_two_drawers_and_again_by_seed():
    images = torch.arange(12.0)[:, None, None, None].expand(12, 1, 2, 2)  # 3 characters, 4 drawers
    first, second = runs.drawn(images, torch.arange(3).repeat_interleave(4), n=2, seed=5)
    for run in (first, second):
        known, new = run.known[:, 0, 0, 0].long(), run.new[:, 0, 0, 0].long()
        assert (known // 4).equal(new // 4)
        assert sorted((known // 4).tolist()) == [0, 1, 2]
        assert len((known % 4).unique()) == len((new % 4).unique()) == 1
        assert known[0] % 4 != new[0] % 4
        assert run.labels.tolist() == [0, 1, 2]
    again = runs.drawn(images, torch.arange(3).repeat_interleave(4), n=2, seed=5)
    assert all(a.known.equal(b.known) for a, b in zip(again, (first, second), strict=True))
