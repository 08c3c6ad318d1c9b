"""Learning curves: quality on the tune split against the time that the updates take here."""

from __future__ import annotations

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from harness.report.style import COLOURS
from harness.report.text import choose_scale

PANEL_IN = (5.2, 3.4)


def has_curves(cells: pd.DataFrame) -> bool:
    """Tell whether the cells are trainings."""
    return "tune_quality" in cells and bool(cells["tune_quality"].notna().any())


def draw_learning(cells: pd.DataFrame, target: float | None, title: str) -> Figure:
    """Return a panel for each model and place: a line for each recipe and seed, and the target."""
    keys = ["model", "device", "threads", "batch"]
    panels = list(cells[cells["tune_quality"].notna()].groupby(keys, sort=False))
    columns = min(2, len(panels))
    rows = -(-len(panels) // columns)
    size = (PANEL_IN[0] * columns, PANEL_IN[1] * rows + 0.8)
    figure = Figure(figsize=size, layout="constrained")
    figure.suptitle(title, fontsize=12, x=0.02, ha="left")
    grid = list(figure.subplots(rows, columns, squeeze=False, sharey=True).flat)
    techniques = list(dict.fromkeys(cells["technique"]))
    longest = max(_times(row)[-1] for _, part in panels for _, row in part.iterrows())
    scale, unit = choose_scale(longest, "s")
    known = {}
    for axes, ((model, device, threads, batch), part) in zip(grid, panels, strict=False):
        for _, row in part.iterrows():
            colour = COLOURS[techniques.index(row["technique"]) % len(COLOURS)]
            (line,) = axes.plot(_times(row) / scale, row["tune_quality"], color=colour, lw=1)
            known[row["technique"]] = line
        if target is not None:
            axes.axhline(target, color="0.4", lw=0.8, ls="--")
        axes.set_title(f"{model}, {device}, threads {threads}, batch {batch}", fontsize=9)
        axes.set_xlabel(f"time of the updates ({unit})", fontsize=9)
        axes.set_xscale("log")
        axes.grid(alpha=0.3)
    for axes in grid[len(panels) :]:
        axes.set_visible(False)
    figure.supylabel("quality on the tune split", fontsize=9)
    figure.legend(known.values(), known.keys(), loc="outside lower center", ncols=3, fontsize=8)
    return figure


def _times(row: pd.Series) -> np.ndarray:
    """Seconds after which each epoch's updates are done, at the measured latency of an update."""
    epoch_s = row["updates_per_epoch"] * row["latency_s"]
    return np.asarray(epoch_s * np.arange(1, len(row["tune_quality"]) + 1), float)
