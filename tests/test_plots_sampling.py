"""Samples of the prior: which picture stands where, and what the curves of program space show."""

import matplotlib.colors
import numpy as np
import pytest
import tiny
import torch
from matplotlib.axes import Axes
from matplotlib.patches import Rectangle

import rnp_lib as rnp
from rnp_lib import plots
from rnp_lib.plots import sampling as plots_sampling


@pytest.fixture
def trees():
    model = rnp.RNP(tiny.config())
    with torch.no_grad():
        return {"some": model.sample(5, seed=1), "others": model.sample(5, seed=2)}


def frames(axes: Axes) -> list[tuple[float, float, float, float]]:
    """Left, top, right and bottom of every sample's frame, in order."""
    boxes = [patch.get_bbox() for patch in axes.patches if isinstance(patch, Rectangle)]
    return [(box.x0, box.y0, box.x1, box.y1) for box in boxes]


def inside(picture, frame) -> bool:
    left, right, bottom, top = picture.get_extent()  # y runs downwards
    return frame[0] < left < right < frame[2] and frame[1] < top < bottom < frame[3]


def test_each_sample_stands_above_its_own_coloured_parts(trees):
    figure = plots_sampling.samples(trees, columns=3)

    assert [axes.get_title() for axes in figure.axes] == ["some", "others"]
    for axes, tree in zip(figure.axes, trees.values(), strict=True):
        boxes = frames(axes)
        assert len(boxes) == 5
        assert len(axes.images) == 2 * 5
        plain, parts = plots.grey(tree.canvas), plots.coloured(tree.parts)
        for i, (above, below) in enumerate(zip(*[iter(axes.images)] * 2, strict=True)):
            np.testing.assert_allclose(above.get_array(), plain[i])
            np.testing.assert_allclose(below.get_array(), parts[i])
            assert inside(above, boxes[i])
            assert inside(below, boxes[i])
            assert above.get_extent()[2] < below.get_extent()[3]


def test_samples_fill_line_after_line_without_overlap(trees):
    axes = plots_sampling.samples(trees, columns=3).axes[0]
    boxes = frames(axes)
    (left, right), (bottom, top) = axes.get_xlim(), axes.get_ylim()
    for i, box in enumerate(boxes):
        assert box[:2] == (boxes[i % 3][0], boxes[i - i % 3][1])
        assert left <= box[0]
        assert box[2] <= right + 1e-9
        assert top <= box[1]
        assert box[3] <= bottom + 1e-9
    assert boxes[0][2] < boxes[1][0]
    assert boxes[0][3] < boxes[3][1]


def test_pictures_are_square_and_sheets_lie_beside_each_other(trees):
    figure = plots_sampling.samples(trees, columns=3)
    figure.canvas.draw()
    first, second = (axes.get_window_extent() for axes in figure.axes)
    assert first.x1 < second.x0
    for axes in figure.axes:
        (x0, y0), (x1, y1) = axes.transData.transform([(0, 1), (1, 0)])
        assert x1 - x0 == pytest.approx(y1 - y0, rel=1e-3)


def test_the_legend_names_each_part_in_its_colour_and_leaves_room_for_a_stamp(trees, tmp_path):
    figure = plots_sampling.samples(trees)
    (legend,) = figure.legends
    assert [text.get_text() for text in legend.get_texts()] == ["first part", "second part"]
    for patch, colour in zip(legend.get_patches(), plots.COLOURS, strict=False):
        assert patch.get_facecolor() == matplotlib.colors.to_rgba(colour)

    seen = []
    draw = legend.draw
    legend.draw = lambda renderer: (draw(renderer), seen.append(legend.get_window_extent()))
    figure.savefig(tmp_path / "plain.png", bbox_inches="tight", dpi=100)
    plain = seen[-1]
    figure.text(0.5, -0.2, "a line below the figure")
    figure.savefig(tmp_path / "stamped.png", bbox_inches="tight", dpi=100)
    # The page grew downwards: the legend must move up on it, along with the pictures.
    assert seen[-1].y0 > plain.y0 + 10


def test_neighbours_stand_below_their_images():
    images, near = torch.rand(2, 4, 1, 16, 16)
    figure = plots_sampling.neighbours({"digits": (images, near)})
    (axes,) = figure.axes
    shown = [picture.get_array() for picture in axes.images]
    np.testing.assert_allclose(shown[0::2], plots.grey(images))
    np.testing.assert_allclose(shown[1::2], plots.grey(near))
    assert len({frame[1] for frame in frames(axes)}) == 1  # one line


def test_program_space_sorts_dimensions_and_counts_every_program():
    means, noise = torch.tensor([0.1, 0.8, 0.6]), torch.tensor([0.9, 0.6, 0.8])
    distances = {"held out": torch.rand(30), "prior": 1 + torch.rand(40), "mix": torch.rand(50)}
    figure = plots_sampling.program_space(
        {"a": (means, noise), "b": (means, noise)}, {"a": distances, "b": distances}
    )
    assert [axes.get_title() for axes in figure.axes] == ["a", "b", "", ""]
    above, below = figure.axes[1], figure.axes[3]
    curves = {line.get_label(): line.get_ydata() for line in above.lines}
    np.testing.assert_allclose(curves["posterior means"], [0.8, 0.6, 0.1])
    np.testing.assert_allclose(curves["one image's posterior"], [0.6, 0.8, 0.9])
    np.testing.assert_allclose(curves["all posteriors together"], [1, 1, 0.82**0.5], rtol=1e-6)
    assert set(curves["prior"]) == {1}

    counts = {}
    for outline in below.patches:
        counts[outline.get_label()] = outline.get_xy()[1:-1:2, 1].sum()
    assert counts == {"held out": 30, "prior": 40, "mix": 50}
    named = [[text.get_text() for text in legend.get_texts()] for legend in figure.legends]
    assert named[1] == list(distances)
