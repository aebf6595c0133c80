"""Figures of claims: what is drawn is what the numbers say."""

import matplotlib.pyplot as plt
import numpy as np
import pytest
import torch

from rnp_lib.plots import evaluation


@pytest.fixture(autouse=True)
def close():
    yield
    plt.close("all")


def test_peers_have_a_dot_each_where_they_have_a_score_and_the_better_is_up():
    numbers = {"sse_a": 3.0, "sse_b": 2.0, "sse_b_stderr": 0.5, "read_b": 0.4}
    scores = {"sse": ("SSE", True), "read": ("read", False)}
    figure = evaluation.peers(numbers, scores, {"a": "one", "b": "other"}, ours=1, columns=2)
    error, read = figure.axes
    dots = [line.get_xydata()[0].tolist() for line in error.lines if line.get_marker() in "os"]
    assert dots == [[0, 3], [1, 2]]
    assert error.yaxis_inverted()
    assert not read.yaxis_inverted()
    assert [line.get_xydata()[0].tolist() for line in read.lines if line.get_marker() in "os"] == [
        [1, 0.4]
    ]
    assert [tick.get_text() for tick in error.get_xticklabels()] == ["one", "other"]


def test_errors_far_apart_are_shown_on_a_logarithmic_scale():
    scores = {"a": ("a", True), "b": ("b", True), "c": ("c", False)}
    numbers = {"a_x": 2.0, "a_y": 20.0, "b_x": 2.0, "b_y": 4.0, "c_x": 0.1, "c_y": 1.0}
    figure = evaluation.peers(numbers, scores, {"x": "one", "y": "two"}, ours=1, columns=3)
    assert [axis.get_yscale() for axis in figure.axes] == ["log", "linear", "linear"]


def test_frames_without_a_score_are_empty_and_names_stand_below_the_last():
    scores = {name: (name, False) for name in "abc"}
    figure = evaluation.peers({"a_x": 1.0}, scores, {"x": "who"}, ours=0, columns=2)
    assert [axis.axison for axis in figure.axes] == [True, True, True, False]
    assert figure.axes[1].get_xticklabels()[0].get_text() == "who"


def test_curves_over_whole_numbers_are_marked_at_these():
    by_amount = {0: {"a": 0.5}, 2: {"a": 1.0}}
    figure = evaluation.curves({"who": {"things": by_amount}}, {"a": "share"})
    (axis,) = figure.axes
    assert axis.lines[0].get_xydata().tolist() == [[0, 0.5], [2, 1]]
    assert axis.get_xticks().tolist() == [0, 2]
    by_amount = {0.0: {"a": 0.5}, 0.5: {"a": 1.0}}
    figure = evaluation.curves({"who": {"sizes": by_amount}}, {"a": "share"})
    assert any(tick != round(tick) for tick in figure.axes[0].get_xticks())


def test_sheets_show_drawings_in_their_places():
    drawings = torch.zeros(2, 3, 1, 4, 4)
    drawings[1, 2] = 1
    figure = evaluation.sheets({"one": drawings, "two": drawings})
    first, second = figure.axes
    assert (first.get_title(), second.get_title()) == ("one", "two")
    shown = np.asarray(first.images[0].get_array())
    assert shown.shape == (8, 12)
    assert (shown[4:, 8:] == 0).all()  # ink is dark
    assert shown.sum() == 8 * 12 - 16
