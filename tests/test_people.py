"""Agreement with people's strokes: labels, scores, and those that learn nothing."""

import itertools

import numpy as np
import pytest
import tiny
import torch

from rnp_lib.analysis import people

CROSS = torch.zeros(1, 9, 9)
CROSS[0, 4, :] = CROSS[0, :, 4] = 1


def test_ink_belongs_to_the_nearest_stroke_and_a_crossing_to_none():
    strokes = [np.array([[0.0, 4.0], [8.0, 4.0]]), np.array([[4.0, 0.0], [4.0, 8.0]])]
    labels = people.stroke_labels(strokes, CROSS[0].numpy(), 9)
    assert (labels[4, :4] == 0).all()
    assert (labels[4, 5:] == 0).all()
    assert (labels[:4, 4] == 1).all()
    assert labels[4, 4] == -1
    assert (labels[CROSS[0].numpy() == 0] == -1).all()


def test_strokes_are_scaled_to_the_image():
    """The middle of the k-th of n pixels lies at (k + 1/2) / n of the side."""
    strokes = [np.array([[0.5, 0.5]]), np.array([[6.5, 6.5]])]
    image = np.zeros((4, 4))
    image[0, 0] = image[3, 3] = 1
    labels = people.stroke_labels(strokes, image, 8)
    assert (labels[0, 0], labels[3, 3]) == (0, 1)


def slow_distance(at, line):
    """By walking along the line in small steps."""
    shares = np.linspace(0, 1, 2001)[:, None]
    pairs = itertools.pairwise(line) if len(line) > 1 else [(line[0], line[0])]
    walked = np.concatenate([a + shares * (b - a) for a, b in pairs])
    return np.array([np.linalg.norm(walked - one, axis=1).min() for one in at])


@pytest.mark.parametrize("points", [1, 2, 5])
def test_distances_are_those_of_a_walk_along_the_line(points):
    generator = np.random.default_rng(points)
    at, line = generator.uniform(0, 9, (20, 2)), generator.uniform(0, 9, (points, 2))
    np.testing.assert_allclose(people._distance(at, line), slow_distance(at, line), atol=0.01)


def test_agreement_by_hand():
    true = torch.tensor([[[0, 0, 0, 0], [1, 1, -1, -1]]])
    same = people.agreement(true, true + 5)
    assert {name: float(value) for name, value in same.items()} == dict.fromkeys(people.SCORES, 1)
    # A stroke of four cut in halves, the stroke of two with the second of them.
    found = people.agreement(true, torch.tensor([[[0, 0, 1, 1], [1, 1, 0, 0]]]))
    assert float(found["iou"]) == pytest.approx((2 / 4 + 2 / 4) / 2)
    assert float(found["covering"]) == pytest.approx((4 * 2 / 4 + 2 * 2 / 4) / 6)
    # One segment for both: only one stroke can have it.
    one = people.agreement(true, torch.zeros_like(true))
    assert float(one["ari"]) == 0
    assert float(one["iou"]) == pytest.approx(4 / 6 / 2)
    assert float(one["covering"]) == pytest.approx((4 * 4 / 6 + 2 * 2 / 6) / 6)


def test_what_learns_nothing_cuts_ink_as_it_says():
    ink = CROSS > 0
    pieces = people.skeleton_pieces(ink)[0]
    arms = [pieces[0, 4], pieces[8, 4], pieces[4, 0], pieces[4, 8]]
    assert len({int(arm) for arm in arms}) == 4
    apart = torch.zeros(1, 6, 6, dtype=torch.bool)
    apart[0, 0] = apart[0, 3] = True
    assert len(people.components(apart)[apart].unique()) == 2
    assert len(people.clumps(apart)[apart].unique()) == 4
    assert len(people.one_part(apart)[apart].unique()) == 1
    assert people.random_parts(apart).equal(people.random_parts(apart))
    for rival in people.RIVALS.values():
        assert rival(ink).shape == ink.shape
        assert rival(ink).dtype == torch.int64


def test_errors_are_over_characters():
    values, characters = torch.tensor([1.0, 0, 0.5, 0.5]).double(), torch.tensor([7, 7, 9, 9])
    found = people.over_characters("x", values, characters)
    assert found == {"x": 0.5, "x_stderr": 0.0}


@torch.no_grad()
def test_models_and_rivals_are_compared_on_the_same_drawings():
    model = tiny.tree()
    made = people.generated(6, 0)
    drawings = people.Drawings(tiny.pictures(6), made.strokes[:, :16, :16], made.characters)
    found = people.cuts({"mine": model}, drawings)
    assert set(found) == {"mine", "mine_sub", *people.RIVALS}
    many = drawings.counts > 1
    scores = people.compare(drawings.where(many), {k: v[many] for k, v in found.items()}, "mine")
    assert scores["n"] == int(many.sum())
    for rival in people.RIVALS:
        less = scores["ari_mine"] - scores[f"ari_{rival}"]
        assert scores[f"less_{rival}"] == pytest.approx(less)


@pytest.mark.full_data("omniglot")
def test_people_agree_with_themselves_and_drawings_are_of_the_alphabets_asked_for():
    drawings = people.by_people(["Tagalog"])
    assert len(drawings.images) == 17 * 20
    assert drawings.strokes[drawings.ink].max() >= 1
    assert (drawings.strokes[~drawings.ink] == -1).all()
    many = drawings.where(drawings.counts > 1)
    assert (people.agreement(many.strokes, many.strokes)["ari"] == 1).all()
