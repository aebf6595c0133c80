"""How transfer is shown: its controls, what few images give, and which old parts new digits use."""

import matplotlib.pyplot as plt
import numpy as np
import torch
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import LogLocator
from torch import Tensor

from rnp_lib.analysis.controls import CONDITIONS, MODELS, SHOTS, chosen, mean, yardstick
from rnp_lib.analysis.transfer import TASKS
from rnp_lib.model.tree import ProgramTree
from rnp_lib.plots.base import COLOURS, STYLE, coloured, grey, grid, show, turn_colour

WIDTH = 8  # inches
LOOKS = {
    "rnp": {"color": "k", "marker": "o"},
    "vae": {"color": COLOURS[4], "marker": "s"},
    "reference": {"color": COLOURS[1], "marker": "D"},
}
NEW = {"linestyle": "", "markersize": 5, "elinewidth": 0.9}
OLD = {**NEW, "markerfacecolor": "white", "markersize": 4, "alpha": 0.8}
TARGET = {"color": "0.6", "linestyle": "--", "linewidth": 0.9}


@plt.rc_context(STYLE)
def controls(records: dict[str, dict]) -> Figure:
    """For each title the SSE under every condition, of new characters, of old ones where they were
    measured, and the target.

    Args:
        records: of tasks, as `controls.collect` returns them.
    """
    figure, axes = grid(1, len(records), WIDTH, 2.9)
    for cell, (title, record) in zip(axes[0], records.items(), strict=True):
        for model, shift in zip(MODELS, (-0.22, 0, 0.22), strict=True):
            for row, condition in enumerate(CONDITIONS):
                trials = chosen(record, model, condition)
                for which, look in (("old", OLD), ("new", NEW)):
                    if trials and (found := mean(trials, which)):
                        place = {"y": row + shift, "xerr": found[1]}
                        cell.errorbar(found[0], **place, **LOOKS[model], **look)
        cell.axvline(TASKS[record["task"]].target * yardstick(record), **TARGET, zorder=0)
        cell.set(title=title, xscale="log", xlabel="SSE per image", axisbelow=True)
        cell.set(yticks=range(len(CONDITIONS)), ylim=(len(CONDITIONS) - 0.5, -0.5), yticklabels=[])
        cell.xaxis.set_major_locator(LogLocator(subs=(1, 3)))
        cell.xaxis.set_major_formatter("{x:g}")
        cell.xaxis.set_minor_formatter("")
        cell.grid(axis="x", color="0.93", linewidth=0.6)
    axes[0, 0].set_yticklabels(CONDITIONS.values())
    looks = {name: {"linestyle": "", **LOOKS[model]} for model, name in MODELS.items()}
    looks["hollow: old characters"] = looks["RNP"] | {"markerfacecolor": "white"}
    looks["target"] = TARGET
    keys = [Line2D([], [], label=name, **look) for name, look in looks.items()]
    place = {"loc": "outside upper center", "ncols": len(keys)}
    figure.legend(handles=keys, frameon=False, fontsize=8, **place)
    return figure


@plt.rc_context(STYLE)
def budgets(record: dict) -> Figure:
    """How an encoder's error on a new digit falls with the images that it learns from.

    Args:
        record: figures/transfer_7_budgets.json, ratios of three seeds for each budget.
    """
    images = [budget["images"] / 1000 for budget in record["budgets"]]
    ratios = np.array([budget["ratios"] for budget in record["budgets"]])
    figure, ((axes,),) = grid(1, 1, 3.6, 2.4)
    axes.plot(images, ratios, "o-", color="0.6", markersize=3, linewidth=0.8)
    stderr = ratios.std(1, ddof=1) / ratios.shape[1] ** 0.5
    axes.errorbar(images, ratios.mean(1), stderr, color="k", label="mean ± s.e. of seeds")
    axes.axhline(record["target"], **TARGET, label="target")
    axes.set(xlabel="images the encoder learns from, thousands", xlim=0)
    axes.set_ylabel("SSE of 7s / of the\nmodel that saw them")
    axes.set_ylim(top=ratios.max() + 0.08)
    axes.legend(frameon=False, loc="upper right")
    return figure


