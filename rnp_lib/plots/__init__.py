"""Figures. Those of trees and curves are here by name; the others are modules of their own."""

# ruff: noqa: F401 (for users)
from rnp_lib.plots.base import COLOURS, PALETTES, STYLE, coloured, corners, grey, show
from rnp_lib.plots.curves import learning_curves, speed
from rnp_lib.plots.trees import centres, parsing, png, reuse, rows, segments, steps, tree
