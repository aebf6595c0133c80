"""Curves: of learning, and of speed."""

import csv
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.figure import Figure

from rnp_lib.plots.base import COLOURS, STYLE


@plt.rc_context(STYLE)
def learning_curves(logs: dict[str, Path]) -> Figure:
    """Squared error per image while training (line) and on validation images (dots).

    logs: the metrics.csv that `rnp train` wrote, by the name to show.
    """
    figure, axes = plt.subplots(figsize=(4.5, 2.6), layout="constrained")
    for colour, (name, path) in zip(COLOURS, logs.items(), strict=False):
        with open(path, newline="") as file:
            rows = list(csv.DictReader(file))
        for key, style in (("sse", {"lw": 0.8}), ("validation_sse", {"lw": 0, "marker": "."})):
            points = [(int(row["images"]) / 1000, float(row[key])) for row in rows if row[key]]
            axes.plot(*zip(*points, strict=True), color=colour, **style)
        axes.lines[-1].set_label(name)
    axes.set(xlabel="training images seen, thousands", ylabel="squared error per image")
    axes.set(yscale="log", yticks=[2, 5, 10, 20, 50])
    axes.set_title("lines: training, dots: validation")
    axes.xaxis.set_major_formatter("{x:,.0f}")
    axes.yaxis.set_major_formatter("{x:.0f}")
    axes.minorticks_off()
    axes.legend(frameon=False)
    return figure


@plt.rc_context(STYLE)
def speed(result: dict) -> Figure:
    """What `rnp bench` measured: training throughput of each row, and how a step's time grows."""
    figure, (bars, growth) = plt.subplots(1, 2, figsize=(7.5, 2.6), layout="constrained")
    rows = result["train_spread"]
    numbers = [[row[key] for key in ("low", "median", "high")] for row in rows.values()]
    middle, spread = np.array(numbers)[:, 1], np.diff(numbers).T
    bars.barh(list(rows), middle, xerr=spread, color="0.7", error_kw={"lw": 0.8})
    bars.bar_label(bars.containers[1], [f" {m:.0f}" for m in middle], fontsize=8)
    bars.invert_yaxis()
    bars.set(xlabel=f"training, images/s (batch {result['batch']})", xlim=(0, 1.2 * middle.max()))
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
    figure.suptitle(f"{machine['chip']}, {machine['threads']} threads, torch {machine['torch']}")
    return figure
