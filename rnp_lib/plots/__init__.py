"""Figures. Those of trees and curves are here by name; the others are modules of their own."""

from rnp_lib.plots.base import (
    COLOURS,
    PALETTES,
    SAFE,
    STYLE,
    coloured,
    corners,
    grey,
    outline,
    show,
)
from rnp_lib.plots.curves import learning_curves, speed
from rnp_lib.plots.trees import parsing, reuse, rows, segments, steps, tree, windows

__all__ = [
    "COLOURS",
    "PALETTES",
    "SAFE",
    "STYLE",
    "coloured",
    "corners",
    "grey",
    "learning_curves",
    "outline",
    "parsing",
    "reuse",
    "rows",
    "segments",
    "show",
    "speed",
    "steps",
    "tree",
    "windows",
]