@plt.rc_context(STYLE)
def shots(drawn: dict[str, Tensor], records: dict[str, dict]) -> Figure:
    """What few images of a digit give: images as they are drawn, and the SSEs behind them.

    Args:
        drawn: by title, pictures (B, 1, H, W) of the same B images.
        records: of digits, by the name of their curve; with the trials of one seed.
    """
    rows = [grey(pictures) for pictures in drawn.values()]
    figure = plt.figure(figsize=(WIDTH, 0.6 * len(rows[0]) + 0.3), layout="constrained")
    width = 0.62 * len(rows)
    left, right = figure.subfigures(1, 2, width_ratios=(width, 7.2 - width))
    cells = left.subplots(len(rows[0]), len(rows), squeeze=False)
    for column, title, pictures in zip(cells.T, drawn, rows, strict=True):
        column[0].set_title(title, fontsize=8)
        for cell, picture in zip(column, pictures, strict=True):
            show(cell, picture)
    axes = right.add_subplot()
    ticks = ["none", *map(str, SHOTS), "all"]
    for colour, (name, record) in zip(COLOURS, records.items(), strict=False):
        every = [chosen(record, "rnp", "none")]
        every += [chosen(record, "rnp", "encoder", n) for n in (*SHOTS, None)]
        sses, stderrs = zip(*map(mean, every), strict=True)
        line = {"color": colour, "marker": "o", "markersize": 4, "linewidth": 1}
        axes.errorbar(range(len(ticks)), sses, stderrs, **line, label=name)
        codes, _ = mean(chosen(record, "rnp", "codes"))
        for height, dash in ((codes, "--"), (yardstick(record), ":")):
            axes.axhline(height, color=colour, linestyle=dash, linewidth=0.9)
    axes.set(xticks=range(len(ticks)), xticklabels=ticks, ylim=0, ylabel="SSE per image")
    axes.set_xlabel("images of the digit that the encoder learns from")
    handles, _ = axes.get_legend_handles_labels()
    for dash, name in (("--", "codes alone"), (":", "model that saw every digit")):
        handles.append(Line2D([], [], color="0.3", linewidth=0.9, linestyle=dash, label=name))
    place = {"loc": "lower left", "bbox_to_anchor": (0, 1), "ncols": 2}
    axes.legend(handles=handles, frameon=False, fontsize=8, **place)
    return figure


@plt.rc_context(STYLE)
def reuse(
    x: Tensor, tree: ProgramTree, donors: list[tuple[ProgramTree, Tensor, Tensor]], parts: Tensor
) -> Figure:
    """Unseen digits, their parts, and the old digits that hold the part nearest to each.

    Args:
        x: the unseen digits (B, 1, H, W), and `tree`, their parse, of τ parts.
        donors: for each part B old digits as trees, which of their children is the nearest part
            (B,), and their labels (B,).
        parts: what the nearest parts draw in the place of the digits' own, (B, τ, 1, H, W).
    """
    pictures = [("input", grey(x), "0.75", None), ("parts", coloured(tree.parts), "0.75", None)]
    for t, (donor, turns, labels) in enumerate(donors):
        own = coloured(_only(tree.children[t].canvas, t))
        pictures.append((f"part {t + 1}", own, turn_colour(t), None))
        pictures.append(("nearest in", _highlighted(donor, turns, t), "0.75", labels))
    pictures.append(("drawn by\nthese", coloured(parts), "0.75", None))
    figure = plt.figure(figsize=(WIDTH, 0.76 * len(x) + 0.35))
    room = {"left": 0.005, "right": 0.995, "wspace": 0.1, "hspace": 0.1}
    axes = figure.subplots(len(x), len(pictures), squeeze=False, gridspec_kw=room)
    for column, (title, every, border, labels) in zip(axes.T, pictures, strict=True):
        column[0].set_title(title, fontsize=8)
        for row, (cell, picture) in enumerate(zip(column, every, strict=True)):
            show(cell, picture, border)
            if labels is not None:
                corner = {"transform": cell.transAxes, "ha": "right", "va": "bottom"}
                cell.text(0.97, 0.02, str(int(labels[row])), fontsize=8, **corner)
    return figure


def _highlighted(tree: ProgramTree, turns: Tensor, t: int) -> np.ndarray:
    """Canvases with one child of each, number `turns` (B,), in the colour of turn t; (B, H, W, 3).

    The rest is pale.
    """
    one = tree.parts.cpu()[torch.arange(len(turns)), turns.cpu()]
    rest = tree.parts.cpu().sum(1) - one
    return np.clip(coloured(_only(one, t)) - 0.25 * (1 - grey(rest)), 0, 1)


def _only(canvas: Tensor, t: int) -> Tensor:
    """A canvas (B, 1, H, W) as part t of a tree with nothing before it, (B, t + 1, 1, H, W)."""
    return torch.stack([torch.zeros_like(canvas)] * t + [canvas], 1)
