"""Figure 4 a, b: a map of the programs of two levels, and what the programs of a cluster draw."""

from collections.abc import Sequence
from dataclasses import dataclass

import matplotlib.pyplot as plt
import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch import Tensor

from rnp_lib.analysis import programs
from rnp_lib.analysis.topography import RootsAndParts, clusters, tsne
from rnp_lib.model.rnp import RNP
from rnp_lib.plots.base import COLOURS, STYLE, grey, grid, show, turn_colour

GROUPS = (*COLOURS, "#7f7f7f", "#bcbd22")
DARK = "0.15"
PANEL, PICTURE = 4.1, 0.4  # sides, inches


@dataclass
class Level:
    """N programs of one level on the map.

    Attributes:
        at: (N, 2), where they lie on it.
        groups: int (N,), indices into `names`, which the legend lists.
        shown: int (k,), those whose `pictures` (k, 1, H, W) are drawn.
    """

    at: np.ndarray
    groups: np.ndarray
    names: Sequence[str]
    shown: np.ndarray
    pictures: Tensor


def mapped(model: RNP, found: RootsAndParts, labels: Tensor, shown: int, seed: int = 0) -> Figure:
    """Figure 4a of the programs of N images, with `shown` clusters of each level as pictures.

    labels: (N,), of the images.
    """
    at, n, depth = (
        tsne(torch.cat([found.roots, found.parts]), seed),
        len(labels),
        model.config.depth,
    )
    classes, groups = labels.unique(return_inverse=True)
    wholes = [str(label) for label in classes.tolist()]
    turns = [f"part {t + 1}" for t in range(model.config.tau[0])]
    levels = []
    for level, z, place, group, names in (
        (depth, found.roots, at[:n], groups, wholes),
        (depth - 1, found.parts, at[n:], found.turns, turns),
    ):
        nearest = clusters(z, shown, seed).nearest
        pictures = programs.draw(model, z[nearest], level)
        levels.append(Level(place, group.numpy(), names, nearest, pictures))
    return topography(*levels)


@plt.rc_context(STYLE)
def topography(roots: Level, parts: Level) -> Figure:
    """Figure 4a: the map with parts in colour, and the roots' region of it enlarged, in colour too.

    A picture stands near its program where it hides few others, in the colour of its group.
    """
    figure, ((whole, zoom),) = grid(1, 2, 2 * PANEL + 0.2, PANEL + 0.6)
    everything = np.concatenate([roots.at, parts.at])
    _panel(whole, everything)
    _panel(zoom, roots.at)
    dots = {"s": 6 if len(everything) < 2_000 else 3, "linewidths": 0, "rasterized": True}
    whole.scatter(*roots.at.T, color=DARK, **dots)
    zoom.scatter(*parts.at.T, color="0.8", **dots)
    _level(whole, parts, everything, dots, {"whole": DARK})
    _level(zoom, roots, everything, dots, {})
    region = zoom.viewLim
    frame = plt.Rectangle(region.min, *region.size, fill=False, edgecolor="0.4", linewidth=0.8)
    whole.add_patch(frame)
    whole.set_title("wholes, $z^2$, and parts, $z^1$, by turn")
    zoom.set_title("framed region enlarged: wholes, $z^2$, by class")
    return figure


def _panel(axes: Axes, points: np.ndarray) -> None:
    """A square without ticks around points (N, 2), with room for pictures at its border."""
    middle, side = (points.max(0) + points.min(0)) / 2, np.ptp(points, 0).max()
    half = side / 2 * PANEL / (PANEL - 2.4 * PICTURE)
    axes.set(xlim=middle[0] + [-half, half], ylim=middle[1] + [-half, half])
    axes.set(xticks=[], yticks=[], aspect="equal")
    axes.spines[:].set(edgecolor="0.75")


