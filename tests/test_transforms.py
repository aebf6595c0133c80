"""Where children go: the affine maps, and the sampler that draws them.

x runs to the right and y down, from -1 to 1 between the centres of the border pixels.
"""

import math

import numpy as np
import pytest
import slow_reference as slow
import torch

from rnp_lib import data
from rnp_lib.model.transforms import affine, invert, place, sample, zoom

EXTENT, ROTATION, SHEAR, CENTRE = (1 / 4.3, 1 / 2.3), 90.0, 0.3, 0.7
SIZE = 28


def random_actions(*shape):
    return 2 * torch.rand(*shape, 6, dtype=torch.float64) - 1


def window(scale, centre=(0.0, 0.0)):
    """An upright window (1, 2, 3)."""
    x, y = centre
    return torch.tensor([[[scale, 0.0, x], [0.0, scale, y]]], dtype=torch.float64)


def aligned(child, top, left, size=SIZE):
    """The window that covers exactly `child` × `child` pixels of a canvas from (top, left)."""
    scale = (child - 1) / (size - 1)
    return window(scale, [2 * (p + (child - 1) / 2) / (size - 1) - 1 for p in (left, top)])


def coordinates(size=SIZE):
    """y and x of every pixel, (size, size) each."""
    line = torch.linspace(-1, 1, size, dtype=torch.float64)
    return torch.meshgrid(line, line, indexing="ij")


def ramps(n):
    """n pictures a + bx + cy."""
    a, b, c = torch.rand(3, n, 1, 1, 1, dtype=torch.float64)
    y, x = coordinates()
    return 1 + a + b * x + c * y


def inside(maps, size=SIZE):
    """Which pixels of the parent lie in the window of each map: (N, 1, size, size)."""
    y, x = coordinates(size)
    points = torch.stack([x, y, torch.ones_like(x)]).flatten(1)
    return ((invert(maps) @ points).abs() <= 1).all(1).view(-1, 1, size, size)


def stroke():
    """A soft arc and a bar, pen and grey edges like a digit's: (1, 1, 28, 28)."""
    y, x = coordinates()
    arc = ((x**2 + (y + 0.25) ** 2).sqrt() - 0.4).abs()
    bar = torch.maximum((x - 0.4).abs(), (y - 0.2).abs() - 0.45)
    return ((0.14 - torch.minimum(arc, bar)) / 0.08).clamp(0, 1).view(1, 1, SIZE, SIZE)


def centroid(picture):
    """Centre of the ink (x, y) of one picture (1, 1, H, W)."""
    y, x = coordinates(picture.shape[-1])
    ink = picture[0, 0]
    return [((ink * axis).sum() / ink.sum()).item() for axis in (x, y)]


# The map


def test_affine_decomposes_into_what_the_action_says():
    action = random_actions(200)
    maps = affine(action, EXTENT, ROTATION, SHEAR, CENTRE)
    linear = maps[..., :2]
    angle = torch.atan2(linear[:, 1, 0], linear[:, 0, 0])
    cos, sin = angle.cos(), angle.sin()
    unturn = torch.stack([torch.stack([cos, sin], -1), torch.stack([-sin, cos], -1)], -2)
    upper = unturn @ linear  # shear · scale
    torch.testing.assert_close(angle, math.radians(ROTATION) * action[:, 2])
    torch.testing.assert_close(upper[:, 1, 0], torch.zeros(200, dtype=torch.float64))
    scale = torch.stack([upper[:, 0, 0], upper[:, 1, 1]], -1)
    share = (scale.log() - math.log(EXTENT[0])) / math.log(EXTENT[1] / EXTENT[0])
    torch.testing.assert_close(share, (action[:, :2] + 1) / 2)
    torch.testing.assert_close(upper[:, 0, 1] / scale[:, 1], SHEAR * action[:, 3])
    torch.testing.assert_close(maps[..., 2], CENTRE * action[:, 4:])


def test_affine_agrees_with_the_slow_one():
    action = random_actions(3, 5)
    maps = affine(action, (0.2, 0.6), 45.0, 0.5, 0.8)
    assert maps.shape == (3, 5, 2, 3)
    for i, j in np.ndindex(3, 5):
        expected = slow.affine(action[i, j].numpy(), (0.2, 0.6), 45.0, 0.5, 0.8)
        np.testing.assert_allclose(maps[i, j], expected, atol=1e-12)


