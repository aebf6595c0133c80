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
    # Rounded as float32, which differs with the size of a batch.
    torch.testing.assert_close(read[:, 0].float(), found.float(), rtol=1e-4, atol=1e-5)
    assert (read[:, 1] != read[:, 2]).any()
    assert read.equal(oneshot.readings(code, images, copies=3, seed=0))


def test_errors_are_shares_of_wrong_answers_over_runs():
    known = torch.tensor([[0.0], [1], [2], [3]])
    run = Run(known, torch.tensor([[2.1], [0.1], [3.1], [3.2]]), torch.tensor([2, 0, 1, 3]))
    given = oneshot.nearest([run, run], oneshot.minus_distance)
    assert [each.tolist() for each in given] == [[2, 0, 3, 3]] * 2
    right = [run.labels, torch.tensor([2, 0, 0, 0])]
    found = oneshot.errors({"near": given, "other": right}, [run, run], against="near")
    assert (found["n"], found["runs"]) == (8, 2)
    assert (found["error_near"], found["error_near_stderr"]) == (0.25, 0)
    assert (found["error_other"], found["error_other_stderr"]) == (0.25, 0.25)
    assert (found["less_other"], found["less_other_stderr"]) == (0, 0.25)


def test_characters_that_differ_in_what_was_learned_are_told_apart(monkeypatch):
    """Loud numbers that say nothing of the character are learned to be noise."""
    monkeypatch.setattr(oneshot, "MOVED", 0.0)
    torch.manual_seed(0)
    marks = torch.rand(60, 1, 1, 4, 4).expand(60, 6, 1, 4, 4)
    loud = torch.cat([0.3 * marks, torch.rand(60, 6, 1, 12, 4)], -2)
    labels = torch.arange(20).repeat_interleave(6)
    drawn = runs.drawn(loud[40:].flatten(0, 1), labels, n=4, seed=1, way=10)
    by_nats, by_distance = oneshot.answers(
        drawn, oneshot.learned(loud[:40], oneshot.pixels), oneshot.pixels
    )
    found = oneshot.errors({"nats": by_nats, "distance": by_distance}, drawn, "nats")
    assert found["error_nats"] < 0.3 < 0.5 < found["error_distance"]


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
