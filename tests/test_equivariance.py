"""Images that are moved: where their windows ought to be, and models that follow or do not."""

from types import SimpleNamespace

import pytest
import tiny
import torch

from rnp_lib.analysis import equivariance
from rnp_lib.model.transforms import place


@pytest.mark.parametrize(
    ("kind", "amount", "where"),
    [("shift", 2, (0.4, 0)), ("turn", 90, (0, 0)), ("size", 0.5, (0, 0))],
)
def test_an_image_s_middle_goes_where_the_change_says(kind, amount, where):
    matrix = equivariance.change(kind, amount, side=11)
    middle = equivariance.apply(matrix, torch.zeros(1, 2))
    torch.testing.assert_close(middle, torch.tensor([where]).float())


def test_changes_move_pixels_as_named():
    image = torch.zeros(1, 1, 11, 11)
    image[..., 5, 7] = 1  # to the right of the middle by two

    def at(kind, amount):
        moved = place(image, equivariance.change(kind, amount, 11)[None], 11)[0, 0]
        return divmod(int(moved.argmax()), 11)

    assert at("shift", 2) == (5, 9)
    assert at("turn", 90) == (7, 5)  # x turns towards y, which is down
    assert at("size", 2) == (5, 9)


def test_another_kind_is_refused():
    with pytest.raises(ValueError, match="shift, turn, size: got 'shear'"):
        equivariance.change("shear", 1, 28)


class Perfect:
    """Parses an image of one spot: a part of that place and, for its program, its brightness."""

    def __init__(self, moves: bool):
        self.moves = moves

    def parse(self, x):
        line = torch.linspace(-1, 1, x.shape[-1])
        share = x[:, 0] / x[:, 0].sum((1, 2), keepdim=True)
        middle = torch.stack([(share.sum(1) * line).sum(1), (share.sum(2) * line).sum(1)], 1)
        affine = torch.zeros(len(x), 2, 3)
        affine[:, 0, 0] = affine[:, 1, 1] = 0.2
        affine[:, :, 2] = middle if self.moves else 0
        child = SimpleNamespace(affine=affine, z=x.amax((1, 2, 3))[:, None])
        return SimpleNamespace(children=[child], canvas=x)


def test_windows_that_follow_score_one_and_those_that_stay_score_zero():
    images = torch.zeros(3, 1, 11, 11)
    for i, bright in enumerate((0.3, 0.6, 0.9)):
        images[i, 0, 4 + i, 5] = bright
    for moves in (True, False):
        found = equivariance.follow(Perfect(moves), images, "shift", 2)
        assert found["windows"] == pytest.approx(float(moves), abs=1e-5)
        assert found["codes"] == pytest.approx(0, abs=1e-5)
        assert (found["sse"], found["sse_before"]) == (0, 0)


def test_codes_that_change_like_another_image_s_score_about_one():
    """A model that sees nothing in common between an image and its copy."""
    torch.manual_seed(0)

    class Blind(Perfect):
        def parse(self, x):
            tree = super().parse(x)
            tree.children[0].z = torch.randn(len(x), 4)
            return tree

    found = equivariance.follow(Blind(True), torch.rand(1_000, 1, 5, 5), "size", 1.0)
    assert found["codes"] == pytest.approx(1, abs=0.1)


def test_any_model_can_be_asked():
    found = equivariance.follow(tiny.tree(), tiny.pictures(4), "turn", 10)
    assert set(found) == {"windows", "codes", "sse", "sse_before"}
    assert found["codes"] > 0
