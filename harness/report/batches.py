"""Batches: how many examples a second each device takes, by how many it gets at once."""

from __future__ import annotations

import pandas as pd
from matplotlib.figure import Figure
from matplotlib.ticker import EngFormatter, FuncFormatter, NullFormatter

from harness.decide.frame import Frame, average_seeds
from harness.grid import BASELINE
from harness.report.style import COLOURS

COLUMNS = 2
MOST_MODELS = 8


def find_batch_series(frame: Frame) -> pd.DataFrame:
    """Return the baselines of models that were measured with several batches on one device."""
    cells = average_seeds(frame)
    cells = cells[(cells["technique"] == BASELINE) & cells["throughput_per_s"].notna()]
    several = cells.groupby(["model", "device", "threads"])["batch"].transform("nunique") > 1
    return cells[several.fillna(False).astype(bool)]


def draw_batches(cells: pd.DataFrame, title: str) -> Figure:
    """Return a panel for each model: throughput over batch, a line for each device and threads."""
    models = list(dict.fromkeys(cells["model"]))[:MOST_MODELS]
    columns = min(COLUMNS, len(models))
    rows = -(-len(models) // columns)
    figure = Figure(figsize=(5 * columns + 1.2 * (columns == 1), 3.6 * rows), layout="constrained")
    figure.suptitle(title, x=0.02, ha="left")
    panels = figure.subplots(rows, columns, squeeze=False)
    for axes, model in zip(panels.flat, models, strict=False):
        mine = cells[cells["model"] == model]
        for number, (key, part) in enumerate(mine.groupby(["device", "threads"])):
            line = part.sort_values("batch")
            low, high = line["throughput_per_s_low"], line["throughput_per_s_high"]
            colour = COLOURS[number % len(COLOURS)]
            axes.plot(line["batch"], line["throughput_per_s"], marker="o", markersize=4,
                      linewidth=1, color=colour, label=f"{key[0]}, threads {key[1]:g}")  # fmt: skip
            axes.fill_between(line["batch"], low, high, color=colour, alpha=0.2, linewidth=0)
        axes.set(xscale="log", yscale="log", xlabel="batch", ylabel="examples a second")
        axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
        axes.yaxis.set_major_formatter(EngFormatter())
        for axis in (axes.xaxis, axes.yaxis):
            axis.set_minor_formatter(NullFormatter())
        axes.set_title(model, fontsize=9, loc="left")
        axes.grid(alpha=0.3)
        axes.legend(fontsize=7)
    for axes in panels.flat[len(models) :]:
        axes.set_visible(False)
    return figure
