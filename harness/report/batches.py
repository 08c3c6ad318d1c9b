"""Batches: what each device gives and takes, by how many examples it gets at once."""

from __future__ import annotations

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import (
    FixedLocator,
    FuncFormatter,
    Locator,
    LogLocator,
    MaxNLocator,
    NullLocator,
)

from harness.decide.devices import energy_of_inference, memory_in_use
from harness.decide.frame import Frame, average_seeds
from harness.decide.frontier import name_group
from harness.decide.prices import COST
from harness.grid import BASELINE
from harness.report.figures import LEAST_FOR_LOG, tick_multiples
from harness.report.style import COLOURS
from harness.report.text import format_value

MOST_MODELS = 8
SHOWN = {
    "throughput_per_s": ("throughput, examples", "1/s"),
    "latency_s": ("latency of a call", "s"),
    "memory_bytes": ("memory", "B"),
    "inference_energy_j": ("energy of an inference", "J"),
    COST: ("cost of a million inferences", ""),
}
"""What a column of panels shows, where any cell has it, and its unit."""


def find_batch_series(frame: Frame) -> pd.DataFrame:
    """Return the baselines of models that were measured with several batches on one device.

    Their memory is that of the card where there is one; energy is that of one example.
    """
    cells = average_seeds(frame)
    cells = cells[(cells["technique"] == BASELINE) & cells["throughput_per_s"].notna()]
    several = cells.groupby(["model", "device", "threads"])["batch"].transform("nunique") > 1
    found = cells[several.fillna(False).astype(bool)]
    rows = [row for _, row in found.iterrows()]
    return found.assign(
        memory_bytes=[memory_in_use(row) for row in rows],
        inference_energy_j=[energy_of_inference(row) for row in rows],
    )


def draw_batches(cells: pd.DataFrame, title: str) -> Figure:
    """Return a row of panels for each model, over batch: a line for each device and threads."""
    models = list(dict.fromkeys(cells["model"]))[:MOST_MODELS]
    shown = [name for name in SHOWN if name in cells and cells[name].notna().any()]
    figure = Figure(figsize=(3.8 * len(shown) + 1, 3 * len(models) + 0.5), layout="constrained")
    figure.suptitle(title, x=0.02, ha="left")
    panels = figure.subplots(len(models), len(shown), squeeze=False)
    for row, model in zip(panels, models, strict=True):
        mine = cells[cells["model"] == model]
        for axes, name in zip(row, shown, strict=True):
            _draw_lines(axes, mine, name)
        row[0].set_title(model, fontsize=9, loc="left")
        row[0].legend(fontsize=7)
    return figure


def _draw_lines(axes: Axes, cells: pd.DataFrame, name: str) -> None:
    for number, (key, part) in enumerate(cells.groupby(["device", "threads"], dropna=False)):
        line = part.sort_values("batch")
        colour = COLOURS[number % len(COLOURS)]
        place = name_group(dict(zip(("device", "threads"), key, strict=True)))
        axes.plot(line["batch"], line[name], marker="o", markersize=4, linewidth=1, color=colour,
                  label=place)  # fmt: skip
        if f"{name}_low" in line:
            axes.fill_between(
                line["batch"], line[f"{name}_low"], line[f"{name}_high"],
                color=colour, alpha=0.2, linewidth=0,
            )  # fmt: skip
    label, unit = SHOWN[name]
    axes.set(xscale="log", yscale="log", xlabel="batch", ylabel=label)
    axes.xaxis.set_major_locator(FixedLocator(sorted(cells["batch"].unique())))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axes.yaxis.set_major_locator(_choose_ticks(cells[name].max() / cells[name].min(), unit))
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: format_value(value, unit, 2)))
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_minor_locator(NullLocator())
    axes.grid(alpha=0.3)


def _choose_ticks(span: float, unit: str) -> Locator:
    """Ticks for an axis on which the largest value is so many times the least."""
    if unit == "B" and span > 2:
        return LogLocator(base=2)
    return LogLocator(subs=tick_multiples(span)) if span > LEAST_FOR_LOG else MaxNLocator(4)
