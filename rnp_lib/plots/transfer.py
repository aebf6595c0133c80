"""How transfer is shown: its controls, what few images give, and which old parts new digits use."""

import matplotlib.pyplot as plt
import numpy as np
import torch
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import LogLocator, PercentFormatter
from torch import Tensor

from rnp_lib.analysis import heldout
from rnp_lib.analysis.controls import CONDITIONS, FEW, MODELS, SAW, SHOTS
from rnp_lib.analysis.fewshot import KINDS
from rnp_lib.analysis.heldout import of_digit
from rnp_lib.analysis.transfer import TASKS
from rnp_lib.analysis.trials import chosen, mean, yardstick
from rnp_lib.model.tree import ProgramTree
from rnp_lib.plots.base import COLOURS, STYLE, coloured, grey, grid, show, turn_colour

WIDTH = 8  # inches
LOOKS = {
    "tree": {"color": "k", "marker": "o"},
    "root": {"color": COLOURS[0], "marker": "^"},
    "vae": {"color": COLOURS[3], "marker": "s"},
    "wide": {"color": COLOURS[1], "marker": "D"},
}
NEW = {"linestyle": "", "markersize": 4.5, "elinewidth": 0.9}
OLD = {**NEW, "markerfacecolor": "white", "markersize": 3.5, "alpha": 0.8}
TARGET = {"color": "0.4", "linewidth": 1.2}
SCORES = {"sse": "SSE per image", "nats": "−ELBO, nats"}


@plt.rc_context(STYLE)
def controls(records: dict[str, dict]) -> Figure:
    """For each title the SSE and the −ELBO under every condition, of new characters, of old ones
    where they were measured, and the targets. A random decoder, whose errors are ten times as
    large, is left to the table.

    Args:
        records: of tasks, as `controls.collect` returns them.
    """
    rows = [
        (condition, False, what) for condition, what in CONDITIONS.items() if condition != "random"
    ]
    rows += [(condition, True, f"saw them, {CONDITIONS[condition]}") for condition in SAW]
    figure, axes = grid(2, len(records), WIDTH, 4.6)
    for column, (title, record) in zip(axes.T, records.items(), strict=True):
        column[0].set_title(title)
        for cell, (score, label) in zip(column, SCORES.items(), strict=True):
            for (model, look), shift in zip(LOOKS.items(), (-0.27, -0.09, 0.09, 0.27), strict=True):
                for row, (condition, saw, _) in enumerate(rows):
                    trials = chosen(record, model, condition, saw)
                    for which, filled in (("old", OLD), ("new", NEW)):
                        if found := mean(trials, score, which):
                            place = {"y": row + shift, "xerr": found[1]}
                            cell.errorbar(found[0], **place, **look, **filled)
            cell.set(xscale="log", xlabel=label, axisbelow=True, yticks=range(len(rows)))
            cell.set(ylim=(len(rows) - 0.5, -0.5), yticklabels=[])
            cell.xaxis.set_major_locator(LogLocator(subs=(1, 2, 3, 5)))
            cell.xaxis.set_major_formatter("{x:g}")
            cell.xaxis.set_minor_formatter("")
            cell.grid(axis="x", color="0.93", linewidth=0.6)
            for row in range(len(rows) - 1):
                cell.axhline(row + 0.5, color="0.93", linewidth=0.6)
        for row, (condition, saw, _) in enumerate(rows):
            if not saw and (target := TASKS[record["task"]].targets().get(condition)):
                column[0].vlines(target * yardstick(record), row - 0.45, row + 0.45, **TARGET)
    for cell in axes[:, 0]:
        cell.set_yticklabels([what for *_, what in rows])
    there = {trial["model"] for record in records.values() for trial in record["trials"]}
    looks = {
        MODELS[model]: {"linestyle": "", **look} for model, look in LOOKS.items() if model in there
    }
    looks["hollow: old characters"] = looks[MODELS["tree"]] | {"markerfacecolor": "white"}
    looks["target of the tree"] = {**TARGET, "linestyle": "", "marker": "|", "markersize": 9}
    keys = [Line2D([], [], label=name, **look) for name, look in looks.items()]
    place = {"loc": "outside upper center", "ncols": len(keys), "columnspacing": 1.2}
    figure.legend(handles=keys, frameon=False, fontsize=7.5, **place)
    return figure


