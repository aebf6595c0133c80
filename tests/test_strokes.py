"""The synthetic set: same seed, same characters; label maps that agree with the ink."""

import pytest
import torch

from rnp_lib.data.strokes import StrokeSet, strokes


@pytest.fixture(scope="module")
def drawn() -> StrokeSet:
    return strokes(600, seed=3)


def test_shapes_and_ranges(drawn: StrokeSet) -> None:
    assert drawn.images.shape == (600, 1, 28, 28)
    assert drawn.images.dtype == torch.float32
    assert drawn.parts.shape == drawn.subparts.shape == (600, 28, 28)
    assert {field.dtype for field in drawn[1:]} == {torch.int64}
    assert drawn.images.min() == 0
    assert drawn.images.max() == 1
    assert 0.08 < drawn.images.mean() < 0.2  # as dense as handwriting: MNIST 0.13, Omniglot 0.08


def test_a_seed_gives_the_same_characters_and_fewer_are_the_first_of_more() -> None:
    many, few, other = strokes(300, seed=5), strokes(10, seed=5), strokes(10, seed=6)
    assert all(torch.equal(a[:10], b) for a, b in zip(many, few, strict=True))
    assert not torch.equal(few.images, other.images)


def test_labels_lie_where_the_ink_is(drawn: StrokeSet) -> None:
    ink = drawn.images[:, 0] > 0
    assert torch.equal(drawn.parts >= 0, ink)
    assert torch.equal(drawn.subparts >= 0, ink)


def test_every_stroke_and_subpart_of_the_tree_is_seen(drawn: StrokeSet) -> None:
    for label, parts, subparts in zip(drawn.labels, drawn.parts, drawn.subparts, strict=True):
        assert parts.unique().tolist() == list(range(-1, label))
        assert subparts.unique().tolist() == list(range(-1, int(subparts.max()) + 1))


def test_a_subpart_lies_in_one_stroke_and_a_stroke_has_two_to_four(drawn: StrokeSet) -> None:
    for parts, subparts in zip(drawn.parts, drawn.subparts, strict=True):
        pairs = torch.stack([parts[parts >= 0], subparts[parts >= 0]]).unique(dim=1)
        owners, numbers = pairs
        order = numbers.argsort()
        assert numbers[order].tolist() == list(range(len(numbers)))
        assert owners[order].diff().ge(0).all()  # numbered in drawing order
        assert set(owners.bincount().tolist()) <= {2, 3, 4}


def test_all_three_labels_are_equally_frequent(drawn: StrokeSet) -> None:
    assert (drawn.labels.bincount(minlength=5)[2:] > 150).all()


def test_characters_are_spread_out_and_off_the_edge(drawn: StrokeSet) -> None:
    ink = drawn.images[:, 0] > 0.5
    extent = torch.maximum(ink.any(1).sum(1), ink.any(2).sum(1)).float()
    assert 14 < extent.mean() < 24
    assert not ink[:, [0, -1]].any()
    assert not ink[:, :, [0, -1]].any()


def test_strokes_seldom_run_into_each_other(drawn: StrokeSet) -> None:
    """Pixels with another stroke beside them are few: the parts can be told apart."""
    parts = drawn.parts
    meet = (parts[:, :, 1:] != parts[:, :, :-1]) & (parts[:, :, 1:] >= 0) & (parts[:, :, :-1] >= 0)
    assert meet.sum() / (parts >= 0).sum() < 0.1


def test_another_size_shows_the_same_characters() -> None:
    small, large = strokes(50, seed=2), strokes(50, seed=2, size=56)
    halved = torch.nn.functional.avg_pool2d(large.images, 2)
    assert large.parts.shape == (50, 56, 56)
    assert (halved - small.images).abs().mean() < 0.02


@pytest.mark.parametrize(("n", "size"), [(0, 28), (5, 4)])
def test_impossible_requests_are_refused(n: int, size: int) -> None:
    with pytest.raises(ValueError, match="cannot draw"):
        strokes(n, size=size)
