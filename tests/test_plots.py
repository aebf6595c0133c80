"""Pictures: colours stand for the turn of a child, windows for its action."""

import matplotlib.colors
import numpy as np
import pytest
import torch

import rnp_lib as rnp
from rnp_lib import plots
from rnp_lib.model.transforms import place


@pytest.fixture
def tree():
    return rnp.RNP(rnp.Config(tau=(3, 5))).sample(2)


def test_ink_has_the_colour_of_its_turn_and_paper_is_white():
    canvas = torch.zeros(1, 1, 4, 4)
    first, second = canvas.clone(), canvas.clone()
    first[..., 0, 0] = 1
    second[..., 3, 3] = 5  # sums of overlapping ink may exceed 1

    picture = plots.coloured(torch.stack([first, second], 1))

    assert picture.shape == (1, 4, 4, 3)
    for pixel, colour in (((0, 0), plots.COLOURS[0]), ((3, 3), plots.COLOURS[1])):
        np.testing.assert_allclose(picture[0][pixel], matplotlib.colors.to_rgb(colour), atol=1e-6)
    np.testing.assert_allclose(picture[0, 1, 1], 1)


def test_the_papers_order_of_colours():
    hue = [matplotlib.colors.rgb_to_hsv(matplotlib.colors.to_rgb(c))[0] for c in plots.COLOURS[:4]]
    blue, red, green, orange = hue
    assert 0.5 < blue < 0.7
    assert red < 0.03 or red > 0.97
    assert 0.25 < green < 0.45
    assert 0.05 < orange < 0.12


def test_grey_is_dark_ink_on_white():
    picture = plots.grey(torch.tensor([[[[0.0, 1.0], [0.25, 2.0]]]]))
    np.testing.assert_allclose(picture[0, ..., 0], [[1, 0], [0.75, 0]])


def test_corners_are_those_of_the_childs_frame():
    left, top, right, bottom = 0.25, 1.25 / 2, 0.75, 1.75 / 2
    expected = [[left, top], [right, top], [right, bottom], [left, bottom]]
    matrix = torch.tensor([[0.5, 0, 0.0], [0, 0.25, 0.5]])
    np.testing.assert_allclose(plots.corners(matrix), expected, rtol=1e-5)


def test_parsing_shows_inputs_drawings_parts_and_a_box_for_every_part(tree):
    x = torch.rand(2, 1, 28, 28)
    figure = plots.parsing(x, tree)

    shown = [axes.images[0].get_array() for axes in figure.axes]
    assert len(shown) == 2 * (3 + 3)
    np.testing.assert_allclose(shown[0], plots.grey(x)[0])
    np.testing.assert_allclose(shown[1], plots.grey(tree.canvas)[0])
    np.testing.assert_allclose(shown[2], plots.coloured(tree.parts)[0])
    for t, child in enumerate(tree.children):
        np.testing.assert_allclose(shown[3 + t], plots.coloured(child.parts)[0])
        frame = figure.axes[3 + t].spines["left"].get_edgecolor()
        assert frame == matplotlib.colors.to_rgba(plots.COLOURS[t])


def test_reuse_shows_each_copy_and_the_sum():
    primitive, copies = torch.rand(1, 1, 8, 8), torch.rand(1, 3, 1, 16, 16)
    figure = plots.reuse(primitive, copies, torch.rand(1, 1, 16, 16))
    assert [axes.get_title() for axes in figure.axes] == [
        "primitive",
        "action 1",
        "action 2",
        "action 3",
        "sum",
        "target",
    ]


@pytest.mark.parametrize(
    ("tau", "until", "nodes"),
    [((3, 5), None, 19), ((2, 2, 2), None, 7), ((2, 2, 2), 0, 15), ((3, 5), 1, 4), ((3,), None, 4)],
)
def test_a_tree_has_a_picture_for_every_program_and_a_line_to_each_child(tau, until, nodes):
    x = torch.rand(1, 1, 28, 28)
    figure = plots.tree(x, rnp.RNP(rnp.Config(tau=tau)).parse(x), until=until)
    assert len(figure.axes) == nodes + 1  # and the image
    assert len(figure.artists) == nodes - 1
    places = [axes.get_position() for axes in figure.axes]
    overlapping = [a.overlaps(b) for i, a in enumerate(places) for b in places[:i]]
    assert not any(overlapping)
    boxes = [axes.spines["top"].get_edgecolor() for axes in figure.axes[1 : 1 + tau[0]]]
    expected = [matplotlib.colors.to_rgba(c) for c in plots.COLOURS[: tau[0]]]
    np.testing.assert_allclose(boxes, expected)


def test_hidden_programs_are_pale_and_have_no_window(tree):
    one = tree[:1]
    shown, hidden = plots.tree(None, one), plots.tree(None, one, hidden={(1,), (0, 2)})
    outlines = [[len(axes.patches) for axes in figure.axes[:4]] for figure in (shown, hidden)]
    assert outlines == [[3, 5, 5, 5], [2, 4, 5, 5]]
    for i, (plain, pale) in enumerate(zip(shown.axes, hidden.axes, strict=True)):
        plain, pale = (axes.images[0].get_array() for axes in (plain, pale))
        is_hidden = i in (2, 4 + 2)  # the second part, and the third sub-part of the first
        np.testing.assert_allclose(pale, 1 - 0.3 * (1 - plain) if is_hidden else plain)


def test_steps_add_one_part_after_the_other(tree):
    figure = plots.steps(tree)
    assert len(figure.axes) == 2 * 3
    first, last = (figure.axes[i].images[0].get_array() for i in (0, 2))
    part = tree.children[0]
    new = plots.coloured(torch.stack([place(s, part.affine, 28) for s in part.placed], 1))
    np.testing.assert_allclose(first, new[0], atol=1e-6)
    assert last.sum() < first.sum()  # more ink


def test_learning_curves_show_training_and_validation(tmp_path):
    path = tmp_path / "metrics.csv"
    path.write_text("images,sse,validation_sse\n64,50,\n128,20.5,30\n")
    axes = plots.learning_curves({"one": path, "two": path}).axes[0]
    lines = [[*zip(*line.get_data(), strict=True)] for line in axes.lines]
    assert lines == [[(0.064, 50), (0.128, 20.5)], [(0.128, 30)]] * 2
    assert [text.get_text() for text in axes.get_legend().get_texts()] == ["one", "two"]


def test_segments_have_the_colour_of_their_part_and_a_shade_each():
    parts = torch.tensor([[[0, 0, 1], [1, -1, -1]]])
    sub_parts = torch.tensor([[[3, 5, 6], [6, -1, -1]]])
    picture = plots.segments(parts, sub_parts)[0]
    blue, red = (matplotlib.colors.to_rgb(colour) for colour in plots.COLOURS[:2])
    assert tuple(picture[0, 0]) == pytest.approx(blue)
    assert tuple(picture[0, 1]) == pytest.approx([0.3 * c + 0.7 for c in blue])  # its second
    assert tuple(picture[0, 2]) == tuple(picture[1, 0]) == pytest.approx(red)
    assert (picture[1, 1:] == 1).all()


def test_rows_names_each_row_and_shows_every_picture():
    figure = plots.rows({"one": np.zeros((3, 4, 4, 3)), "two": np.ones((3, 4, 4, 3))})
    assert [axes.get_ylabel() for axes in figure.axes if axes.get_ylabel()] == ["one", "two"]
    assert [len(axes.images) for axes in figure.axes] == [1] * 6
