"""Completions: nothing of what is covered is looked at, and what is seen stays as it is."""

from types import SimpleNamespace

import pytest
import tiny
import torch

from rnp_lib.analysis import completion
from rnp_lib.model import build
from rnp_lib.plots import completion as plots

SETTINGS = ({"posterior": "tree", "reader_units": 8}, {}, {"model": "vae"})


@pytest.fixture(autouse=True)
def few(monkeypatch):
    monkeypatch.setattr(completion, "STARTS", 20)
    monkeypatch.setattr(completion, "STEPS", 3)


@pytest.fixture(scope="module", params=SETTINGS, ids=("tree", "root", "vae"))
def model(request):
    return build(tiny.config(**request.param), 0).eval()


@pytest.fixture(scope="module")
def x():
    return tiny.pictures(3)


LOWER = completion.cover(completion.COVERS["lower half"], 16)


def test_a_cover_lies_where_it_says():
    assert LOWER.shape == (1, 1, 16, 16)
    assert LOWER[..., :8, :].sum() == 0
    assert LOWER[..., 8:, :].min() == 1
    quarter = completion.cover(((0.0, 0.5), (0.0, 0.5)), 28)
    assert int(quarter.sum()) == 14 * 14
    assert quarter[..., :14, :14].min() == 1


@pytest.mark.parametrize(
    ("where", "sentence"),
    [
        (((0.5, 0.2), (0.0, 1.0)), "goes from lower to higher shares"),
        (((0.0, 1.5), (0.0, 1.0)), "within"),
        (((0.0, 1.0), (0.0, 1.0)), "nothing is left to be seen"),
    ],
)
def test_a_cover_that_makes_no_sense_is_refused(where, sentence):
    with pytest.raises(ValueError, match=sentence):
        completion.cover(where, 16)


def test_nothing_that_is_covered_is_looked_at(model, x):
    other = torch.where(LOWER > 0, 1 - x, x)
    for complete in (
        lambda images: completion.complete(model, images, LOWER, chains=2).images,
        lambda images: completion.by_descent(model, images, LOWER, steps=3),
        lambda images: completion.nearest(x.flip(0), images, LOWER),
    ):
        one, two = complete(x), complete(other)
        assert torch.equal(one, two)
        seen = x if one.ndim == 4 else x[:, None]
        assert torch.equal(one[..., :8, :], seen.expand_as(one)[..., :8, :])
        assert one.min() >= 0
        assert one.max() <= 1


def test_completions_are_drawn_and_the_likeliest_is_first(model, x):
    found = completion.complete(model, x, LOWER, chains=4, seed=1)
    assert found.images.shape == (3, 4, 1, 16, 16)
    assert torch.equal(found.images, completion.complete(model, x, LOWER, 4, 1).images)
    assert not torch.equal(found.images, completion.complete(model, x, LOWER, 4, 2).images)
    seen = x.repeat_interleave(4, 0)
    wrong = ((1 - LOWER) * (found.trees.canvas - seen)).square().flatten(1).sum(1)
    cost = (wrong / (2 * model.config.sigma2) + found.trees.nats).view(3, 4)
    assert (cost.diff(dim=1) >= 0).all()
    drawn = found.trees.canvas.clamp(0, 1).view_as(found.images)[..., 8:, :]
    assert torch.equal(found.images[..., 8:, :], drawn)


def test_every_image_has_a_cover_of_its_own(model, x):
    right = completion.cover(completion.COVERS["right half"], 16)
    found = completion.complete(model, x[:2], torch.cat([LOWER, right]), chains=2).images
    assert torch.equal(found[0, :, :, :8], x[0].expand(2, -1, -1, -1)[:, :, :8])
    assert torch.equal(found[1, ..., :8], x[1].expand(2, -1, -1, -1)[..., :8])


def test_descent_fits_what_is_seen(model, x):
    smooth = torch.full_like(x, 0.6)
    before, after = (completion.by_descent(model, smooth, LOWER, steps) for steps in (0, 40))
    assert before.shape == after.shape == smooth.shape
    assert not torch.equal(before, after)
    assert all(p.grad is None for p in model.parameters())


def test_the_nearest_known_image_and_the_error_by_hand(x):
    known = torch.stack([x[1], 1 - x[0]])
    found = completion.nearest(known, x[1:2], LOWER)
    assert torch.equal(found, x[1:2])
    assert float(completion.covered_error(found, x[1:2], LOWER)) == 0
    blank = completion.covered_error(torch.zeros_like(x), x, LOWER)
    torch.testing.assert_close(blank, x[..., 8:, :].square().flatten(1).sum(1))


def test_completions_are_scored_by_hand(x):
    empty = torch.zeros_like(x)
    several = torch.stack([x, empty], 1)  # of each image itself, and nothing
    reader = SimpleNamespace(read=lambda of: (None, (of.flatten(1).sum(1) > 0).long()))
    found = completion.scores(several, x, torch.ones(3), LOWER, reader)
    error = x[..., 8:, :].square().flatten(1).sum(1).double() / 2
    assert found["error"] == pytest.approx(float(error.mean()))
    assert found["error_stderr"] == pytest.approx(float(error.std() / 3**0.5), rel=1e-4)
    assert (found["right"], found["right_stderr"]) == (0.5, 0)
    masks = LOWER.expand(3, -1, -1, -1)  # one for each
    assert completion.scores(several, x, torch.ones(3), masks, reader) == found


def test_a_figure_shows_what_is_seen_and_every_completion(x):
    small = completion.cover(((0.5, 1.0), (0.5, 1.0)), 8)
    columns = [{"completions": x[:2], "nearest": x[:1]}, {"completions": x[:2, :, :8, :8]}]
    figure = plots.completions([x[:1], x[:1, :, :8, :8]], [LOWER, small], columns)
    figure.canvas.draw()
    assert sum(bool(axes.images) for axes in figure.axes) == 2 * 2 + 3 + 2
    titles = [axes.get_title(loc="left") for axes in figure.axes if axes.get_title(loc="left")]
    assert titles == ["image", "seen", "completions", "nearest"]
    cover = plots.under_cover(x, LOWER)
    assert (cover[:, 8:] == plots.COVER).all()
