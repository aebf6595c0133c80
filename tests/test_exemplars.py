"""New drawings of a character seen once: what is kept of it, and what varies."""

import pytest
import tiny
import torch

from rnp_lib.analysis import exemplars, oneshot
from rnp_lib.data.runs import Run
from rnp_lib.model import build

IMAGES = tiny.pictures(5)


@pytest.fixture(scope="module")
def model():
    return tiny.tree().eval()


@pytest.fixture(scope="module")
def background():
    return tiny.pictures(24).view(6, 4, 1, 16, 16)


def drawn_with(monkeypatch, model):
    """The trees that are drawn from now on, in order."""
    trees, unroll = [], model.unroll

    def keep(z, level, until=0, guide=None):
        tree = unroll(z, level, until, guide)
        if level == model.config.depth:
            trees.append(tree)
        return tree

    monkeypatch.setattr(model, "unroll", keep)
    return trees


def test_noise_varies_as_codes_do_within_characters():
    torch.manual_seed(0)
    middle, mix = 9 * torch.randn(400, 1, 3), torch.randn(3, 3)
    codes = middle + torch.randn(400, 20, 3) @ mix
    spread = exemplars._spread(codes)
    torch.testing.assert_close(spread.T @ spread, (mix.T @ mix).double(), atol=0.2, rtol=0.05)


@pytest.mark.parametrize("kept", ["root", "programs", "all but places"])
def test_each_maker_keeps_what_it_says(monkeypatch, model, background, kept):
    make = {
        "root": exemplars.parts_anew,
        "programs": exemplars.places_anew,
        "all but places": lambda model: exemplars.places_varied(model, background),
    }[kept](model)
    parsed = model.parse(IMAGES)
    trees = drawn_with(monkeypatch, model)
    new = make(IMAGES, torch.Generator().manual_seed(3))
    again = make(IMAGES, torch.Generator().manual_seed(3))
    other = make(IMAGES, torch.Generator().manual_seed(4))
    assert new.shape == IMAGES.shape
    assert torch.equal(new, again)
    assert not torch.equal(new, other)
    tree = next(t for t in trees if torch.equal(t.canvas, new))
    torch.testing.assert_close(tree.z, parsed.z)
    for t, (part, before) in enumerate(zip(tree.children, parsed.children, strict=True)):
        same = torch.allclose(part.z, before.z, atol=1e-5)
        assert same == (kept != "root"), t
        assert not torch.allclose(part.u, before.u, atol=1e-3)


def test_places_that_people_do_not_vary_stay(monkeypatch, model):
    alike = IMAGES[:, None].expand(5, 3, 1, 16, 16)
    make = exemplars.places_varied(model, alike)
    new = make(IMAGES, torch.Generator().manual_seed(0))
    torch.testing.assert_close(new, model.parse(IMAGES).canvas, atol=1e-3, rtol=0)


@pytest.mark.parametrize("kind", [{}, {"model": "vae"}])
def test_a_root_varies_by_a_share_of_what_people_do(monkeypatch, background, kind):
    model = build(tiny.config(**kind), 0).eval()
    make = exemplars.root_varied(model, background)
    roots = []
    monkeypatch.setattr(model, "decode", lambda z: roots.append(z) or model.unroll(z, 2))
    images = IMAGES[:1].expand(4_000, 1, 16, 16)
    with torch.no_grad():
        make(images, torch.Generator().manual_seed(0))
        z = model.encode(background.flatten(0, 1)).mean.unflatten(0, (6, 4))
    off = z - z.mean(1, keepdim=True)
    expected = exemplars.SHARE * (off.square().sum((0, 1)) / (6 * 3)).sqrt()
    torch.testing.assert_close(roots[0].std(0), expected, rtol=0.1, atol=1e-4)


def test_drawings_that_copy_are_recognised_and_those_of_another_are_not():
    torch.manual_seed(0)
    marks = torch.rand(30, 1, 1, 6, 6).expand(30, 4, 1, 6, 6)
    images = (marks + 0.1 * torch.randn(marks.shape)).clamp(0, 1)
    order = torch.randperm(10)
    runs = [Run(images[20:, i], images[20:, i + 1][order], order) for i in (0, 2)]
    variation = oneshot.learned(images[:20], oneshot.pixels)
    makers = {
        "copy": lambda known, generator: known,
        "next": lambda known, generator: known.roll(1, 0),
    }
    found = exemplars.recognised(runs, makers, variation, oneshot.pixels)
    assert found["n"] == 20
    assert found["right_real"] == found["right_copy"]
    assert found["right_copy"] > 0.7 > 0.3 > found["right_next"]
    assert found["moved_copy"] == 0
    away = (runs[0].known - images[20:, 1]).square().sum((1, 2, 3)).mean()
    away = (away + (runs[1].known - images[20:, 3]).square().sum((1, 2, 3)).mean()) / 2
    assert found["moved_real"] == pytest.approx(float(away))
