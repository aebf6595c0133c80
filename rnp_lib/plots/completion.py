"""How completions of covered images are shown."""

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.figure import Figure
from torch import Tensor

from rnp_lib.plots.base import STYLE, grey, show

COVER = np.array([0.80, 0.87, 0.95])  # the colour of what is not seen


def under_cover(x: Tensor, covered: Tensor) -> np.ndarray:
    """Images (B, C, H, W) as they are seen, the cover (1 or B, 1, H, W) in colour: (B, H, W, 3)."""
    mask = covered.cpu().movedim(1, -1).numpy()
    return (1 - mask) * grey(x) + mask * COVER


def tinted(x: Tensor, covered: Tensor) -> np.ndarray:
    """Images (B, C, H, W) with the paper of what was covered in colour, (B, H, W, 3)."""
    mask = covered.cpu().movedim(1, -1).numpy()
    return grey(x) * (1 - mask + mask * COVER)


@plt.rc_context(STYLE)
def completions(
    x: list[Tensor], covered: list[Tensor], columns: list[dict[str, Tensor]], width: float = 8
) -> Figure:
    """A row for each image: as it was, what is seen of it, and how it was completed.

    Args:
        x: images (1, C, H, W), of any size, and covered, their covers (1, 1, H, W).
        columns: for each image by title the completions, (n, C, H, W); a title stands above the
            first of the n.
    """
    counts = {title: len(images) for row in columns for title, images in row.items()}
    across = 2 + sum(counts.values())
    side = width / across
    figure = plt.figure(figsize=(width, side * len(x) + 0.3), layout="constrained")
    cells = figure.subplots(len(x), across, squeeze=False)
    for line, image, mask, row in zip(cells, x, covered, columns, strict=True):
        show(line[0], grey(image)[0])
        show(line[1], under_cover(image, mask)[0])
        left = 2
        for title, count in counts.items():
            pictures = tinted(row[title], mask) if title in row else ()
            for i in range(count):
                if i < len(pictures):
                    show(line[left + i], pictures[i])
                else:
                    line[left + i].set_axis_off()
            left += count
    starts = np.cumsum([0, 1, 1, *counts.values()])[:-1]
    for column, title in zip(starts, ("image", "seen", *counts), strict=True):
        text = cells[0, column].set_title(title, fontsize=7.5, loc="left")
        text.set_in_layout(False)
    return figure
