"""Claims, measured: every rival on every score."""

import matplotlib.pyplot as plt
from matplotlib.figure import Figure

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