def test_centre_depends_on_its_own_two_numbers_alone():
    action = random_actions(50)
    moved = action.clone()
    moved[:, :4] = random_actions(50)[:, :4]
    first, second = affine(action, EXTENT), affine(moved, EXTENT)
    assert torch.equal(first[..., 2], second[..., 2])
    assert not torch.allclose(first[..., :2], second[..., :2])
    # and every centre up to the bound can be reached, whatever the scale
    corner = affine(torch.tensor([-1.0, -1, 1, 1, 1, -1]), EXTENT, centre=0.7)[:, 2]
    torch.testing.assert_close(corner, torch.tensor([0.7, -0.7]))


@pytest.mark.parametrize("extent", [EXTENT, (0.2, 0.95), (0.3, 0.3)])
def test_child_is_strictly_smaller_than_its_parent(extent):
    signs = torch.cartesian_prod(*[torch.tensor([-1.0, 1.0])] * 6).double()
    action = torch.cat([random_actions(2000), signs])
    linear = affine(action, extent, ROTATION, SHEAR, CENTRE)[..., :2]
    width, height = linear.norm(dim=-2).unbind(-1)
    area = torch.linalg.det(linear)
    stretch = math.sqrt(1 + SHEAR**2)  # the shear lengthens the second side
    assert (width >= extent[0] - 1e-12).all()
    assert (width <= extent[1] + 1e-12).all()
    assert (height >= extent[0] - 1e-12).all()
    assert (height <= extent[1] * stretch + 1e-12).all()
    assert (area >= extent[0] ** 2 - 1e-12).all()
    assert (area <= extent[1] ** 2 + 1e-12).all()
    assert max(width.max(), height.max(), area.max()) < 1


def test_no_action_is_the_geometric_mean_upright_in_the_middle():
    side = math.sqrt(EXTENT[0] * EXTENT[1])
    torch.testing.assert_close(affine(torch.zeros(1, 6, dtype=torch.float64), EXTENT), window(side))


