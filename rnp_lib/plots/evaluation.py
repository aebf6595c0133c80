"""Claims, measured: every rival on every score."""

import matplotlib.pyplot as plt
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, NullLocator
from torch import Tensor

from rnp_lib.plots.base import COLOURS, STYLE


@plt.rc_context(STYLE)
def dots(
    numbers: dict[str, float], scores: dict[str, str], rivals: dict[str, str], ours: int
) -> Figure:
    """For each score a frame: a dot for each rival, with its standard error.

    Args:
        numbers: SCORE_RIVAL and, where there is one, SCORE_RIVAL_stderr.
        scores: their names in `numbers`, and titles.
        rivals: their names in `numbers`, and in words, from the top down; the first `ours` of them
            are coloured.
    """
    figure, axes = plt.subplots(
        1,
        len(scores),
        figsize=(2.2 * len(scores) + 1.6, 0.24 * len(rivals) + 0.7),
        sharey=True,
        squeeze=False,
        layout="constrained",
    )
    for axis, (score, title) in zip(axes[0], scores.items(), strict=True):
        for i, rival in enumerate(rivals):
            value = numbers[f"{score}_{rival}"]
            error = numbers.get(f"{score}_{rival}_stderr", 0)
            colour = COLOURS[0] if i < ours else "0.45"
            axis.errorbar(value, i, xerr=error, fmt="o", color=colour, markersize=4, lw=1)
        axis.set(title=title, xlim=(-0.05, 1), xticks=(0, 0.25, 0.5, 0.75, 1))
        axis.xaxis.set_major_formatter("{x:g}")
        axis.grid(axis="x", color="0.9", lw=0.6)
        axis.set_axisbelow(True)
    axes[0, 0].set_yticks(range(len(rivals)), rivals.values())
    axes[0, 0].invert_yaxis()
    return figure


@plt.rc_context(STYLE)
def curves(
    found: dict[str, dict[str, dict[float, dict[str, float]]]],
    rows: dict[str, str],
    shares: tuple[str, ...] = (),
) -> Figure:
    """Scores as images change by more and more: a column for each kind of change, a row for each
    score, a curve for each model.

    Args:
        found: by model in words, kind of change in words, and amount, scores.
        rows: names of scores, and in words.
        shares: those of which 0 and 1 are marked.
    """
    kinds = list(next(iter(found.values())))
    lines = -(-len(found) // len(kinds))  # of the legend
    figure, axes = plt.subplots(
        len(rows),
        len(kinds),
        figsize=(2.4 * len(kinds), 1.8 * len(rows) + 0.2 * (lines - 1)),
        sharey="row",
        sharex="col",
        layout="constrained",
        squeeze=False,
    )
    for row, (score, words) in zip(axes, rows.items(), strict=True):
        row[0].set_ylabel(words)
        for axis, kind in zip(row, kinds, strict=True):
            for colour, (model, by_kind) in zip(COLOURS, found.items(), strict=False):
                amounts = sorted(by_kind[kind])
                values = [by_kind[kind][amount][score] for amount in amounts]
                axis.plot(amounts, values, "o-", color=colour, markersize=3, lw=1, label=model)
            for height in (0, 1) if score in shares else ():
                axis.axhline(height, color="0.8", lw=0.6)
    for axis, kind in zip(axes[-1], kinds, strict=True):
        axis.set_xlabel(kind)
        amounts = sorted({amount for by_kind in found.values() for amount in by_kind[kind]})
        if all(isinstance(amount, int) for amount in amounts):
            axis.set_xticks(amounts)
    handles, names = axes[0, 0].get_legend_handles_labels()
    columns = min(len(names), len(kinds))
    figure.legend(handles, names, frameon=False, loc="outside upper center", ncols=columns)
    return figure


@plt.rc_context(STYLE)
def peers(
    numbers: dict[str, float],
    scores: dict[str, tuple[str, bool]],
    rivals: dict[str, str],
    ours: int,
    columns: int = 5,
) -> Figure:
    """A frame for each score, in it a dot for each rival, the better the higher; on a logarithmic
    scale where less is better and the largest is more than five times the smallest.

    Args:
        numbers: as of `dots`; who has no such score is left out.
        scores: names in `numbers` -> title, and whether less is better.
        rivals, ours: as of `dots`, from left to right.
    """
    rows = -(-len(scores) // columns)
    figure, axes = plt.subplots(
        rows,
        columns,
        figsize=(1.75 * columns, 1.5 * rows + 1.4),
        sharex=True,
        squeeze=False,
        layout="constrained",
    )
    for axis, (score, (title, less)) in zip(axes.flat, scores.items(), strict=False):
        values = {i: numbers.get(f"{score}_{rival}") for i, rival in enumerate(rivals)}
        values = {i: value for i, value in values.items() if value is not None}
        if less and values and max(values.values()) > 5 * min(values.values()) > 0:
            axis.set_yscale("log")
            axis.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
            axis.yaxis.set_major_formatter("{x:g}")
            axis.yaxis.set_minor_locator(NullLocator())
        for i, value in values.items():
            error = numbers.get(f"{score}_{[*rivals][i]}_stderr", 0)
            colour, marker = (COLOURS[0], "o") if i < ours else ("0.45", "s")
            axis.errorbar(i, value, yerr=error, fmt=marker, color=colour, markersize=4, lw=1)
        axis.set_title(title, fontsize=8)
        axis.margins(y=0.15)
        axis.grid(axis="y", color="0.9", lw=0.6)
        axis.set_axisbelow(True)
        if less:
            axis.invert_yaxis()
    unused = rows * columns - len(scores)
    for axis in axes.flat[len(scores) :]:
        axis.axis("off")
    for column, axis in enumerate(axes[-1]):
        last = axes[-2, column] if column >= columns - unused else axis
        last.set_xticks(range(len(rivals)), rivals.values(), rotation=90, fontsize=7)
        last.tick_params(labelbottom=True)
    return figure


@plt.rc_context(STYLE)
def sheets(pictures: dict[str, Tensor]) -> Figure:
    """Sheets of drawings side by side, dark on white: by title grey (R, C, 1, H, W), first in each
    row what was seen."""
    figure, axes = plt.subplots(
        1,
        len(pictures),
        figsize=(3.1 * len(pictures), 0.3 + 0.35 * max(map(len, pictures.values()))),
        squeeze=False,
        layout="constrained",
    )
    for axis, (title, drawings) in zip(axes[0], pictures.items(), strict=True):
        count, (height, width) = len(drawings), drawings.shape[-2:]
        sheet = drawings.squeeze(2).permute(0, 2, 1, 3).reshape(count * height, -1)
        axis.imshow(1 - sheet.clamp(0, 1).numpy(), cmap="gray", vmin=0, vmax=1)
        for i in range(1, count):
            axis.axhline(i * height - 0.5, color="0.85", lw=0.5)
        axis.axvline(width - 0.5, color="0.5", lw=1)
        axis.set_title(title)
        axis.axis("off")
    return figure
