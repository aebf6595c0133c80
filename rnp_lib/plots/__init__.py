"""How trees are drawn: dark ink on white, children in the paper's order of colours."""

import csv
from collections.abc import Collection
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from torch import Tensor

from rnp_lib.model.transforms import place
from rnp_lib.model.tree import ProgramTree

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


def grey(canvas: Tensor) -> np.ndarray:
    """Canvases (B, 1, H, W) as dark ink on white, (B, H, W, 3) in [0, 1]."""
    paper = 1 - canvas.detach().cpu().clamp(0, 1)
    return paper.movedim(1, -1).expand(-1, -1, -1, 3).numpy()


def coloured(parts: Tensor, colours: tuple[str, ...] = COLOURS) -> np.ndarray:
    """Placed parts (B, τ, 1, H, W), each in the colour of its turn, on white, (B, H, W, 3).

    Where parts overlap their inks mix; an ink above 1 counts as 1.
    """
    ink = parts.detach().cpu().clamp(0, 1).squeeze(2).movedim(1, -1)  # (B, H, W, τ)
    shade = 1 - torch.tensor([_rgb(colours[t % len(colours)]) for t in range(parts.shape[1])])
    return (1 - (ink @ shade).clamp(0, 1)).numpy()


def _rgb(colour: str) -> list[float]:
    return [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]


def show(axes: Axes, picture: np.ndarray, border: str = "0.75") -> None:
    """One picture (H, W, 3) in axes without ticks."""
    axes.imshow(picture)
    axes.set(xticks=[], yticks=[])
    axes.spines[:].set(edgecolor=border)


def outline(axes: Axes, corners: np.ndarray, colour: str) -> None:
    """A window given by its corners (4, 2), in pixels of the picture in `axes`."""
    axes.fill(*corners.T, fill=False, edgecolor=colour, linewidth=1)


def corners(child: ProgramTree, size: int) -> np.ndarray:
    """The corners of a child's window in its parent's canvas of side `size`, pixels, (B, 4, 2)."""
    frame = torch.tensor([[-1.0, 1, 1, -1], [-1, -1, 1, 1], [1, 1, 1, 1]])
    return ((child.affine.detach().cpu() @ frame).mT.add(1) / 2 * (size - 1)).numpy()


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
    with plt.rc_context(STYLE):
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
                show(axes, box, COLOURS[t % len(COLOURS)])
                axes.spines[:].set(linewidth=2)
                if i < columns and t == 0:
                    middle.set_title("parts, placed by $z^2$")
                    axes.set_title("sub-parts, placed by each $z^1$", loc="left")
    return figure


def windows(tree: ProgramTree) -> Figure:
    """The coloured canvas of each image of a batch with the windows of its parts outlined."""
    size = tree.canvas.shape[-1]
    frames = [corners(child, size) for child in tree.children]
    with plt.rc_context(STYLE):
        figure, axes = plt.subplots(
            1, len(tree), figsize=(2.2 * len(tree), 2.2), squeeze=False, layout="constrained"
        )
        for i, (cell, picture) in enumerate(zip(axes[0], coloured(tree.parts), strict=True)):
            show(cell, picture)
            for t, frame in enumerate(frames):
                outline(cell, frame[i], COLOURS[t % len(COLOURS)])
            cell.set(xlim=(-3.5, size + 2.5), ylim=(size + 2.5, -3.5))
    return figure


def tree(
    x: Tensor | None,
    tree: ProgramTree,
    below: int = 2,
    colours: tuple[str, ...] = COLOURS,
    hidden: Collection[tuple[int, ...]] = (),
) -> Figure:
    """Figure 1: one image (1, 1, H, W) as a tree, `below` levels deep.

    Every program is drawn in its own frame, its children in the colours of their turns and with
    their windows outlined; a leaf is dark ink. A frame has the colour of the program's own turn.
    Programs whose paths, the turns from the root down, are in `hidden` are pale. Without an image
    (None), the tree alone.
    """
    rows = [[(0, (), tree)]]  # of each program: its parent's place in the row above, its path
    for _ in range(below):
        row = [
            (i, (*path, t), child)
            for i, (_, path, node) in enumerate(rows[-1])
            for t, child in enumerate(node.children)
        ]
        rows.append(row)
    with plt.rc_context(STYLE):
        figure = plt.figure(figsize=(max(5, 0.62 * len(rows[-1])), 1.55 * len(rows)))
        above = []
        for k, row in enumerate(rows):
            cells = [_node(figure, k, i, len(rows), len(row)) for i in range(len(row))]
            for cell, (parent, path, node) in zip(cells, row, strict=True):
                size = node.canvas.shape[-1]
                picture = coloured(node.parts, colours) if node.children else grey(node.canvas)
                show(cell, 1 - 0.3 * (1 - picture[0]) if path in hidden else picture[0])
                for t, child in enumerate(node.children):
                    if (*path, t) not in hidden:
                        outline(cell, corners(child, size)[0], colours[t % len(colours)])
                cell.set(xlim=(-1.5, size + 0.5), ylim=(size + 0.5, -1.5))
                if above:
                    colour = colours[path[-1] % len(colours)]
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


def steps(tree: ProgramTree) -> Figure:
    """How each canvas of a batch is drawn: the parts in the order of their turns, added one by one.

    For a tree of two levels or more: what is new is in the colours of its sub-parts.
    """
    size, tau = tree.canvas.shape[-1], len(tree.children)
    with plt.rc_context(STYLE):
        figure, axes = plt.subplots(
            len(tree),
            tau,
            figsize=(1.5 * tau, 1.6 * len(tree)),
            squeeze=False,
            layout="constrained",
        )
        for t, part in enumerate(tree.children):
            before = tree.parts[:, :t].sum(1)
            new = torch.stack([place(sub, part.affine, size) for sub in part.placed], 1)
            old = 0.65 * (1 - grey(before))  # paler than what is new
            for cell, picture in zip(axes[:, t], np.clip(coloured(new) - old, 0, 1), strict=True):
                show(cell, picture)
            axes[0, t].set_title(f"step {t + 1}")
    return figure