@plt.rc_context(STYLE)
def shots(drawn: dict[str, Tensor], records: dict[str, dict]) -> Figure:
    """What few images of a digit give the tree of seed 0: images as they are drawn, and the SSEs
    behind them.

    Args:
        drawn: by title, pictures (B, 1, H, W) of the same B images.
        records: of digits, by the name of their curve.
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
        every = [chosen(record, "tree", "none", seed=0)]
        every += [chosen(record, "tree", "inference", shots=n, seed=0) for n in (*SHOTS, None)]
        sses, stderrs = zip(*map(mean, every), strict=True)
        line = {"color": colour, "marker": "o", "markersize": 4, "linewidth": 1}
        axes.errorbar(range(len(ticks)), sses, stderrs, **line, label=name)
        codes, _ = mean(chosen(record, "tree", "codes", seed=0))
        for height, dash in ((codes, "--"), (yardstick(record, seed=0), ":")):
            axes.axhline(height, color=colour, linestyle=dash, linewidth=0.9)
    axes.set(xticks=range(len(ticks)), xticklabels=ticks, ylim=0, ylabel="SSE per image")
    axes.set_xlabel("images of the digit that inference learns from")
    handles, _ = axes.get_legend_handles_labels()
    for dash, name in (("--", "codes by descent"), (":", "tree that saw every digit")):
        handles.append(Line2D([], [], color="0.3", linewidth=0.9, linestyle=dash, label=name))
    place = {"loc": "lower left", "bbox_to_anchor": (0, 1), "ncols": 2}
    axes.legend(handles=handles, frameon=False, fontsize=8, **place)
    return figure


@plt.rc_context(STYLE)
def expected(drawn: dict[str, Tensor], records: dict[str, dict], reads: dict[str, float]) -> Figure:
    """What the prior of the tree of seed 0 makes of few images: drawings; nats that new digits cost
    less, beside those that retraining the reader saves; and how many drawings are read as the
    digit.

    Args:
        drawn: by title, pictures (B, 1, H, W), a row of them.
        records: of digits, by name, a line style for each.
        reads: the share of drawings read as the digit before, by the same names.
    """
    rows = {title: grey(pictures) for title, pictures in drawn.items()}
    wide = max(map(len, rows.values()))
    figure = plt.figure(figsize=(WIDTH, 2.6), layout="constrained")
    left, right = figure.subfigures(1, 2, width_ratios=(1.1, 1))
    cells = left.subplots(len(rows), wide, squeeze=False)
    for line, (title, pictures) in zip(cells, rows.items(), strict=True):
        for cell in line:
            cell.axis("off")
        for cell, picture in zip(line, pictures, strict=False):
            show(cell, picture)
        place = {"ha": "right", "va": "center", "fontsize": 7.5}
        line[0].text(-0.15, 0.5, title, transform=line[0].transAxes, **place)
    axes = right.subplots(1, 2)
    ticks = ["none", *map(str, SHOTS)]
    looks = dict(zip(FEW, ("k", *COLOURS), strict=False))
    for (name, record), dash in zip(records.items(), ("-", "--"), strict=False):
        before, _ = mean(chosen(record, "tree", "none", seed=0), "nats")
        for kind, colour in looks.items():
            every = [chosen(record, "tree", kind, shots=n) for n in SHOTS]
            costs = [mean(trials, "nats") for trials in every]
            lines = [[(0, 0), *((before - nats, stderr) for nats, stderr in costs)]]
            if kind in KINDS:
                shares = (mean(trials, "read", "drawn") for trials in every)
                lines.append([(reads[name], 0), *shares])
            look = {"color": colour, "marker": "o", "markersize": 3, "linestyle": dash}
            label = FEW[kind] if dash == "-" else None
            for cell, line in zip(axes, lines, strict=False):
                values, stderrs = zip(*line, strict=True)
                cell.errorbar(range(len(ticks)), values, stderrs, **look, linewidth=1, label=label)
    for cell, title in zip(axes, ("nats saved", "drawings read as it"), strict=True):
        cell.set(xticks=range(len(ticks)), xticklabels=ticks, title=title, xlabel="images")
    axes[1].yaxis.set_major_formatter(PercentFormatter(1, decimals=0))
    handles, _ = axes[0].get_legend_handles_labels()
    for name, dash in zip(records, ("-", "--"), strict=False):
        handles.append(Line2D([], [], color="0.3", linewidth=1, linestyle=dash, label=name))
    place = {"loc": "outside lower center", "ncols": 3, "fontsize": 7.5}
    right.legend(handles=handles, frameon=False, **place)
    return figure


@plt.rc_context(STYLE)
def digits(record: dict) -> Figure:
    """What every digit costs models that have not seen it, before and after retraining of
    inference, and models that have.

    record: as `heldout.collect` returns it.
    """
    figure, axes = grid(1, 2, WIDTH, 2.5)
    looks = {
        "none": {"fillstyle": "full", "markersize": 5},
        "inference": {"fillstyle": "none", "markersize": 5},
        "saw": {"fillstyle": "full", "markersize": 2.5, "alpha": 0.6},
    }
    for cell, (score, label) in zip(axes.flat, SCORES.items(), strict=True):
        for model, shift in zip(heldout.MODELS, (-0.15, 0.15), strict=True):
            for condition, look in looks.items():
                values = [of_digit(record, d, model, condition)[score] for d in heldout.DIGITS]
                places = [d + shift for d in heldout.DIGITS]
                words = f"{MODELS[model]}, {heldout.CONDITIONS[condition]}"
                cell.plot(places, values, linestyle="", label=words, **LOOKS[model], **look)
        cell.set(xticks=heldout.DIGITS, xlabel="the digit held out", ylabel=label)
        cell.grid(axis="y", color="0.93", linewidth=0.6)
        cell.set_axisbelow(True)
    place = {"loc": "outside upper center", "ncols": 3, "fontsize": 7.5}
    figure.legend(handles=axes.flat[0].lines, frameon=False, **place)
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
