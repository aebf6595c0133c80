"""Drawings and uploads come out framed as the data set's images."""

import io

import numpy as np
import pytest
import torch
from PIL import Image

from rnp_lib import data
from rnp_lib.explorer import drawings

SEVEN = [[(0.1, 0.1), (0.3, 0.1), (0.2, 0.5)]]


def png(pixels, mode=None):
    file = io.BytesIO()
    Image.fromarray(np.asarray(pixels, np.uint8), mode).save(file, "PNG")
    return file.getvalue()


def box(image):
    rows, columns = (np.flatnonzero((image[0, 0] > 0.1).any(axis)) for axis in (1, 0))
    return rows[-1] - rows[0] + 1, columns[-1] - columns[0] + 1


def centre(image):
    mass = image[0, 0].double()
    line = torch.arange(len(mass)) + 0.5
    return [float((mass.sum(1 - axis) * line).sum() / mass.sum()) for axis in (0, 1)]


@pytest.mark.parametrize("scale", [1.0, 0.4])
@pytest.mark.parametrize("shift", [0.0, 0.5])
def test_a_drawing_is_framed_as_mnist_is_wherever_it_lies_on_the_pad(scale, shift):
    strokes = [[(x * scale + shift, y * scale + shift) for x, y in SEVEN[0]]]
    image = drawings.from_strokes(strokes, "mnist", 28)
    assert image.shape == (1, 1, 28, 28)
    assert image.dtype == torch.float32
    assert 0.9 < image.max() <= 1
    assert max(box(image)) in (20, 21)
    assert centre(image) == pytest.approx([14, 14], abs=0.1)


@pytest.mark.full_data
def test_lines_are_as_wide_as_those_of_the_test_digits():
    def width(images):
        x = images[:, 0]
        edges = x.diff(dim=1).abs().sum((1, 2)) + x.diff(dim=2).abs().sum((1, 2))
        return (2 * 1.27 * x.sum((1, 2)) / edges).mean().item()

    found = drawings.from_strokes(SEVEN, "mnist", 28)
    assert width(found) == pytest.approx(width(data.load("mnist", "test")[0]), rel=0.2)


def test_a_dot_is_a_dot():
    image = drawings.from_strokes([[(0.2, 0.9)]], "mnist", 28)
    assert max(box(image)) <= 4
    assert centre(image) == pytest.approx([14, 14], abs=0.1)


def test_scenes_stay_as_they_are_drawn():
    image = drawings.from_strokes([[(0.2, 0.25), (0.2, 0.26)]], "scenes", 56)
    assert image.shape == (1, 1, 56, 56)
    assert centre(image) == pytest.approx([0.255 * 56, 0.2 * 56], abs=0.5)


@pytest.mark.parametrize("dark_on_white", [True, False])
def test_an_upload_is_framed_alike_whatever_its_size_and_polarity(dark_on_white):
    ink = np.zeros((300, 200))
    ink[50:250, 40:70] = 255
    image = drawings.from_png(png(255 - ink if dark_on_white else ink), "mnist", 28)
    assert max(box(image)) == 20
    assert centre(image) == pytest.approx([14, 14], abs=0.1)
    assert image.max() == 1


def test_transparent_parts_of_an_upload_are_paper():
    pixels = np.zeros((40, 40, 4))
    pixels[10:30, 18:22, 3] = 255  # black on nothing
    image = drawings.from_png(png(pixels, "RGBA"), "mnist", 28)
    assert max(box(image)) == 20


def test_for_a_model_in_colour_a_drawing_is_black_on_white():
    grey = drawings.from_strokes(SEVEN, "mnist", 28)
    colour = drawings.from_strokes(SEVEN, "mnist", 28, channels=3)
    assert torch.equal(colour, 1 - grey.expand(-1, 3, -1, -1))


def test_an_upload_in_colour_stays_as_it_is_but_is_square():
    pixels = np.full((40, 20, 3), (200, 100, 50))
    pixels[10:30, 5:15] = (0, 50, 250)
    image = drawings.from_png(png(pixels, "RGB"), "mnist", 20, channels=3)
    ground = torch.tensor([200, 100, 50])[None, :, None, None] / 255
    assert image.shape == (1, 3, 20, 20)
    torch.testing.assert_close(image[..., :5], ground.expand(1, 3, 20, 5))
    assert (image[0, :, 10, 10] * 255).round().tolist() == [0, 50, 250]


@pytest.mark.parametrize(
    ("strokes", "words"),
    [
        ([], "nothing is drawn yet"),
        ([[]], "nothing is drawn yet"),
        ("abc", "a list of strokes"),
        ([[(0, 1, 2)]], "a list of strokes"),
        ([[(float("nan"), 0.5)]], "finite"),
        ([[(0.5, 0.5)] * 20_001], "at most 20,000 points"),
    ],
)
def test_what_is_no_drawing_is_refused_in_one_sentence(strokes, words):
    with pytest.raises(ValueError, match=words):
        drawings.from_strokes(strokes, "mnist", 28)


def test_a_drawing_outside_the_pad_is_refused():
    with pytest.raises(ValueError, match="outside the pad"):
        drawings.from_strokes([[(5.0, 5.0)]], "scenes", 56)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "not a PNG"),
        (b"GIF89a", "not a PNG"),
        (png(np.full((9, 9), 255))[:40], "not a PNG"),
        (png(np.full((9, 9), 255)), "shows nothing"),
        (png(np.zeros((4100, 4000))), "4000×4100 pixels"),
        (b"x" * 5_000_001, "5.0 MB: choose one of 5 MB or less"),
    ],
)
def test_what_is_no_picture_is_refused_in_one_sentence(content, words):
    with pytest.raises(ValueError, match=words):
        drawings.from_png(content, "mnist", 28)
