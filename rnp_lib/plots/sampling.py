"""How samples of the prior are shown: as sheets, beside their neighbours, and in program space."""

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Patch, Rectangle
from torch import Tensor

from rnp_lib.model.tree import ProgramTree
from rnp_lib.plots.base import COLOURS, STYLE, coloured, grey, grid

WIDTH = 8  # inches
PAD = 0.04  # white around a picture, in sides of a picture
ORDER = ("first", "second", "third", "fourth", "fifth", "sixth", "seventh", "eighth")
SOURCES = ("#9467bd", "0.4", "#17becf")  # not the colours of parts


def _sheet(axes: Axes, rows: list[np.ndarray], columns: int) -> None:
    """One frame for each of N samples, in lines of `columns`: its picture in each of `rows`, arrays
    (N, H, W, 3), one below another."""
    wide, high = 1 + 2 * PAD, len(rows) + (len(rows) + 1) * PAD  # a frame
    lines, gap = -(-len(rows[0]) // columns), 3 * PAD
    for i, pictures in enumerate(zip(*rows, strict=True)):
        x, y = i % columns * (wide + gap), i // columns * (high + 2 * gap)
        for r, picture in enumerate(pictures):
            left, top = x + PAD, y + PAD + r * (1 + PAD)
            axes.imshow(picture, extent=(left, left + 1, top + 1, top))
        frame = {"fill": False, "edgecolor": "0.75", "linewidth": 0.6, "clip_on": False}
        axes.add_patch(Rectangle((x, y), wide, high, **frame))
    right, bottom = columns * (wide + gap) - gap, lines * (high + 2 * gap) - 2 * gap
    axes.set(xlim=(0, right), ylim=(bottom, 0))
    axes.set_axis_off()


@plt.rc_context(STYLE)
def _sheets(blocks: dict[str, list[np.ndarray]], columns: int, below: float = 0.02) -> Figure:
    """One sheet for each title, side by side, with `below` inches of white under them."""
    margin, title_height = 0.02, 0.28  # inches
    width = (WIDTH - 2 * margin - (len(blocks) - 1) * 0.22) / len(blocks)
    figure = plt.figure()
    for title, rows in blocks.items():
        _sheet(figure.add_axes((0, 0, 1, 1), title=title, label=title), rows, columns)
    heights = [width * abs(axes.viewLim.height / axes.viewLim.width) for axes in figure.axes]
    total = max(heights) + title_height + below
    figure.set_size_inches(WIDTH, total)
    for i, (axes, height) in enumerate(zip(figure.axes, heights, strict=True)):
        place = (margin + i * (width + 0.22), total - title_height - height, width, height)
        axes.set_position(np.array(place) / np.tile((WIDTH, total), 2))
    return figure


def samples(trees: dict[str, ProgramTree], columns: int = 5) -> Figure:
    """Figure 5: for each title every canvas, and below it the same with its parts coloured."""
    blocks = {t: [grey(tree.canvas), coloured(tree.parts)] for t, tree in trees.items()}
    figure = _sheets(blocks, columns, below=0.32)
    parts = max(len(tree.children) for tree in trees.values())
    keys = [Patch(color=c, label=f"{word} part") for c, word in zip(COLOURS, ORDER, strict=True)]
    # Anchored: a legend without an anchor slides down onto what a record's stamp adds below.
    place = {"loc": "lower center", "bbox_to_anchor": (0.5, 0), "borderaxespad": 0}
    look = {"ncols": parts, "frameon": False, "handlelength": 1, "borderpad": 0.2}
    with plt.rc_context(STYLE):
        figure.legend(handles=keys[:parts], **place, **look)
    return figure


def neighbours(pairs: dict[str, tuple[Tensor, Tensor]]) -> Figure:
    """For each title images (N, 1, H, W), and below each the training image nearest to it."""
    blocks = {title: [grey(images), grey(near)] for title, (images, near) in pairs.items()}
    return _sheets(blocks, columns=max(len(images) for images, _ in pairs.values()))


@plt.rc_context(STYLE)
def program_space(
    stds: dict[str, tuple[Tensor, Tensor]], distances: dict[str, dict[str, Tensor]]
) -> Figure:
    """For each title, above, how the posteriors fill each dimension; below, how far programs lie
    from those of training images.

    Args:
        stds: standard deviation of the posterior means, and root mean square of the posterior
            standard deviations, (|z|,) each; their squares add up to the aggregate's variance.
        distances: for each title, distances (N,) of the programs of some sources, by their names.
    """
    figure, axes = grid(2, len(stds), WIDTH, 4.2)
    for (above, below), title in zip(axes.T, stds, strict=True):
        means, noise = (std.cpu().numpy() for std in stds[title])
        order = np.argsort(-means)
        above.axhline(1, color="0.6", linewidth=1, linestyle="--", label="prior")
        above.plot(np.hypot(means, noise)[order], color="k", label="all posteriors together")
        above.plot(means[order], color=COLOURS[0], label="posterior means")
        above.plot(noise[order], color=COLOURS[3], label="one image's posterior")
        above.set(title=title, xlabel="dimension of $z^2$, sorted", ylim=0)
        every = {source: d.cpu().numpy() for source, d in distances[title].items()}
        bins = np.histogram_bin_edges(np.concatenate([*every.values()]), 40)
        for colour, (source, d) in zip(SOURCES, every.items(), strict=True):
            below.hist(d, bins, histtype="step", color=colour, linewidth=1.3, label=source)
        below.set(xlabel="distance to training programs", yticks=[])
    axes[0, 0].set_ylabel("standard deviation")
    axes[1, 0].set_ylabel("programs")
    for cell, where in zip(axes[:, 0], ("upper", "lower"), strict=True):
        handles, labels = cell.get_legend_handles_labels()
        place = {"loc": f"outside {where} center", "ncols": len(labels)}
        figure.legend(handles, labels, frameon=False, **place)
    return figure
