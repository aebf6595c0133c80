"""Variations keep what they say they keep, and change all else."""

import pytest
import tiny
import torch

from rnp_lib.analysis import variation


@pytest.fixture(scope="module")
def model():
    return tiny.tree(tau=(2, 2, 2))


@pytest.fixture(scope="module")
def tree(model):
    return model.parse(tiny.pictures(3))


def same(one, other, name, level):
    pairs = zip(one.programs(level), other.programs(level), strict=True)
    return [bool(torch.equal(getattr(a, name), getattr(b, name))) for a, b in pairs]


@pytest.mark.parametrize(
    ("kind", "kept"),
    [("parts", set()), ("places", {"z"}), ("transplanted", {"u"})],
)
def test_what_is_kept_and_what_is_not(model, tree, kind, kept):
    varied = variation.vary(model, tree, kind, seed=1)
    assert same(tree, varied, "z", 3) == [True]
    for name in ("z", "u"):
        assert set(same(tree, varied, name, 2)) == {name in kept}
    again, other = (variation.vary(model, tree, kind, seed=s) for s in (1, 2))
    assert torch.equal(varied.canvas, again.canvas)
    assert torch.equal(varied.canvas, other.canvas) == (kind == "transplanted")


def test_a_borrowed_part_is_that_of_the_next_tree_with_all_below_it(model, tree):
    varied = variation.vary(model, tree, "transplanted")
    for mine, theirs, place in zip(varied.children, tree.children, tree.children, strict=True):
        assert torch.equal(mine.z, theirs.z.roll(-1, 0))
        assert torch.equal(mine.u, place.u)
        torch.testing.assert_close(mine.canvas, theirs.canvas.roll(-1, 0))


def test_places_alone_are_drawn_from_their_prior(model, tree):
    drawn = [variation.vary(model, tree, "places", seed=seed) for seed in range(300)]
    first = torch.stack([varied.children[0].u for varied in drawn])
    prior = tree.children[0].prior.u
    error = (first.mean(0) - prior.mean) / (prior.scale / 300**0.5)
    assert error.abs().max() < 5


def test_no_other_kind(model, tree):
    with pytest.raises(ValueError, match="kind must be one of parts, places, transplanted"):
        variation.vary(model, tree, "roots")
