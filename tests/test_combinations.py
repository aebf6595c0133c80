"""Characters whose strokes are known, and which of them never come together in training."""

import sys

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


def test_each_kind_is_what_it_is_called(monkeypatch):
    drawn = []
    module = sys.modules[combinations.__module__]  # the package has the function by that name
    picture = module._picture
    monkeypatch.setattr(module, "_picture", lambda *args: drawn.append(args[0]) or picture(*args))
    images, labels = combinations(90, seed=3)
    assert images.shape == (90, 1, 28, 28)
    assert labels.bincount().tolist() == [30, 30, 30]
    shape, quarter = torch.cat(drawn).unbind(2)
    assert all(len(set(row)) == STROKES for row in (*shape.tolist(), *quarter.tolist()))
    for i, kind in enumerate(KINDS):
        of_kind = labels == i
        pair = held_pair(shape[of_kind][:, :, None], shape[of_kind][:, None]).any((1, 2))
        assert (pair == (kind == "pair")).all()
        assert (held_place(shape[of_kind], quarter[of_kind]).any(1) == (kind == "place")).all()


def test_a_seed_repeats_itself_and_strokes_lie_in_their_quarters():
    images, _ = combinations(40, seed=5)
    assert torch.equal(images, combinations(40, seed=5)[0])
    assert not torch.equal(images, combinations(40, seed=6)[0])
    assert images.min() == 0
    assert images.max() == 1
    border = torch.ones(28, 28, dtype=torch.bool)
    border[1:-1, 1:-1] = False
    assert images[:, 0, border].max() == 0  # no stroke leaves the canvas
    inked = images[:, 0].unflatten(1, (2, 14)).unflatten(3, (2, 14)).amax((2, 4)).flatten(1) > 0.5
    assert (inked.sum(1) == STROKES).double().mean() > 0.8  # a few reach into the next
    large, _ = combinations(40, seed=5, size=56)
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
    _, labels = combinations(5, 0, (kind,))
    assert (labels == KINDS.index(kind)).all()
