"""How paths between programs are drawn: strips, lines of what was measured, a moving picture."""

import io

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from PIL import Image
from torch import Tensor

from rnp_lib.model.tree import ProgramTree
from rnp_lib.plots.base import COLOURS, STYLE, coloured, outline, outline_children, show

LINES = {  # none of them in the colour of a part
    "straight": dict(color="black", marker="o"),
    "spherical": dict(color=COLOURS[4], marker="s"),
    "pixels": dict(color="0.55", marker="d", linestyle="--"),
}
TITLES = {
    "read": "share read as a digit",
    "end": "share read as one of the ends",
    "change": "squared change per step",
}


def strip(axes: Axes, layers: Tensor) -> None:
    """One path's drawings (steps, τ, 1, H, W) side by side, parts coloured, ends framed dark."""
    pictures = coloured(layers)  # (steps, H, W, 3)
    side, last = pictures.shape[1], len(pictures) - 1
    pitch, edge = 1.08 * side, 0.03 * side
    frame = np.array([[0, 0], [1, 0], [1, 1], [0, 1]]) * side
    for k, picture in enumerate(pictures):
        axes.imshow(picture, extent=(k * pitch, k * pitch + side, side, 0))
        outline(axes, frame + [k * pitch, 0], "0.25" if k in (0, last) else "0.8")
    axes.set(xlim=(-edge, last * pitch + side + edge), ylim=(side + edge, -edge))
    axes.set(xticks=[], yticks=[])
    axes.spines[:].set_visible(False)
    plt.setp(axes.patches, clip_on=False)  # at low resolution a frame's edge would be lost


def lines(axes: Axes, name: str, results: dict[str, tuple[Tensor, Tensor]]) -> None:
    """One quantity of `interpolation.by_quantity` along the path, with standard errors."""
    steps = name == "change"  # not points
    for kind, (mean, stderr) in results.items():
        at = (np.arange(len(mean)) + 0.5) / len(mean) if steps else np.linspace(0, 1, len(mean))
        axes.errorbar(at, mean.numpy(), stderr.numpy(), label=kind, ms=3, lw=1, **LINES[kind])
    axes.set(xlabel="position along the path", title=TITLES[name], xticks=[0, 0.5, 1])
    axes.set_ylim(0, None if steps else 1.03)
    axes.spines[["top", "right"]].set_visible(False)
    if name == "read":
        axes.legend(frameon=False, loc="lower left")


@plt.rc_context(STYLE)
def interpolation(
    strips: dict[str, dict[str, Tensor]],
    measured: dict[str, dict[str, tuple[Tensor, Tensor]]],
    measured_on: str,
) -> Figure:
    """Figure 4c: paths between cluster centres, and what was measured along many other paths.

    Args:
        strips: by title, what `interpolation.along` returns, of as many pairs for every title.
            Drawn in two columns.
        measured: `interpolation.by_quantity`.
        measured_on: what paths these are, a title.
    """
    pairs = len(next(iter(strips.values()))["straight"])
    heights = ([1] * len(LINES) + [0.15]) * pairs + [0.2]  # strips of a title, gaps after a pair
    blocks = -(-len(strips) // 2)
    tall, low = 0.46 * blocks * sum(heights) + 0.3, 2  # inches
    figure = plt.figure(figsize=(7, tall + low), layout="constrained")
    figure.get_layout_engine().set(w_pad=0.04, h_pad=0.015, hspace=0, wspace=0.02)
    upper, lower = figure.subfigures(2, 1, height_ratios=[tall, low])
    grid = upper.add_gridspec(blocks * len(heights), 2, height_ratios=heights * blocks)
    for i, (title, paths) in enumerate(strips.items()):
        for pair in range(pairs):
            for k, (kind, layers) in enumerate(paths.items()):
                row = i // 2 * len(heights) + pair * (len(LINES) + 1) + k
                axes = upper.add_subplot(grid[row, i % 2])
                strip(axes, layers[pair])
                if i % 2 == 0:
                    colour = LINES[kind]["color"]
                    axes.set_ylabel(kind, rotation=0, ha="right", va="center", color=colour)
                if pair == k == 0:
                    axes.set_title(title)
    lower.suptitle(measured_on, fontsize=STYLE["axes.titlesize"])
    for axes, (name, results) in zip(lower.subplots(1, 3), measured.items(), strict=True):
        lines(axes, name, results)
    return figure


@plt.rc_context(STYLE)
def animation(trees: dict[str, ProgramTree]) -> bytes:
    """Trees that move from one end of a path to the other and back: an animated PNG, for ever.

    One panel a tree, titled by its key: at each point of the path (one of the batch of B, the same
    for all trees) the coloured parts in their windows. Browsers and notebooks play the file, other
    viewers show its first frame.
    """
    drawn = []
    figure = Figure(figsize=(1.8 * len(trees), 2), dpi=80)
    canvas, panels = FigureCanvasAgg(figure), figure.subplots(1, len(trees), squeeze=False)
    figure.subplots_adjust(0.01, 0.01, 0.99, 0.9, wspace=0.04)
    for k in range(min(len(tree) for tree in trees.values())):
        for axes, (title, tree) in zip(panels[0], trees.items(), strict=True):
            axes.clear()
            now = tree[k : k + 1]
            show(axes, coloured(now.parts)[0])
            outline_children(axes, now, margin=3)
            axes.set_title(title)
        canvas.draw()
        drawn.append(np.array(canvas.buffer_rgba())[..., :3])
    # Frames of one file share a palette, so it is made from all of them.
    sheet = Image.fromarray(np.concatenate(drawn)).quantize(64, dither=Image.Dither.NONE)
    high, wide = drawn[0].shape[:2]
    frames = [sheet.crop((0, k * high, wide, (k + 1) * high)) for k in range(len(drawn))]
    frames += frames[-2:0:-1]
    file = io.BytesIO()
    frames[0].save(file, "PNG", save_all=True, append_images=frames[1:], duration=120, loop=0)
    return file.getvalue()