def test_invert_is_exact():
    maps = affine(random_actions(100), EXTENT)
    last = torch.tensor([[0.0, 0.0, 1.0]], dtype=torch.float64).expand(100, 1, 3)
    expected = torch.linalg.inv(torch.cat([maps, last], -2))[:, :2]
    torch.testing.assert_close(invert(maps), expected, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(invert(invert(maps)), maps, rtol=1e-12, atol=1e-12)


# The sampler


@pytest.mark.parametrize(("shape", "size"), [((9, 9), 12), ((12, 8), 9)])
def test_sample_agrees_with_a_pixel_by_pixel_one(shape, size):
    images = torch.rand(6, 2, *shape, dtype=torch.float64)
    maps = affine(random_actions(6), (0.3, 0.9))
    maps = torch.cat([maps[:3], invert(maps[3:])])  # zooming in, and drawing a child
    result = sample(images, maps, size)
    assert result.shape == (6, 2, size, size)
    for n, channel in np.ndindex(6, 2):
        expected = slow.sample(images[n, channel].numpy(), maps[n].numpy(), size)
        np.testing.assert_allclose(result[n, channel], expected, atol=1e-12)


def test_place_is_an_exact_copy_where_pixels_meet():
    patch = torch.rand(1, 1, 8, 8, dtype=torch.float64)
    expected = torch.zeros(1, 1, SIZE, SIZE, dtype=torch.float64)
    expected[..., 3:11, 15:23] = patch
    torch.testing.assert_close(place(patch, aligned(8, 3, 15), SIZE), expected)


def test_place_of_a_picture_moved_by_whole_pixels():
    picture = torch.rand(1, 1, SIZE, SIZE, dtype=torch.float64)
    moved = place(picture, aligned(SIZE, top=-4, left=3), SIZE)
    torch.testing.assert_close(moved[..., :-4, 3:], picture[..., 4:, :-3])
    # what left the canvas is gone, what came in is zero
    assert moved[..., -4:, :].abs().max() < 1e-12
    assert moved[..., :3].abs().max() < 1e-12


def test_zoom_is_an_exact_crop_where_pixels_meet():
    picture = torch.rand(1, 1, SIZE, SIZE, dtype=torch.float64)
    crop = zoom(picture, aligned(8, 3, 15), 8)
    torch.testing.assert_close(crop, picture[..., 3:11, 15:23])


def test_round_trips_are_exact_on_ramps_inside_the_window():
    maps = affine(random_actions(50), EXTENT, centre=0.4)
    ramp = ramps(50)
    # Where the picture of a constant 1 comes back as 1, all interpolated pixels lay inside.
    ones = torch.ones_like(ramp)
    interior = zoom(place(ones, maps, SIZE), maps, SIZE) > 1 - 1e-9
    assert interior.double().mean() > 0.4
    back = zoom(place(ramp, maps, SIZE), maps, SIZE)
    torch.testing.assert_close(back[interior], ramp[interior], rtol=0, atol=1e-9)
    # The other order: enlarging the window and drawing it again.
    interior = inside(maps) & (place(zoom(ones, maps, SIZE), maps, SIZE) > 1 - 1e-9)
    assert interior.flatten(1).sum(1).min() > 20
    again = place(zoom(ramp, maps, SIZE), maps, SIZE)
    torch.testing.assert_close(again[interior], ramp[interior], rtol=0, atol=1e-9)


def round_trip_error(images):
    """Mean absolute error in the window of what is zoomed into and drawn again, random windows."""
    maps = affine(random_actions(len(images)).to(images), EXTENT)
    window = inside(maps.double())
    assert images[window].mean() > 0.1, "the windows show ink"
    return (place(zoom(images, maps, SIZE), maps, SIZE) - images)[window].abs().mean()


def test_round_trip_of_a_stroke():
    images = stroke().expand(500, -1, -1, -1)
    assert round_trip_error(images) <= 0.03
    # A window that is not inverted, or twice inverted, fails by far.
    maps = affine(random_actions(500), EXTENT)
    wrong = place(zoom(images, invert(maps), SIZE), maps, SIZE) - images
    assert wrong[inside(maps)].abs().mean() > 0.1


@pytest.mark.full_data
def test_round_trip_of_digits():
    images, _ = data.load("mnist", split="test")
    assert round_trip_error(images[:1000]) <= 0.03


# Which way things go


def picture_of(centre=(0.0, 0.0), scale=0.0, turn=0.0, slant=0.0, child=None):
    """A child drawn under an action whose two scales are equal."""
    action = torch.tensor([[scale, scale, turn, slant, *centre]], dtype=torch.float64)
    child = torch.ones(1, 1, SIZE, SIZE, dtype=torch.float64) if child is None else child
    return place(child, affine(action, EXTENT, ROTATION, SHEAR, CENTRE), SIZE)


def test_positive_centre_is_to_the_right_and_down():
    x, y = centroid(picture_of(centre=(0.5, 0.0)))
    assert (x, y) == pytest.approx((0.35, 0.0), abs=0.02)
    x, y = centroid(picture_of(centre=(0.0, 0.5)))
    assert (x, y) == pytest.approx((0.0, 0.35), abs=0.02)


def test_positive_rotation_turns_right_into_down():
    right_half = torch.zeros(1, 1, SIZE, SIZE, dtype=torch.float64)
    right_half[..., SIZE // 2 :] = 1
    x, y = centroid(picture_of(child=right_half))
    assert x > 0.1
    assert abs(y) < 0.01
    turned = centroid(picture_of(child=right_half, turn=1.0))
    assert turned == pytest.approx([-y, x], abs=0.01)


def test_positive_shear_pushes_the_lower_edge_to_the_right():
    lower_half = torch.zeros(1, 1, SIZE, SIZE, dtype=torch.float64)
    lower_half[..., SIZE // 2 :, :] = 1
    straight, sheared = (centroid(picture_of(child=lower_half, slant=s)) for s in (0.0, 1.0))
    assert sheared[1] == pytest.approx(straight[1], abs=0.01)
    assert sheared[0] - straight[0] == pytest.approx(SHEAR * straight[1], abs=0.01)


def test_ink_grows_with_the_area_of_the_window():
    scales = (-1.0, 0.0, 1.0)
    ink = [picture_of(scale=s, turn=0.3).sum().item() for s in scales]
    assert ink[0] < ink[1] < ink[2]
    for amount, scale in zip(ink, scales, strict=True):
        side = EXTENT[0] ** ((1 - scale) / 2) * EXTENT[1] ** ((1 + scale) / 2)
        assert amount == pytest.approx((side * SIZE) ** 2, rel=0.05)


def test_gradient_of_the_canvas_in_the_action_and_in_the_child():
    action = (0.9 * random_actions(3)).requires_grad_()
    child = torch.rand(3, 1, 6, 6, dtype=torch.float64, requires_grad=True)

    def draw(action, child):
        return place(child, affine(action, (0.3, 0.8)), 7)

    assert torch.autograd.gradcheck(draw, (action, child))
