"""Pictures of a run, by matplotlib: trade-offs with their frontier, and thread scaling."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import ceil
from pathlib import Path

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import (
    FixedLocator,
    FuncFormatter,
    LogLocator,
    MaxNLocator,
    NullFormatter,
    NullLocator,
)

from harness.decide.devices import divide
from harness.decide.frame import Frame, average_seeds, variant_name
from harness.decide.frontier import Objective, mark_frontier
from harness.record import Metric
from harness.report.labels import place_labels
from harness.report.style import LEGEND_ROW_IN, MARKERS, MOST_DRAWN, Style, draw_legend
from harness.report.text import choose_scale, format_value
from harness.wording import counted

# Okabe and Ito, "Color Universal Design", 2008; in an order that also differs in lightness.
PANELS_PER_ROW = 2
LABEL_SIZE = 7.5
LEAST_FOR_LOG = 5.0
"""From this factor on, ticks at 1, 2 and 5 (or at powers of two) are two at least."""
MOST_OBSTACLES = 300
"""Points that labels keep clear of; in a cloud of more there is no free place anyway."""
SHARE_TICKS = (0.1, 0.2, 0.3, 0.5, 0.7, 0.8, 0.9, 0.95, 0.98, 0.99, 0.995, 0.998, 0.999)


@dataclass(frozen=True)
class Panel:
    """One chart of a trade-off: its heading and the cells in it."""

    heading: str
    cells: pd.DataFrame


def save(figure: Figure, folder: Path, name: str) -> None:
    """Write a figure as PNG and SVG."""
    FigureCanvasAgg(figure)
    engine = figure.get_layout_engine()
    if engine is not None:  # once: as long as there is one, each file is drawn twice
        engine.execute(figure)
        figure.set_layout_engine(None)
    figure.savefig(folder / f"{name}.png", dpi=140)
    figure.savefig(folder / f"{name}.svg", metadata={"Date": None})


def draw_trade_off(
    panels: Sequence[Panel], x: Metric, y: Metric, title: str, style: Style
) -> Figure:
    """Return a chart a panel of y against x, the frontier drawn and its members named."""
    # A row has 150 columns, and each point is a choice of rows: these few take a tenth of the time.
    shown = ["model", "technique", *x.columns(), *y.columns()]
    panels = [
        Panel(panel.heading, panel.cells[[name for name in shown if name in panel.cells]])
        for panel in panels
    ]
    columns = min(PANELS_PER_ROW, len(panels))
    rows = ceil(len(panels) / columns)
    cells = pd.concat([panel.cells for panel in panels])
    models = list(dict.fromkeys(cells["model"])) if style.tells_models else []
    techniques = list(dict.fromkeys(cells["technique"])) if style.tells_techniques else []
    legend_rows = ceil(len(techniques) / 3) + (ceil(len(models) / 4) if len(models) > 1 else 0)
    height = 3.6 * rows + 0.5 + LEGEND_ROW_IN * legend_rows
    figure = Figure(figsize=(5.6 * columns + (1.6 if columns == 1 else 0), height))
    FigureCanvasAgg(figure)
    figure.suptitle(title, fontsize=12, x=0.02, ha="left")
    grid = figure.subplots(rows, columns, squeeze=False, sharey=True)
    for axes in grid.flat[len(panels) :]:
        axes.set_visible(False)
    for axes, panel in zip(grid.flat, panels, strict=False):
        _draw_points(axes, panel, x, y, style)
    _scale_shares(grid.flat[0], cells[y.name], y)  # the panels share this axis
    draw_legend(figure, models, techniques, style)
    bottom = (0.1 + LEGEND_ROW_IN * legend_rows) / height
    figure.tight_layout(rect=(0, bottom, 1, 1 - 0.1 / height))
    figure.draw_without_rendering()
    for axes, panel in zip(grid.flat, panels, strict=False):
        _name_members(axes, panel, x, y, style)
    return figure


def draw_scaling(cells: pd.DataFrame, title: str, style: Style) -> Figure:
    """Return how many times faster each variant gets with more threads, a row a variant."""
    threads = sorted(cells["threads"].unique().tolist())
    batches = sorted(cells["batch"].unique().tolist())
    models = list(dict.fromkeys(cells["model"]))
    names = list(dict.fromkeys(variant_name(row, models) for _, row in cells.iterrows()))
    figure = Figure(figsize=(4.6 + 3.2 * len(batches), 1.3 + 0.24 * len(names)))
    FigureCanvasAgg(figure)
    figure.suptitle(title, fontsize=12, x=0.02, ha="left")
    grid = figure.subplots(1, len(batches), squeeze=False, sharey=True)
    for axes, batch in zip(grid.flat, batches, strict=True):
        _draw_speedups(axes, cells[cells["batch"] == batch], threads, names, models, style)
        axes.set_title(f"batch {batch}", fontsize=10, loc="left")
    grid.flat[0].set_yticks(range(len(names)), names, fontsize=8)
    grid.flat[0].set_ylim(len(names) - 0.5, -0.5)
    figure.tight_layout(rect=(0, 0, 1, 1 - 0.1 / figure.get_figheight()))
    return figure


def trade_off_panels(frame: Frame, x: Metric, y: Metric, by: Sequence[str]) -> list[Panel]:
    """Return the panels of a task: cells that have both metrics, divided by some axes."""
    cells = average_seeds(frame)
    cells = cells[cells[x.name].notna() & cells[y.name].notna()]
    if cells.empty:
        return []
    for axis in {"device", "threads", "batch"} - set(by):  # the rest at its first value
        first = cells[axis].iloc[0]
        cells = cells[(cells[axis] == first) | pd.isna(first)]
    if not by:
        return [Panel("", cells)]
    return [
        Panel(_heading(dict(zip(by, key, strict=True))), part)
        for key, part in cells.groupby(list(by), sort=True, dropna=False)
    ]


def _heading(place: dict[str, object]) -> str:
    known = {axis: value for axis, value in place.items() if value == value}  # noqa: PLR0124  # NaN
    return ", ".join(str(v) if axis == "device" else f"{axis} {v}" for axis, v in known.items())


def _draw_points(axes: Axes, panel: Panel, x: Metric, y: Metric, style: Style) -> None:
    cells = panel.cells
    members = _members(cells, x, y)
    for model, technique in _looks(cells, style):
        mine = np.ones(len(cells), dtype=bool)
        if style.tells_models:
            mine &= (cells["model"] == model).to_numpy()
        if style.tells_techniques:
            mine &= (cells["technique"] == technique).to_numpy()
        for member in (False, True):
            part = cells[mine & (members == member)]
            if part.empty:
                continue
            colour = style.colours[model]
            axes.errorbar(
                part[x.name], part[y.name], xerr=_error(part, x), yerr=_error(part, y),
                fmt=style.markers[technique], color=colour, markersize=7, markeredgewidth=1.1,
                markerfacecolor=colour if member else "white", elinewidth=0.9,
                zorder=4 if member else 3, rasterized=len(cells) > MOST_DRAWN,
            )  # fmt: skip
    front = cells[members].sort_values(x.name)
    axes.plot(
        front[x.name], front[y.name], drawstyle="steps-post", color="0.35", linewidth=1.0,
        linestyle="--", zorder=1,
    )  # fmt: skip
    _scale_axis(axes, cells[x.name], x)
    axes.set_xlabel(f"{x.label} ({x.direction} is better)", fontsize=9)
    axes.set_ylabel(y.label, fontsize=9)
    axes.set_title(panel.heading, fontsize=10, loc="left")
    axes.grid(True, which="major", color="0.9", linewidth=0.7)
    axes.tick_params(labelsize=8)
    axes.margins(x=0.12, y=0.14)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)


def _looks(cells: pd.DataFrame, style: Style) -> list[tuple[str, str]]:
    """The pairs of model and technique that are drawn apart; where a legend cannot tell, one."""
    models = dict.fromkeys(cells["model"]) if style.tells_models else [cells["model"].iloc[0]]
    if not style.tells_techniques:
        return [(model, cells["technique"].iloc[0]) for model in models]
    pairs = dict.fromkeys(zip(cells["model"], cells["technique"], strict=True))
    if style.tells_models:
        return list(pairs)
    return [(next(iter(models)), technique) for technique in dict.fromkeys(cells["technique"])]


def _scale_axis(axes: Axes, values: pd.Series, metric: Metric) -> None:
    """Use a logarithmic axis for what spans factors; two ticks at least, with their units."""
    low, high = values.min(), values.max()
    if metric.unit != "1" and low > 0 and high / low > LEAST_FOR_LOG:
        axes.set_xscale("log", base=2 if metric.unit == "B" else 10)
        if metric.unit != "B":
            axes.xaxis.set_major_locator(LogLocator(subs=tick_multiples(high / low)))
        axes.xaxis.set_minor_formatter(NullFormatter())
        name_tick = FuncFormatter(lambda value, _: format_value(value, metric.unit, 2))
    else:
        scale, unit = choose_scale(high, metric.unit)
        margin = 0.12 * (high - low) or 0.05 * high
        ticks = MaxNLocator(5).tick_values((low - margin) / scale, (high + margin) / scale)
        axes.xaxis.set_major_locator(FixedLocator([tick * scale for tick in ticks]))
        name_tick = FuncFormatter(lambda value, _: f"{value / scale:g} {unit}".strip())
    axes.xaxis.set_major_formatter(name_tick)


def tick_multiples(span: float) -> tuple[float, ...]:
    """Ticks in each decade: fewer where there are more decades, so that they stay apart."""
    if span > 100:
        return (1.0,)
    return (1.0, 3.0) if span > 30 else (1.0, 2.0, 5.0)


def _scale_shares(axes: Axes, values: pd.Series, metric: Metric) -> None:
    """Use a logit axis for shares that come near 1, where a point more is worth more."""
    axes.ticklabel_format(axis="y", useOffset=False)
    low, high = values.min(), values.max()
    ticks = [tick for tick in SHARE_TICKS if low <= tick <= high]
    if metric.unit == "1" and low > 0 and 0.9 < high < 1 and len(ticks) >= 2:
        axes.set_yscale("logit")
        axes.yaxis.set_major_locator(FixedLocator(SHARE_TICKS))
        axes.yaxis.set_minor_locator(NullLocator())
        axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))


def _members(cells: pd.DataFrame, x: Metric, y: Metric) -> np.ndarray:
    objectives = [Objective(metric.name, metric.direction) for metric in (x, y)]
    points = cells[[objective.name for objective in objectives]].to_numpy(float)
    return mark_frontier(points, [objective.direction == "higher" for objective in objectives])


def _error(cells: pd.DataFrame, metric: Metric) -> np.ndarray | None:
    """Distances to the interval's bounds, below and above, as matplotlib wants them."""
    if not metric.interval:
        return None
    low, high = (cells[f"{metric.name}_{end}"].to_numpy(float) for end in ("low", "high"))
    value = cells[metric.name].to_numpy(float)
    distances: np.ndarray = np.nan_to_num(np.clip([value - low, high - value], 0, None))
    return distances


