"""The pen strokes of Omniglot's drawings: how people drew the characters that the images show.

They were published for the two small background sets, eight alphabets in all, in two archives:
github.com/brendenlake/omniglot, folder python.
"""

import hashlib
import os
import urllib.request
import zipfile
from pathlib import Path
from typing import NamedTuple

import numpy as np

from rnp_lib import alphabets
from rnp_lib.data import sources
from rnp_lib.data.official import Corrupt
from rnp_lib.data.sources import DataUnavailable
from rnp_lib.files import replacing

URL = "https://raw.githubusercontent.com/brendenlake/omniglot/master/python"
SIDE = 105  # pixels, of the images that people drew on
ARCHIVES = {  # digest of the text files that each holds
    "strokes_background_small1": "f055e54545ee2aab1e668a0766ed8c318334994231ff91d3f9aba5ee88e2827e",
    "strokes_background_small2": "b38a4e551d767343e9262c59ee1f5fcbedcdd746bdba79730d88c1d1dcab2ff0",
}


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

    An archive is looked for under RNP_DATA and in data/, and else downloaded; what it holds is
    checked. Raises DataUnavailable if that fails.
    """
    first = {name: alphabets.labels(name)[0] for name in alphabets.WITH_STROKES}
    found = {}
    for archive in ARCHIVES:
        for (alphabet, character, file), text in _texts(archive).items():
            label = first[alphabet] + int(character.removeprefix("character")) - 1
            drawer = int(file.removesuffix(".txt").split("_")[1]) - 1
            index = label * alphabets.DRAWERS + drawer
            # Greek and Latin are in both archives.
            found[index] = Drawing(index, label, _strokes(text.decode()))
    return [found[index] for index in sorted(found)]


def _texts(archive: str) -> dict[tuple[str, ...], bytes]:
    """The text files of an archive by alphabet, character and file."""
    tried = []
    for root in [Path(at).expanduser() for at in (os.environ.get("RNP_DATA"), sources.DATA) if at]:
        path = root / "omniglot-py" / f"{archive}.zip"
        try:
            return _read(path, archive)
        except FileNotFoundError:
            tried.append(f"{path} is not there")
        except (OSError, zipfile.BadZipFile, Corrupt) as error:
            tried.append(f"{path}: {error}")
    url = f"{URL}/{archive}.zip"
    if os.environ.get("RNP_OFFLINE") != "1":
        try:
            with (
                urllib.request.urlopen(url, timeout=sources.PATIENCE) as page,
                replacing(sources.DATA / "omniglot-py" / f"{archive}.zip") as temporary,
            ):
                temporary.write_bytes(page.read())
                return _read(temporary, archive)
        except (OSError, zipfile.BadZipFile, Corrupt) as error:
            tried.append(f"{url}: {error}")
    raise DataUnavailable(
        f"Omniglot's pen strokes are not available ({'; '.join(tried)}): put {archive}.zip, of "
        f"github.com/brendenlake/omniglot, into {sources.DATA / 'omniglot-py'}."
    )


def _read(path: Path, archive: str) -> dict[tuple[str, ...], bytes]:
    with zipfile.ZipFile(path) as opened:
        names = sorted(name for name in opened.namelist() if name.endswith(".txt"))
        texts = {tuple(name.split("/")[-3:]): opened.read(name) for name in names}
    if _digest(texts) != ARCHIVES[archive]:
        raise Corrupt("it does not hold the official strokes")
    return texts


def _digest(texts: dict[tuple[str, ...], bytes]) -> str:
    found = hashlib.sha256()
    for name, text in sorted(texts.items()):
        found.update("/".join(name).encode() + b"\0" + text + b"\0")
    return found.hexdigest()


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