def _level(
    axes: Axes, level: Level, everything: np.ndarray, dots: dict, legend: dict[str, str]
) -> None:
    """The points of a level in its colours, its pictures, and a legend of it and what is given."""
    colours = [turn_colour(i, GROUPS) for i in range(len(level.names))]
    order = np.random.default_rng(0).permutation(len(level.at))  # no group lies on another
    c = [colours[group] for group in level.groups[order]]
    axes.scatter(*level.at[order].T, c=c, **dots)
    legend = legend | dict(zip(level.names, colours, strict=True))
    axes.legend(
        [axes.scatter([], [], s=25, color=colour, linewidths=0) for colour in legend.values()],
        legend,
        loc="upper center",
        bbox_to_anchor=(0.5, 0),
        ncols=len(legend),
        frameon=False,
        handletextpad=0,
        columnspacing=0.3,
    )
    points, side = level.at[level.shown], np.ptp(axes.get_xlim()) * PICTURE / PANEL
    corners = _room(points, everything, side, axes)
    for point, corner, group, picture in zip(
        points, corners, level.groups[level.shown], grey(level.pictures), strict=True
    ):
        axes.plot(*zip(point, corner + side / 2, strict=True), color="0.2", lw=0.7, zorder=3)
        axes.plot(*point, "o", color=colours[group], mec="0.2", mew=0.7, ms=4, zorder=4)
        cell = axes.inset_axes([*corner, side, side], transform=axes.transData, zorder=5)
        show(cell, picture, colours[group], 1.6)


def _room(points: np.ndarray, others: np.ndarray, side: float, axes: Axes) -> np.ndarray:
    """Lower left corners (k, 2) of squares near `points` (k, 2) that do not overlap.

    Hiding one in 600 of `others` (N, 2), or one of the points, costs as much as a distance of one
    side; two sides cost four times that. Squares take places one by one, in the cheapest of 200
    orders.
    """
    low, high = axes.viewLim.min + 0.15 * side, axes.viewLim.max - 1.15 * side
    grid = [np.linspace(a, b, 60) for a, b in zip(low, high, strict=True)]
    corners = np.stack(np.meshgrid(*grid, indexing="ij"), -1).reshape(-1, 2)

    def inside(points):
        x, y = (
            (g[:, None] < p) & (p < g[:, None] + side) for g, p in zip(grid, points.T, strict=True)
        )
        return (x.astype(float) @ y.T).ravel()  # how many points a square at each corner hides

    hidden = 600 * inside(others) / len(others) + inside(points)
    away = np.linalg.norm(corners[:, None] + side / 2 - points, axis=-1) / side
    cost = hidden[:, None] + away**2
    generator, best, found = np.random.default_rng(0), np.inf, None
    for _ in range(200):
        taken, total, places = np.zeros(len(corners)), 0, np.empty_like(points)
        for i in generator.permutation(len(points)):
            place = (cost[:, i] + taken).argmin()
            total += cost[place, i] + taken[place]
            taken[(abs(corners - corners[place]) < 1.12 * side).all(1)] = 1e6
            places[i] = corners[place]
        if total < best:
            best, found = total, places
    return found


@plt.rc_context(STYLE)
def blocks(roots: Sequence[Tensor], parts: Sequence[Sequence[Tensor]]) -> Figure:
    """Figure 4b: every cluster a block of pictures, each (n, 1, H, W), of some of its members.

    Args:
        roots: blocks of the left column, from top to bottom.
        parts: for every turn, the blocks of its column; a column may be shorter than others.
    """
    columns = [roots, *parts]
    titles = ["wholes, $z^2$", *(f"parts, $z^1$, turn {t + 1}" for t in range(len(parts)))]
    colours = [DARK, *map(turn_colour, range(len(parts)))]
    rows = max(map(len, columns))
    figure, every = grid(rows, len(columns), 2 * len(columns), 1.55 * rows + 0.2)
    # On screen: at 100, a notebook that holds this figure is half as large again.
    figure.set_dpi(80)
    for cells, column, title, colour in zip(every.T, columns, titles, colours, strict=True):
        cells[0].set_title(title)
        for axes, pictures in zip(cells, column, strict=False):
            show(axes, _mosaic(pictures), colour, 1.6)
        for axes in cells[len(column) :]:
            axes.axis("off")
    return figure


def _mosaic(pictures: Tensor) -> np.ndarray:
    """Pictures (n, 1, H, W) in rows of four, each about 84 pixels wide: one (H', W', 3)."""
    across, times = 4, max(1, round(84 / pictures.shape[-1]))
    cells = grey(pictures).repeat(times, 1).repeat(times, 2)
    missing = [(0, -len(cells) % across), (0, 0), (0, 0), (0, 0)]
    cells = np.pad(cells, missing, constant_values=1)
    cells = np.pad(cells, [(0, 0), (2, 2), (2, 2), (0, 0)], constant_values=0.85)
    side = cells.shape[1]
    lines = cells.reshape(-1, across, side, side, 3).swapaxes(1, 2)
    return lines.reshape(-1, across * side, 3)
