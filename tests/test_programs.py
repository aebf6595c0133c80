"""Programs of many images are those of one batch, and draw what they draw in their tree."""

import pytest
import tiny
import torch

from rnp_lib.analysis import programs
from rnp_lib.model.rnp import RNP


@pytest.fixture(scope="module", params=["root", "tree"])
def model(request):
    torch.manual_seed(1)
    return RNP(tiny.config(tau=(2, 3, 2), images=(160,) * 3, posterior=request.param)).eval()


@pytest.fixture(scope="module")
def images():  # more than are parsed at a time
    return torch.rand(503, 1, 16, 16, generator=torch.Generator().manual_seed(0))


@torch.no_grad()
def test_posteriors_are_those_of_the_encoder(model, images):
    q = model.encode(images)
    torch.testing.assert_close(programs.posteriors(model, images), (q.mean, q.stddev))


@torch.no_grad()
def test_programs_of_every_level_stand_in_drawing_order(model, images):
    tree = model.parse(images)
    for level, count in ((3, 1), (2, 2), (1, 6), (0, 12)):
        found = programs.of_level(model, images, level)
        assert found.shape == (503, count, 8)
        for i, program in enumerate(tree.programs(level)):
            torch.testing.assert_close(found[:, i], program.z, rtol=1e-3, atol=1e-4)


@torch.no_grad()
def test_programs_draw_what_they_draw_in_their_tree(model, images):
    tree = model.decode(model.encode(images).mean)  # of an image they might have drawn otherwise
    torch.testing.assert_close(programs.draw(model, tree.z), tree.canvas, rtol=1e-3, atol=1e-4)
    part = tree.children[1]
    found = programs.draw(model, part.z, 2)
    torch.testing.assert_close(found, part.canvas, rtol=1e-3, atol=1e-4)


@torch.no_grad()
def test_images_are_redrawn_as_their_parses_have_them(model, images):
    expected = model.parse(images).canvas
    torch.testing.assert_close(programs.redraw(model, images), expected, rtol=1e-3, atol=1e-4)


@torch.no_grad()
def test_noise_expands_to_the_samples_of_its_seed(model):
    noise = model.noise(503, seed=3)
    found = programs.expand(model, noise)
    torch.testing.assert_close(found, model.sample(503, seed=3).canvas, rtol=1e-3, atol=1e-4)
    root, below = model.split(noise)
    assert torch.equal(model.expand(noise[:5]).z, root[:5])
    other = torch.cat([root[:5], -noise[:5, 8:]], 1)
    assert torch.equal(model.expand(other).z, root[:5])
    same = torch.allclose(model.expand(other).canvas, model.expand(noise[:5]).canvas)
    assert same == (not below)  # with posterior "root" nothing else is drawn
