"""How trees are drawn: an image beside its parts, a tree of frames, canvases step by step."""

import io
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
from rnp_lib.model.tree import ProgramTree, ink
from rnp_lib.plots.base import (
    COLOURS,
    STYLE,
    coloured,
    grey,
    grid,
    outline_children,
    show,
    square,
    turn_colour,
)


@plt.rc_context(STYLE)
def parsing(x: Tensor, tree: ProgramTree, before: Tensor | None = None) -> Figure:
    """Figures 3 and 6: each image beside its canvas of coloured parts and its boxes of sub-parts.

    Args:
        x: images (B, 1, H, W), and `tree`, their parse, two levels deep or more.
        before: how they had been drawn before the model was retrained, (B, 1, H, W).
    """
    drawings = [tree.canvas] if before is None else [before, tree.canvas]
    stack = [grey(pictures) for pictures in (x, *drawings)]
    labels = ("input", "drawn") if before is None else ("input", "before", "after")
    boxes = [coloured(child.parts) for child in tree.children]
    columns, across = 2, -(-len(boxes) // 2)  # images side by side, boxes in a row
    side, gap, margin, top = 0.85, 0.08, 0.3, 0.3  # inches; `side` is that of a box
    height, pitch = 2 * side + gap, side + gap
    small = (height - (len(stack) - 1) * gap) / len(stack)  # side of a picture at the left
    width = margin + small + gap + height + gap + across * pitch
    total = -(-len(x) // columns) * (height + margin) + top
    figure = plt.figure(figsize=(columns * width, total))
    for i, parts in enumerate(coloured(tree.parts)):
        left = margin + i % columns * width
        bottom = total - top - height - i // columns * (height + margin)
        for row, (pictures, label) in enumerate(zip(stack, labels, strict=True)):
            axes = square(figure, left, bottom + height - small - row * (small + gap), small)
            show(axes, pictures[i])
            axes.set_ylabel(label)
        middle = square(figure, left + small + gap, bottom, height)
        show(middle, parts)
        left += small + height + 2 * gap
        for t, box in enumerate(boxes):
            up = (1 - t // across) * pitch
            axes = square(figure, left + t % across * pitch, bottom + up, side)
            show(axes, box[i], turn_colour(t), 2)
            if i < columns and t == 0:
                middle.set_title(f"parts, placed by $z^{tree.level}$")
                axes.set_title(f"sub-parts, placed by each $z^{tree.level - 1}$", loc="left")
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
    rows, widest = tree.level - until + 1, len(list(tree.programs(until)))
    figure = plt.figure(figsize=(max(5, 0.62 * widest), 1.55 * rows))
    row = [((), tree, None)]  # of each program: its path, and its parent's axes
    for k in range(rows):
        below = []
        for i, (path, node, parent) in enumerate(row):
            cell = _node(figure, k, i, rows, len(row))
            leaf = grey(tree.on_paper(node.canvas))
            picture = (coloured(node.parts, colours) if node.children else leaf)[0]
            colour = turn_colour(path[-1], colours) if path else "0.75"
            picture = 1 - 0.3 * (1 - picture) if path in hidden else picture
            show(cell, picture, colour, 1.5 if path else 0)
            children = [((*path, t), child, cell) for t, child in enumerate(node.children)]
            unseen = {path[-1] for path, _, _ in children if path in hidden}
            outline_children(cell, node, 1, colours, unseen)
            if parent:
                _edge(figure, parent, cell, colour)
            below += children
        row = below
    if x is not None:
        image = _node(figure, 0, 0, rows, 1, shift=-0.25)
        show(image, grey(x)[0])
        image.set_title("image")
    return figure


def png(trees: ProgramTree) -> bytes:
    """The first of a batch of trees as a PNG."""
    figure, picture = tree(None, trees[:1]), io.BytesIO()
    figure.savefig(picture, format="png", dpi=60)
    plt.close(figure)
    return picture.getvalue()


def _node(figure: Figure, row: int, column: int, rows: int, columns: int, shift: float = 0) -> Axes:
    """Square axes for one node of a tree: rows fill the height, the columns of a row its width."""
    width, height = figure.get_size_inches()
    side = min(0.72 * height / rows, 0.85 * width / columns)
    x, y = width * ((column + 0.5) / columns + shift), height * (1 - (row + 0.5) / rows)
    return square(figure, x - side / 2, y - side / 2, side)


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
        old = 0.65 * (1 - grey(ink(before)))  # paler than what is new
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


@plt.rc_context(STYLE)
def centres(found: dict[str, Tensor], side: int) -> Figure:
    """Where the windows of each turn lie in many images: for each name one frame of `side` pixels,
    a point for each window's middle (N, τ, 2), pixels from the frame's, in the turn's colour."""
    figure, axes = grid(1, len(found), 2.2 * len(found), 2.4)
    for cell, (name, points) in zip(axes[0], found.items(), strict=True):
        for t, of_turn in enumerate(points.unbind(1)):
            cell.scatter(*of_turn.T, s=2, color=turn_colour(t), alpha=0.4, linewidth=0)
        half = side / 2
        cell.set(xlim=(-half, half), ylim=(half, -half), aspect="equal", title=name)
    return figure
