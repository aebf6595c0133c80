"""What all figures share: their style, the colours of turns, and how pictures are shown."""

from collections.abc import Collection

import matplotlib.pyplot as plt
import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from torch import Tensor

from rnp_lib.model.tree import ProgramTree, ink

# The paper's order of drawing: blue, red, green, orange (then more, for programs of more steps).
COLOURS = ("#1f77b4", "#d62728", "#2ca02c", "#ff7f0e", "#9467bd", "#8c564b", "#e377c2", "#17becf")
# For colour-blind readers: P. Tol's "bright" scheme (2021), in an order whose first four dichromats
# of every kind can tell from one another.
SAFE = ("#4477aa", "#ee6677", "#66ccee", "#ccbb44", "#228833", "#aa3377", "#bbbbbb", "#000000")
PALETTES = {"paper": COLOURS, "colour-blind": SAFE}
STYLE = {
    "font.size": 9,
    "axes.titlesize": 9,
    "figure.dpi": 75,
    "image.interpolation": "nearest",
    "axes.linewidth": 0.6,
    "pdf.fonttype": 42,
}


def turn_colour(t: int, colours: tuple[str, ...] = COLOURS) -> str:
    """The colour of a program's t-th child, from 0."""
    return colours[t % len(colours)]


def grey(canvas: Tensor) -> np.ndarray:
    """Canvases (B, C, H, W), the grey as dark ink on white, those in colour as they are:
    (B, H, W, 3) in [0, 1]."""
    canvas = canvas.detach().cpu().clamp(0, 1).movedim(1, -1)
    return (canvas if canvas.shape[-1] == 3 else (1 - canvas).expand(-1, -1, -1, 3)).numpy()


def coloured(parts: Tensor, colours: tuple[str, ...] = COLOURS) -> np.ndarray:
    """Placed parts (B, τ, C, H, W), each in the colour of its turn, on white, (B, H, W, 3).

    Where parts overlap their inks mix; an ink above 1 counts as 1.
    """
    drawn = ink(parts.detach().cpu()).clamp(0, 1).squeeze(2).movedim(1, -1)  # (B, H, W, τ)
    shade = 1 - torch.tensor([to_rgb(turn_colour(t, colours)) for t in range(parts.shape[1])])
    return (1 - (drawn @ shade).clamp(0, 1)).numpy()


def grid(rows: int, columns: int, width: float, height: float) -> tuple[Figure, np.ndarray]:
    """A figure of `width` by `height` inches and its axes (rows, columns)."""
    return plt.subplots(rows, columns, figsize=(width, height), squeeze=False, layout="constrained")


def square(figure: Figure, left: float, bottom: float, side: float) -> Axes:
    """Square axes at a place in a figure, all in inches."""
    width, height = figure.get_size_inches()
    return figure.add_axes([left / width, bottom / height, side / width, side / height])


def show(axes: Axes, picture: np.ndarray, border: str = "0.75", width: float = 0) -> None:
    """One picture (H, W, 3) in axes without ticks, its border as wide as theirs or `width`."""
    axes.imshow(picture)
    axes.set(xticks=[], yticks=[])
    axes.spines[:].set(edgecolor=border, linewidth=width or plt.rcParams["axes.linewidth"])


def outline(axes: Axes, corners: np.ndarray, colour: str) -> None:
    """A window given by its corners (4, 2), in pixels of the picture in `axes`."""
    axes.fill(*corners.T, fill=False, edgecolor=colour, linewidth=1)


def corners(matrix: Tensor) -> Tensor:
    """Where an affine map (2, 3) takes a frame's corners (4, 2), in shares of a picture's side."""
    frame = torch.tensor([[-1.0, 1, 1, -1], [-1, -1, 1, 1], [1, 1, 1, 1]])
    return (matrix.detach().cpu() @ frame).mT.add(1) / 2


def outline_children(
    axes: Axes,
    tree: ProgramTree,
    margin: float,
    colours: tuple[str, ...] = COLOURS,
    hidden: Collection[int] = (),
) -> None:
    """The windows of the children of one image's tree in `axes` that show its canvas, but for the
    turns in `hidden`, with room of `margin` pixels around the canvas."""
    size = tree.canvas.shape[-1]
    for t, child in enumerate(tree.children):
        if t not in hidden:
            window = corners(child.affine[0]) * (size - 1)
            outline(axes, window.numpy(), turn_colour(t, colours))
    low, high = -0.5 - margin, size - 0.5 + margin
    axes.set(xlim=(low, high), ylim=(high, low))
