"""The pen strokes of Omniglot's drawings: how people drew the characters that the images show.

They were published for the two small background sets, eight alphabets in all.
"""

from typing import NamedTuple

import numpy as np

from rnp_lib import alphabets
from rnp_lib.data import archives

SIDE = 105  # pixels, of the images that people drew on
ARCHIVES = ("strokes_background_small1.zip", "strokes_background_small2.zip")


class Drawing(NamedTuple):
    """How one image was drawn.

    Attributes:
        index: of the image in `data.load("omniglot")`.
        label: its character.
        strokes: one array float64 (P, 2) for each, of the pen's places (x, y) in pixels of SIDE;
            x to the right, y down, 0 at the middle of the first pixel.
    """

    index: int
    label: int
    strokes: list[np.ndarray]


def drawings() -> list[Drawing]:
    """The 4,840 drawings of `alphabets.WITH_STROKES`, in the order of their images.

    Raises DataUnavailable if they cannot be had.
    """
    first = {name: alphabets.labels(name)[0] for name in alphabets.WITH_STROKES}
    found = {}
    for archive in ARCHIVES:
        for (alphabet, character, file), text in archives.read(archive).items():
            label = first[alphabet] + int(character.removeprefix("character")) - 1
            drawer = int(file.removesuffix(".txt").split("_")[1]) - 1
            index = label * alphabets.DRAWERS + drawer
            # Greek and Latin are in both archives.
            found[index] = Drawing(index, label, _strokes(text.decode()))
    return [found[index] for index in sorted(found)]


def _strokes(text: str) -> list[np.ndarray]:
    """The strokes of a file: lines "x,y,ms" with y up from the top, START, and BREAK after each."""
    strokes, places = [], []
    for line in text.split():
        if line == "BREAK":
            strokes.append(np.array(places))
            places = []
        elif line != "START":
            x, y, _ = map(float, line.split(","))
            places.append((x, -y))
    return [stroke for stroke in strokes if len(stroke)]
