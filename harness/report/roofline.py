"""The roofline: what a machine can reach, and how near each cell comes, with what bounds it."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import EngFormatter

from harness.report.style import BOUNDS

COLUMNS = 2


def draw_rooflines(cells: pd.DataFrame, roofs: dict[str, Any], title: str) -> Figure | None:
    """Return a panel for each device and thread count; None where no cell was explained.

    Across: FLOPs for each byte moved; up: FLOPs a second that the cell achieved, 2 a MAC. Lines:
    the rate of matrix products by type, and of copies from the largest working set.
    Source: Williams, Waterman and Patterson, "Roofline", CACM 2009.
    """
    places = {name: _cells_at(cells, name) for name in roofs}
    places = {name: part for name, part in places.items() if len(part)}
    if not places:
        return None
    rows = -(-len(places) // COLUMNS)
    columns = min(COLUMNS, len(places))
    figure = Figure(
        figsize=(5.6 * columns + 1.2 * (columns == 1), 3.8 * rows), layout="constrained"
    )
    figure.suptitle(title, x=0.02, ha="left")
    panels = figure.subplots(rows, columns, squeeze=False)
    for axes, (name, part) in zip(panels.flat, places.items(), strict=False):
        _draw_panel(axes, part, roofs[name])
        axes.set_title(name, fontsize=9)
    for axes in panels.flat[len(places) :]:
        axes.set_visible(False)
    return figure


def _cells_at(cells: pd.DataFrame, place: str) -> pd.DataFrame:
    device, _, threads = place.partition(", threads ")
    same = cells["device"] == device
    if threads:
        same &= cells["threads"] == int(threads)
    explained = cells[["arithmetic_intensity", "macs", "latency_s"]].notna().all(axis=1)
    return cells[same & explained & (cells["macs"] > 0) & (cells["arithmetic_intensity"] > 0)]


def _draw_panel(axes: Axes, cells: pd.DataFrame, roofs: dict[str, Any]) -> None:
    intensity = cells["arithmetic_intensity"].to_numpy(float)
    examples = cells["call_examples"].fillna(cells["batch"]).astype(float)
    reached = (2 * cells["macs"] * examples / cells["latency_s"]).to_numpy(float)
    bandwidth = roofs["bytes_per_s"][-1][1]
    rates = {name: roofs["flops_per_s"][name] for name in _types(cells, roofs)}
    right = max(intensity.max(), max(rates.values()) / bandwidth) * 3
    across = np.geomspace(intensity.min() / 3, right, 200)
    for name, rate in rates.items():
        axes.plot(across, np.minimum(rate, across * bandwidth), color="0.4", linewidth=1)
        axes.annotate(name, (right, rate), fontsize=7, ha="right", va="bottom", color="0.3")
    for bound, colour in BOUNDS.items():
        part = (cells["bound"] == bound).to_numpy(bool)
        if part.any():
            axes.scatter(
                intensity[part], reached[part], s=14, color=colour, alpha=0.7, linewidths=0,
                label=bound,
            )  # fmt: skip
    axes.set(xscale="log", yscale="log", xlabel="FLOPs for each byte moved")
    axes.set_ylabel("FLOPs a second")
    axes.yaxis.set_major_formatter(EngFormatter())
    axes.xaxis.set_major_formatter(EngFormatter())
    axes.grid(alpha=0.3)
    axes.legend(fontsize=7, loc="lower right", title="bound by", title_fontsize=7)


def _types(cells: pd.DataFrame, roofs: dict[str, Any]) -> list[str]:
    """The types in which the cells' products ran, as far as their roofs are known."""
    used = {name.strip() for text in cells["dtype_in_effect"].dropna() for name in text.split("+")}
    known = roofs["flops_per_s"]
    return [name for name in known if name in used] or ["float32"]