def reuse(primitive: Tensor, copies: Tensor, target: Tensor) -> Figure:
    """Figure 1a: a primitive (1, 1, P, P), its placed copies (1, τ, 1, H, W), their target."""
    count = copies.shape[1]
    colours = [coloured(copies * mine[:, None, None, None]) for mine in torch.eye(count)]
    labels = ["primitive", *(f"action {t + 1}" for t in range(count)), "sum", "target"]
    pictures = [grey(primitive), *colours, coloured(copies), grey(target)]
    with plt.rc_context(STYLE):
        figure, axes = plt.subplots(
            1, len(pictures), figsize=(1.4 * len(pictures), 1.7), layout="constrained"
        )
        for cell, picture, label in zip(axes, pictures, labels, strict=True):
            show(cell, picture[0])
            cell.set_title(label)
    return figure


def segments(parts: Tensor, sub_parts: Tensor) -> np.ndarray:
    """Labelled pixels (B, H, W), -1 for none: a colour for each part, a shade of it for each of its
    sub-parts in order, on white, (B, H, W, 3)."""
    colours = torch.tensor([_rgb(colour) for colour in COLOURS])
    picture = torch.ones(*parts.shape, 3)
    for image, part, sub_part in zip(picture, parts, sub_parts, strict=True):
        for p in part[part >= 0].unique().tolist():
            within = sub_part[part == p].unique().tolist()
            for shade, s in zip(torch.linspace(0, 0.7, len(within)), within, strict=True):
                image[(part == p) & (sub_part == s)] = colours[p % len(colours)].lerp(
                    torch.ones(3), shade
                )
    return picture.numpy()


def rows(pictures: dict[str, np.ndarray]) -> Figure:
    """A row of pictures (N, H, W, 3) for each name, which stands before it."""
    count = len(next(iter(pictures.values())))
    with plt.rc_context(STYLE):
        figure, axes = plt.subplots(
            len(pictures),
            count,
            figsize=(0.95 * count + 1, 0.95 * len(pictures)),
            layout="constrained",
            squeeze=False,
        )
        for line, (name, images) in zip(axes, pictures.items(), strict=True):
            line[0].set_ylabel(name, rotation=0, ha="right", va="center", labelpad=6)
            for cell, image in zip(line, images, strict=True):
                show(cell, image)
    return figure


def learning_curves(logs: dict[str, Path]) -> Figure:
    """Squared error per image while training (line) and on validation images (dots).

    logs: the metrics.csv that `rnp train` wrote, by the name to show.
    """
    with plt.rc_context(STYLE):
        figure, axes = plt.subplots(figsize=(4.5, 2.6), layout="constrained")
        for colour, (name, path) in zip(COLOURS, logs.items(), strict=False):
            with open(path, newline="") as file:
                rows = list(csv.DictReader(file))
            for key, style in (("sse", {"lw": 0.8}), ("validation_sse", {"lw": 0, "marker": "."})):
                points = [(int(row["images"]) / 1000, float(row[key])) for row in rows if row[key]]
                axes.plot(*zip(*points, strict=True), color=colour, **style)
            axes.lines[-1].set_label(name)
        axes.set(xlabel="training images seen, thousands", ylabel="squared error per image")
        axes.set_yscale("log")
        axes.xaxis.set_major_formatter("{x:,.0f}")
        axes.yaxis.set_major_formatter("{x:.0f}")
        axes.set_yticks([5, 10, 20, 50])
        axes.minorticks_off()
        axes.legend(frameon=False)
    return figure


def speed(result: dict) -> Figure:
    """What `rnp bench` measured: training throughput of each row, and how a step's time grows."""
    with plt.rc_context(STYLE):
        figure, (bars, growth) = plt.subplots(1, 2, figsize=(7.5, 2.6), layout="constrained")
        names = list(result["train_spread"])
        speeds = [result["train_spread"][name] for name in names]
        middle = np.array([s["median"] for s in speeds])
        spread = [middle - [s["low"] for s in speeds], [s["high"] for s in speeds] - middle]
        bars.barh(names, middle, xerr=spread, color="0.7", error_kw={"lw": 0.8})
        bars.bar_label(bars.containers[1], [f" {m:.0f}" for m in middle], fontsize=8)
        bars.invert_yaxis()
        bars.set(
            xlabel=f"training, images/s (batch {result['batch']})", xlim=(0, 1.2 * middle.max())
        )
        sizes = [(*name.split("_"), ms) for name, ms in result["growth_ms"].items()]
        for i, kind in enumerate(dict.fromkeys(kind for kind, _, _ in sizes)):
            x, y = zip(*((int(n), ms) for k, n, ms in sizes if k == kind), strict=True)
            growth.loglog(x, y, "o-", color=COLOURS[i], label=kind, markersize=4)
        growth.set(xlabel="images in a batch; levels; children", ylabel="training step, ms")
        for axis in (growth.xaxis, growth.yaxis):
            axis.set_major_formatter("{x:.0f}")
            axis.set_minor_formatter("")
        growth.set_yticks([30, 100, 300])
        growth.legend(frameon=False)
        machine = result["machine"]
        figure.suptitle(
            f"{machine['chip']}, {machine['threads']} threads, torch {machine['torch']}"
        )
    return figure