def _name_members(axes: Axes, panel: Panel, x: Metric, y: Metric, style: Style) -> None:
    members = _members(panel.cells, x, y)

    def points(cells: pd.DataFrame) -> list[tuple[float, float]]:
        return list(zip(cells[x.name].astype(float), cells[y.name].astype(float), strict=True))

    front = panel.cells[members].sort_values(x.name)
    colours = [style.colours[model] if style.tells_models else "0.2" for model in front["model"]]
    names = list(front["technique" if style.tells_models else "model"])  # else the colour says it
    obstacles = points(panel.cells[~members].head(MOST_OBSTACLES))
    place_labels(axes, points(front), names, colours, obstacles, LABEL_SIZE)


def _draw_speedups(
    axes: Axes, cells: pd.DataFrame, threads: Sequence[int], names: Sequence[str],
    models: Sequence[str], style: Style,
) -> None:  # fmt: skip
    axes.axvline(1, color="0.6", linewidth=1)
    fewest = threads[0]
    base = cells[cells["threads"] == fewest].set_index(["model", "technique", "runtime"])
    for count, marker in zip(threads[1:], MARKERS, strict=False):
        for _, row in cells[cells["threads"] == count].iterrows():
            key = (row["model"], row["technique"], row["runtime"])
            if key not in base.index:
                continue
            one = base.loc[[key]].iloc[0]
            speedup = divide(one, row)
            place = names.index(variant_name(row, models))
            colour = style.colours[row["model"]]
            bounds = [speedup.low, speedup.high]
            axes.plot(bounds, [place, place], color=colour, linewidth=1.2)
            axes.plot(speedup.value, place, marker, color=colour, markersize=6)
    axes.set_xlabel(f"times as fast as with {counted(fewest, 'thread')}", fontsize=9)
    axes.grid(True, axis="x", color="0.9", linewidth=0.7)
    axes.tick_params(labelsize=8)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    if len(threads) > 2:
        shapes = [
            Line2D([], [], marker=marker, color="0.3", linestyle="", label=counted(count, "thread"))
            for count, marker in zip(threads[1:], MARKERS, strict=False)
        ]
        axes.legend(handles=shapes, fontsize=8, frameon=False)
