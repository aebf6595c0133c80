"""How a grammar of parts is shown: its alphabet, its words, variations, and what surprises it."""

import matplotlib.pyplot as plt
import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Patch
from torch import Tensor

from rnp_lib.analysis.alphabet import Production
from rnp_lib.analysis.likelihood import COSTS
from rnp_lib.model.rnp import RNP
from rnp_lib.model.transforms import place
from rnp_lib.model.tree import ProgramTree
from rnp_lib.plots.base import (
    COLOURS,
    STYLE,
    coloured,
    corners,
    grey,
    outline,
    outline_children,
    show,
    turn_colour,
)

WIDTH = 8  # inches
COST_COLOURS = dict(zip(COSTS, ("0.55", COLOURS[4], COLOURS[7], COLOURS[5]), strict=True))
NAMES = {"error": "pixels", "root": "root", "places": "places", "programs": "parts' programs"}


@plt.rc_context(STYLE)
def alphabet(pictures: Tensor, words: Tensor, labels: Tensor) -> Figure:
    """The symbols of an alphabet, the most frequent first: what each draws, how often it is used in
    which turn (bars, in the turns' colours), and in which classes.

    Args:
        pictures: what the M symbols draw in their own frame, (M, 1, P, P).
        words: int64 (N, τ), the symbols of N images, and `labels`, their classes, int64 (N,).
    """
    count, tau = len(pictures), words.shape[1]
    columns = min(16, count)
    lines = -(-count // columns)
    figure = plt.figure(figsize=(WIDTH, 1.12 * lines + 1.9), layout="constrained")
    upper, lower = figure.subfigures(2, 1, height_ratios=(1.12 * lines, 1.9))
    cells = upper.subplots(2 * lines, columns, squeeze=False, height_ratios=(2, 1) * lines)
    turns = torch.stack([words[:, t].bincount(minlength=count) for t in range(tau)], 1)
    shares = turns.double() / words.numel()
    for axes in cells.flat:
        axes.set_axis_off()
    for i, picture in enumerate(grey(pictures)):
        line, column = divmod(i, columns)
        cell, bars = cells[2 * line, column], cells[2 * line + 1, column]
        cell.set_axis_on()
        show(cell, picture)
        cell.set_title(f"{100 * float(shares[i].sum()):.1f}%", fontsize=6.5, pad=2)
        bars.bar(range(tau), shares[i].tolist(), color=[turn_colour(t) for t in range(tau)])
        bars.set(ylim=(0, float(shares.max())))
    classes = labels.unique()
    table = torch.stack([words[labels == c].flatten().bincount(minlength=count) for c in classes])
    axes = lower.add_subplot()
    axes.imshow((table / table.sum(1, keepdim=True)).numpy(), aspect="auto", cmap="Greys")
    axes.set(yticks=range(len(classes)), yticklabels=classes.tolist(), ylabel="class")
    axes.set_xlabel("symbol, in the order above; dark: makes up much of the class's parts")
    return figure


@plt.rc_context(STYLE)
def words(
    model: RNP, rules: list[Production], alphabet: Tensor, drawn: dict[str, Tensor]
) -> Figure:
    """Words as rules, and what words draw.

    A rule: the digit that its symbols draw at their mean places, the share of the images that it is
    the word of, and each symbol with the window that it lies in.

    Args:
        alphabet: programs (M, |z|) of the symbols.
        drawn: by title, pictures (N, 1, H, W) of words.
    """
    depth, tau = model.config.depth, len(rules[0].word)
    z = torch.stack([alphabet[list(rule.word)] for rule in rules])
    u = torch.stack([rule.u for rule in rules]).to(z)
    symbols = model.decode(z.flatten(0, 1), depth - 1).canvas.unflatten(0, z.shape[:2])
    windows = model.window(depth, u)
    side = model.config.image_size
    height = 0.62 * len(rules) + sum(0.52 * -(-len(x) // 15) + 0.3 for x in drawn.values())
    figure = plt.figure(figsize=(WIDTH, height), layout="constrained")
    ratios = [0.62 * len(rules)] + [0.52 * -(-len(x) // 15) + 0.3 for x in drawn.values()]
    top, *rest = figure.subfigures(1 + len(drawn), 1, height_ratios=ratios)
    cells = top.subplots(len(rules), 2 + 2 * tau, squeeze=False)
    whole = coloured(place(symbols, windows, side))
    for line, rule, parts, frames, digit in zip(cells, rules, symbols, windows, whole, strict=True):
        show(line[0], digit)
        line[1].set_axis_off()
        share = f"{100 * rule.share:.1f}%\n→"
        line[1].text(0.5, 0.5, share, ha="center", va="center", fontsize=8)
        for t, picture in enumerate(grey(parts)):
            show(line[2 + 2 * t], picture, turn_colour(t), 1.2)
            at = line[3 + 2 * t]
            show(at, np.ones((side, side, 3)))
            outline(at, (corners(frames[t]) * (side - 1)).numpy(), turn_colour(t))
            at.set(xlim=(-0.5, side - 0.5), ylim=(side - 0.5, -0.5))
    for part, (title, pictures) in zip(rest, drawn.items(), strict=True):
        lines = -(-len(pictures) // 15)
        part.suptitle(title, fontsize=9)
        cells = part.subplots(lines, 15, squeeze=False)
        for cell in cells.flat:
            cell.set_axis_off()
        for cell, picture in zip(cells.flat, grey(pictures), strict=False):
            cell.set_axis_on()
            show(cell, picture)
    return figure


@plt.rc_context(STYLE)
def variations(varied: dict[str, list[ProgramTree]]) -> Figure:
    """For each title B characters as parsed, the first of its trees, and their variations, B trees
    each; parts in the turns' colours."""
    count = len(next(iter(varied.values()))[0])
    figure = plt.figure(figsize=(WIDTH, len(varied) * (0.78 * count + 0.22)), layout="constrained")
    blocks = np.atleast_1d(figure.subfigures(len(varied), 1))
    for block, (title, trees) in zip(blocks, varied.items(), strict=True):
        block.suptitle(title, x=0.01, ha="left", fontsize=9)
        pictures = [coloured(tree.parts) for tree in trees]
        cells = block.subplots(count, len(trees), squeeze=False)
        for b, line in enumerate(cells):
            show(line[0], pictures[0][b], "k", 1.2)
            for cell, picture in zip(line[1:], pictures[1:], strict=True):
                show(cell, picture[b])
    return figure


@plt.rc_context(STYLE)
def surprise(
    x: Tensor, trees: ProgramTree, titles: list[str], spent: Tensor, totals: dict[str, Tensor]
) -> Figure:
    """A row for each of B images (B, 1, H, W): how it is drawn, each program of its tree with its
    nats, and what it costs by term; below, what images cost by set.

    Args:
        titles: of the rows; spent: what each image costs by term, (B, 4), as from
            `likelihood.costs`.
        totals: by title, what many images cost in all, nats, (N,).
    """
    figure = plt.figure(figsize=(WIDTH, 0.98 * len(trees) + 2.4), layout="constrained")
    upper, lower = figure.subfigures(2, 1, height_ratios=(0.98 * len(trees) + 0.2, 2.2))
    tau = len(trees.children)
    room = {"width_ratios": (1.1, 1.1, 1.1, *(0.9,) * tau, 3)}
    cells = upper.subplots(len(trees), tau + 4, squeeze=False, gridspec_kw=room)
    for i, (line, title) in enumerate(zip(cells, titles, strict=True)):
        tree = trees[i : i + 1]
        show(line[0], grey(x[i : i + 1])[0])
        line[0].set_ylabel(title, rotation=0, ha="right", va="center", fontsize=8)
        show(line[1], grey(tree.canvas)[0])
        show(line[2], coloured(tree.parts)[0])
        outline_children(line[2], tree, 1)
        line[2].set_xlabel(f"root {float(tree.kl[0]):.0f}", fontsize=7.5, labelpad=1)
        for t, child in enumerate(tree.children):
            show(line[3 + t], grey(child.canvas)[0], turn_colour(t), 1.2)
            nats = f"{float(child.kl[0]):.0f}" if child.kl is not None else "–"
            line[3 + t].set_xlabel(nats, fontsize=7.5, labelpad=1)
        _cost_bar(line[-1], spent[i], float(spent.sum(1).max()))
    for cell, title in zip(cells[0], ("image", "drawn", "parts"), strict=False):
        cell.set_title(title, fontsize=8)
    cells[0, 3].set_title("each part, and its nats", loc="left", fontsize=8)
    keys = [Patch(color=COST_COLOURS[name], label=NAMES[name]) for name in COSTS]
    place = {"loc": "upper right", "bbox_to_anchor": (1, 1.03), "ncols": 2}
    upper.legend(handles=keys, frameon=False, fontsize=7.5, title="nats in all, by term", **place)
    axes = lower.add_subplot()
    high = np.quantile(torch.cat(list(totals.values())).cpu().numpy(), 0.995)
    bins = np.geomspace(min(float(v.min()) for v in totals.values()), high, 80)
    for colour, (title, values) in zip(COLOURS, totals.items(), strict=False):
        weights = np.full(len(values), 1 / len(values))
        look = {"histtype": "stepfilled", "alpha": 0.5, "color": colour}
        axes.hist(values.cpu().numpy(), bins, weights=weights, label=title, **look)
    axes.set(xscale="log", xlabel="−ELBO of an image, nats", ylabel="share of images", yticks=[])
    axes.xaxis.set_major_formatter("{x:g}")
    axes.legend(frameon=False, loc="upper right")
    return figure


def _cost_bar(axes: Axes, spent: Tensor, most: float) -> None:
    """What one image costs, (4,), as a bar of its terms, on a scale that ends at `most` nats."""
    left = 0.0
    for name, value in zip(COSTS, spent.tolist(), strict=True):
        axes.barh(0, value, left=left, color=COST_COLOURS[name])
        left += value
    axes.text(left, 0, f" {left:.0f}", va="center", fontsize=8)
    axes.set(xlim=(0, 1.15 * most), ylim=(-1, 1))
    axes.set_axis_off()
