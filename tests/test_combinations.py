"""Characters whose strokes are known, and which of them never come together in training."""

import pytest
import torch

from rnp_lib import data
from rnp_lib.data.combinations import (
    KINDS,
    QUARTERS,
    SHAPES,
    STROKES,
    combinations,
    held_pair,
    held_place,
)


def test_every_stroke_is_seen_with_most_others_and_in_three_quarters():
    shapes = torch.arange(len(SHAPES))
    pairs = held_pair(shapes[:, None], shapes)
    assert (pairs == pairs.T).all()
    assert (pairs.sum(1) == 2).all()
    assert not pairs.diagonal().any()
    places = held_place(shapes[:, None], torch.arange(QUARTERS))
    assert (places.sum(1) == 1).all()
    assert (places.sum(0) == 3).all()


def test_each_kind_is_what_it_is_called():
    images, labels, shape, quarter, parts = combinations(90, seed=3)
    assert images.shape == (90, 1, 28, 28)
    assert parts.shape == (90, 28, 28)
    assert ((parts >= 0) == (images[:, 0] > 0)).all()
    assert labels.bincount().tolist() == [30, 30, 30]
    assert all(len(set(row)) == STROKES for row in (*shape.tolist(), *quarter.tolist()))
    for i, kind in enumerate(KINDS):
        of_kind = labels == i
        pair = held_pair(shape[of_kind][:, :, None], shape[of_kind][:, None]).any((1, 2))
        assert (pair == (kind == "pair")).all()
        assert (held_place(shape[of_kind], quarter[of_kind]).any(1) == (kind == "place")).all()


def test_a_seed_repeats_itself_and_strokes_lie_in_their_quarters():
    images, _, _, quarters, parts = combinations(40, seed=5)
    assert torch.equal(images, combinations(40, seed=5).images)
    assert not torch.equal(images, combinations(40, seed=6).images)
    assert images.min() == 0
    assert images.max() == 1
    border = torch.ones(28, 28, dtype=torch.bool)
    border[1:-1, 1:-1] = False
    assert images[:, 0, border].max() == 0  # no stroke leaves the canvas
    rows, columns = (torch.arange(28) // 14).unsqueeze(1), torch.arange(28) // 14
    for stroke in range(STROKES):
        there = rows * 2 + columns == quarters[:, stroke, None, None]
        own = parts == stroke
        assert (own & there).sum() > 0.95 * own.sum()  # a few reach into the next quarter
    large = combinations(40, seed=5, size=56).images
    halved = torch.nn.functional.avg_pool2d(large, 2)
    assert (halved - images).abs().mean() < 0.02


def test_training_images_show_what_is_seen_alone():
    images, labels = data.load("combinations", "train")
    assert images.shape == (30_000, 1, 28, 28)
    assert (labels == 0).all()
    images, labels = data.load("combinations", "test")
    assert labels.bincount().tolist() == [1_000] * 3
    assert data.fetch("combinations").startswith("combinations: 30,000 training and 3,000 test")


@pytest.mark.parametrize("kind", KINDS)
def test_one_kind_alone_is_drawn_where_it_is_asked_for(kind):
    labels = combinations(5, 0, (kind,)).labels
    assert (labels == KINDS.index(kind)).all()
