"""Claimed against measured: less work promised, and what the clock says of it."""

from __future__ import annotations

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

from harness.decide.frame import GROUP, Frame, average_seeds
from harness.decide.frontier import name_group
from harness.grid import BASELINE
from harness.report.style import BOUNDS

COLUMNS = 2
CHANGED = 0.01
"""A variant that has this share more or less work than its baseline claims something."""


def find_gains(frame: Frame) -> pd.DataFrame:
    """Return variants that have other MACs than their baseline, with `claimed` and `measured`.

    claimed: the baseline's MACs over the variant's. measured: the baseline's latency over the
    variant's, with the bounds of its interval.
    """
    cells = average_seeds(frame)
    if not (frame.has("macs") and frame.has("latency_ratio")):
        return cells[:0].assign(claimed=[], measured=[], measured_low=[], measured_high=[])
    keys = ["model", "runtime", *GROUP]
    baselines = cells[cells["technique"] == BASELINE][[*keys, "macs"]]
    beside = cells[keys].merge(baselines, on=keys, how="left")["macs"].to_numpy(float)
    gains = cells.assign(
        claimed=beside / cells["macs"],
        measured=1 / cells["latency_ratio"],
        measured_low=1 / cells["latency_ratio_high"],
        measured_high=1 / cells["latency_ratio_low"],
    )
    changed = (gains["claimed"] - 1).abs() > CHANGED
    return gains[changed & gains["measured"].notna()]


def draw_gains(gains: pd.DataFrame, title: str) -> Figure:
    """Return a panel for each place: times less work across, times faster up."""
    parts = dict(iter(gains.groupby(list(GROUP), dropna=False)))
    columns = min(COLUMNS, len(parts))
    rows = -(-len(parts) // columns)
    figure = Figure(figsize=(5 * columns + 1.2 * (columns == 1), 4 * rows), layout="constrained")
    figure.suptitle(title, x=0.02, ha="left")
    panels = figure.subplots(rows, columns, squeeze=False, sharex=True, sharey=True)
    for axes, (key, part) in zip(panels.flat, parts.items(), strict=False):
        _draw_panel(axes, part)
        axes.set_title(name_group(dict(zip(GROUP, key, strict=True))), fontsize=9, loc="left")
    for axes in panels.flat[len(parts) :]:
        axes.set_visible(False)
    return figure


def _draw_panel(axes: Axes, part: pd.DataFrame) -> None:
    ends = np.array([part["claimed"].min(), part["claimed"].max()])
    axes.plot(ends, ends, color="0.5", linestyle="--", linewidth=1, label="as promised")
    axes.axhline(1, color="0.8", linewidth=1, zorder=0)
    for bound, rows in part.groupby(part["bound"].fillna("unknown")):
        error = [rows["measured"] - rows["measured_low"], rows["measured_high"] - rows["measured"]]
        axes.errorbar(
            rows["claimed"], rows["measured"], np.nan_to_num(np.clip(error, 0, None)), fmt="o",
            markersize=4, linewidth=0.8, color=BOUNDS.get(str(bound), "0.5"), label=str(bound),
        )  # fmt: skip
    plain = FuncFormatter(lambda value, _: f"{value:g}")
    axes.set(xscale="log", yscale="log", xlabel="times fewer MACs", ylabel="times as fast")
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        axis.set_major_formatter(plain)
        axis.set_minor_formatter(NullFormatter())
    axes.grid(alpha=0.3)
    axes.legend(fontsize=7, title="bound by", title_fontsize=7)
