"""How trees are drawn: an image beside its parts, a tree of frames, canvases step by step."""

from collections.abc import Collection

import matplotlib.pyplot as plt
import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from torch import Tensor

from rnp_lib.analysis.parsing import drawn
from rnp_lib.model.tree import ProgramTree
from rnp_lib.plots.base import (
    COLOURS,
    STYLE,
    coloured,
    grey,
    grid,
    outline_children,
    show,
    turn_colour,
)


@plt.rc_context(STYLE)
def parsing(x: Tensor, tree: ProgramTree, columns: int = 2, before: Tensor | None = None) -> Figure:
    """Figures 3 and 6: each image beside its canvas of coloured parts and its boxes of sub-parts.

    Args:
        x: images (B, 1, H, W), and `tree`, their parse, two levels deep or more.
        columns: images side by side.
        before: how they had been drawn before the model was retrained, (B, 1, H, W).
    """
    rows = -(-len(x) // columns)
    boxes = np.stack([coloured(child.parts) for child in tree.children], 1)  # (B, τ, P, P, 3)
    stack = {"input": x, "drawn": tree.canvas}
    if before is not None:
        stack = {"input": x, "before": before, "after": tree.canvas}
    side, gap, margin, top = 0.85, 0.08, 0.3, 0.3  # inches; `side` is that of a box
    height = 2 * side + gap
    across = -(-len(tree.children) // 2)  # boxes in a row
    small = (height - (len(stack) - 1) * gap) / len(stack)  # side of a picture at the left
    width = small + gap + height + gap + across * (side + gap)
    size = (columns * (margin + width), rows * (height + margin) + top)
    figure = plt.figure(figsize=size)
    left_column = zip(*map(grey, stack.values()), strict=True)
    each = zip(left_column, coloured(tree.parts), boxes, strict=True)
    for i, (pictures, parts, each_box) in enumerate(each):
        left = margin + i % columns * (margin + width)
        bottom = size[1] - top - height - i // columns * (height + margin)

        def cell(x, y, inches, left=left, bottom=bottom):
            place = np.array([left + x, bottom + y, inches, inches]) / np.tile(size, 2)
            return figure.add_axes(place)

        for row, (picture, label) in enumerate(zip(pictures, stack, strict=True)):
            axes = cell(0, height - small - row * (small + gap), small)
            show(axes, picture)
            axes.set_ylabel(label)
        middle = cell(small + gap, 0, height)
        show(middle, parts)
        for t, box in enumerate(each_box):
            left_of_box = small + height + 2 * gap + t % across * (side + gap)
            axes = cell(left_of_box, (1 - t // across) * (side + gap), side)
            show(axes, box, turn_colour(t))
            axes.spines[:].set(linewidth=2)
            if i < columns and t == 0:
                middle.set_title("parts, placed by $z^2$")
                axes.set_title("sub-parts, placed by each $z^1$", loc="left")
    return figure


@plt.rc_context(STYLE)
def windows(tree: ProgramTree) -> Figure:
    """The coloured canvas of each image of a batch with the windows of its parts outlined."""
    figure, axes = grid(1, len(tree), 2.2 * len(tree), 2.2)
    for i, (cell, picture) in enumerate(zip(axes[0], coloured(tree.parts), strict=True)):
        show(cell, picture)
        outline_children(cell, tree[i : i + 1], margin=3)
    return figure


@plt.rc_context(STYLE)
def tree(
    x: Tensor | None,
    tree: ProgramTree,
    *,
    until: int | None = None,
    colours: tuple[str, ...] = COLOURS,
    hidden: Collection[tuple[int, ...]] = (),
) -> Figure:
    """Figure 1: one image (1, 1, H, W) as a tree, down to the level `until` (two below the root's).

    Every program is drawn in its own frame, its children in the colours of their turns and with
    their windows outlined; a leaf is dark ink. A frame has the colour of the program's own turn.
    Programs whose paths, the turns from the root down, are in `hidden` are pale. Without an image
    (None), the tree alone.
    """
    until = max(0, tree.level - 2) if until is None else until
    rows = [[(0, (), tree)]]  # of each program: its parent's place in the row above, its path
    for _ in range(tree.level - until):
        row = [
            (i, (*path, t), child)
            for i, (_, path, node) in enumerate(rows[-1])
            for t, child in enumerate(node.children)
        ]
        rows.append(row)
    figure = plt.figure(figsize=(max(5, 0.62 * len(rows[-1])), 1.55 * len(rows)))
    above = []
    for k, row in enumerate(rows):
        cells = [_node(figure, k, i, len(rows), len(row)) for i in range(len(row))]
        for cell, (parent, path, node) in zip(cells, row, strict=True):
            picture = coloured(node.parts, colours) if node.children else grey(node.canvas)
            show(cell, 1 - 0.3 * (1 - picture[0]) if path in hidden else picture[0])
            unseen = {t for t in range(len(node.children)) if (*path, t) in hidden}
            outline_children(cell, node, 1, colours, unseen)
            if above:
                colour = turn_colour(path[-1], colours)
                cell.spines[:].set(edgecolor=colour, linewidth=1.5)
                _edge(figure, above[parent], cell, colour)
        above = cells
    if x is not None:
        image = _node(figure, 0, 0, len(rows), 1, shift=-0.25)
        show(image, grey(x)[0])
        image.set_title("image")
    return figure


def _node(figure: Figure, row: int, column: int, rows: int, columns: int, shift: float = 0) -> Axes:
    """Square axes for one node of a tree: rows fill the height, the columns of a row its width."""
    width, height = figure.get_size_inches()
    side = min(0.72 * height / rows, 0.85 * width / columns)
    centre = width * ((column + 0.5) / columns + shift), height * (1 - (row + 0.5) / rows)
    left, bottom = (c - side / 2 for c in centre)
    return figure.add_axes([left / width, bottom / height, side / width, side / height])


def _edge(figure: Figure, upper: Axes, lower: Axes, colour: str) -> None:
    a, b = upper.get_position(), lower.get_position()
    ends = [(a.x0 + a.x1) / 2, (b.x0 + b.x1) / 2], [a.y0, b.y1]
    figure.add_artist(Line2D(*ends, color=colour, linewidth=1, transform=figure.transFigure))


@plt.rc_context(STYLE)
def steps(tree: ProgramTree) -> Figure:
    """How each canvas of a batch is drawn: the parts in the order of their turns, added one by one.

    For a tree of two levels or more: what is new is in the colours of its sub-parts.
    """
    tau = len(tree.children)
    figure, axes = grid(len(tree), tau, 1.5 * tau, 1.6 * len(tree))
    for t, new in enumerate(drawn(tree, tree.level - 2).unbind(1)):
        before = tree.parts[:, :t].sum(1)
        old = 0.65 * (1 - grey(before))  # paler than what is new
        for cell, picture in zip(axes[:, t], np.clip(coloured(new) - old, 0, 1), strict=True):
            show(cell, picture)
        axes[0, t].set_title(f"step {t + 1}")
    return figure


@plt.rc_context(STYLE)
def reuse(primitive: Tensor, copies: Tensor, target: Tensor) -> Figure:
    """Figure 1a: a primitive (1, 1, P, P), its placed copies (1, τ, 1, H, W), their target."""
    count = copies.shape[1]
    colours = [coloured(copies * mine[:, None, None, None]) for mine in torch.eye(count)]
    labels = ["primitive", *(f"action {t + 1}" for t in range(count)), "sum", "target"]
    pictures = [grey(primitive), *colours, coloured(copies), grey(target)]
    figure, axes = grid(1, len(pictures), 1.4 * len(pictures), 1.7)
    for cell, picture, label in zip(axes[0], pictures, labels, strict=True):
        show(cell, picture[0])
        cell.set_title(label)
    return figure


def segments(parts: Tensor, sub_parts: Tensor) -> np.ndarray:
    """Labelled pixels (B, H, W), -1 for none: a colour for each part, a shade of it for each of its
    sub-parts in order, on white, (B, H, W, 3)."""
    colours = torch.tensor([to_rgb(colour) for colour in COLOURS])
    picture = torch.ones(*parts.shape, 3)
    for image, part, sub_part in zip(picture, parts, sub_parts, strict=True):
        for p in part[part >= 0].unique().tolist():
            within = sub_part[part == p].unique().tolist()
            for shade, s in zip(torch.linspace(0, 0.7, len(within)), within, strict=True):
                image[(part == p) & (sub_part == s)] = colours[p % len(colours)].lerp(
                    torch.ones(3), shade
                )
    return picture.numpy()


@plt.rc_context(STYLE)
def rows(pictures: dict[str, np.ndarray]) -> Figure:
    """A row of pictures (N, H, W, 3) for each name, which stands before it."""
    count = len(next(iter(pictures.values())))
    figure, axes = grid(len(pictures), count, 0.95 * count + 1, 0.95 * len(pictures))
    for line, (name, images) in zip(axes, pictures.items(), strict=True):
        line[0].set_ylabel(name, rotation=0, ha="right", va="center", labelpad=6)
        for cell, image in zip(line, images, strict=True):
            show(cell, image)
    return figure
