"""The widget of completions without a page: what it is told, it does or answers in a sentence."""

import io

import pytest
import tiny
import torch
from PIL import Image

from rnp_lib.analysis import completion
from rnp_lib.explorer.completions import Completions
from rnp_lib.model import build


@pytest.fixture
def widget(monkeypatch):
    monkeypatch.setattr(completion, "STARTS", 20)
    monkeypatch.setattr(completion, "STEPS", 2)
    model = build(tiny.config(posterior="tree", reader_units=8), 0).eval()
    images = tiny.pictures(3)
    return Completions(model, images)


def test_a_cover_and_a_number_change_the_sheet(widget):
    sheets = [widget.sheet]
    for name, value in (("where", [0, 0.5, 0, 0.5]), ("number", 2), ("where", [0.5, 1, 0, 1])):
        setattr(widget, name, value)
        sheets.append(widget.sheet)
        assert widget.message == "8 completions, the likeliest first."
    assert len(set(sheets)) == 4
    picture = Image.open(io.BytesIO(widget.sheet))
    assert picture.width > 5 * picture.height
    assert len(widget.pixels) == 16 * 16
    widget.number = 0
    assert widget.sheet == sheets[0], "the same cover of the same image has other completions"


@pytest.mark.parametrize(
    ("name", "value", "sentence"),
    [
        ("number", 3, "There are 3 images: choose a number from 0 to 2, not 3."),
        ("number", -1, "There are 3 images"),
        ("where", [0, 1, 0, 1], "Nothing is left to be seen"),
        ("where", [0.5, 0.5, 0, 1], "A cover goes from lower to higher shares"),
        ("where", [0, 7, 0, 1], "A cover goes"),
    ],
)
def test_what_cannot_be_done_is_a_sentence_and_the_sheet_stays(widget, name, value, sentence):
    sheet = widget.sheet
    setattr(widget, name, value)
    assert widget.message.startswith(sentence)
    assert widget.sheet == sheet


def test_images_that_are_not_the_models_are_refused(widget):
    with pytest.raises(ValueError, match="images must be"):
        Completions(widget._model, torch.rand(2, 1, 28, 28))
    colour = build(tiny.config(channels=3), 0)
    with pytest.raises(ValueError, match="only grey images are covered here"):
        Completions(colour, torch.rand(1, 3, 16, 16))
    with pytest.raises(ValueError, match="There are 1 images"):
        Completions(widget._model, torch.rand(1, 1, 16, 16), number=5)


def test_where_nothing_is_live_a_picture_is_shown(widget):
    content, _ = widget._repr_mimebundle_()
    assert content["image/png"] == widget.sheet
