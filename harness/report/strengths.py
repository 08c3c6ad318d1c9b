"""Strength curves: how quality falls as a technique is turned up, with the spread over seeds."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import astuple, dataclass
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, NullFormatter

from harness.decide.mean import mean_interval
from harness.record import Metric
from harness.report.style import COLOURS, MOST_DRAWN

LEAST_STRENGTHS = 3
COLUMNS = 4
NUMBER = re.compile(r"(?<![\w.-])-?\d+(?:\.\d+)?(?:e-?\d+)?(?![\w.])")


@dataclass(frozen=True)
class Curve:
    """A technique at several strengths on one model; one row for each strength, ascending.

    values: strength, mean quality over seeds, and the bounds of its 95 % interval (t over seeds,
    cut at what the quality can be; NaN with one seed).
    """

    model: str
    technique: str
    values: np.ndarray


def find_curves(
    cells: pd.DataFrame, quality: str, spelled: Mapping[str, str] | None = None
) -> list[Curve]:
    """Return the curves of techniques that differ in one number only.

    The first number in parentheses is the strength; what is left of the text names the curve.
    `spelled` gives the text of techniques whose first parameter is left out.
    """
    first = cells.drop_duplicates(["model", "technique", "seed"])
    known_as = spelled or {}
    named = [_split(known_as.get(name) or name) for name in first["technique"]]
    known = first.assign(
        curve=[name for name, _ in named], strength=[value for _, value in named]
    ).dropna(subset=["strength", quality])
    curves = []
    for (model, curve), rows in known.groupby(["model", "curve"], sort=False):
        if rows["strength"].nunique() < LEAST_STRENGTHS:
            continue
        values = np.array([
            (strength, *astuple(mean_interval(group[quality])))
            for strength, group in rows.groupby("strength")
        ])  # fmt: skip
        least = 0.0 if quality == "accuracy" else -np.inf  # R² and fidelity have no least
        values[:, 2:] = values[:, 2:].clip(least, 1.0)
        curves.append(Curve(str(model), str(curve), values))
    return curves


def draw_strengths(curves: list[Curve], quality: Metric, title: str) -> Figure:
    """Return a figure with a panel for each technique and a line for each model."""
    names = list(dict.fromkeys(curve.technique for curve in curves))
    rows = -(-len(names) // COLUMNS)
    figure = Figure(figsize=(3.1 * COLUMNS, 2.3 * rows + 0.8), layout="constrained")
    figure.suptitle(title)
    panels = list(figure.subplots(rows, COLUMNS, squeeze=False, sharey=True).flat)
    models = list(dict.fromkeys(curve.model for curve in curves))
    for axes, name in zip(panels, names, strict=False):
        for curve in (one for one in curves if one.technique == name):
            strength, mean, low, high = curve.values.T
            colour = COLOURS[models.index(curve.model) % len(COLOURS)]
            spread = np.nan_to_num([mean - low, high - mean])
            axes.errorbar(
                strength, mean, spread, color=colour, marker="o", markersize=3, linewidth=1,
                capsize=2, label=curve.model, rasterized=len(curve.values) > MOST_DRAWN,
            )  # fmt: skip
        axes.set_title(name, fontsize=8)
        axes.tick_params(labelsize=7)
        axes.grid(alpha=0.3)
        spans = [c.values[:, 0] for c in curves if c.technique == name]
        positive = [span for span in spans if span[0] > 0]
        if positive and max(span[-1] / span[0] for span in positive) > 30:
            axes.set_xscale("log")
            axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
            axes.xaxis.set_minor_formatter(NullFormatter())
    for axes in panels[len(names) :]:
        axes.set_visible(False)
    figure.supylabel(quality.label, fontsize=9)
    known: dict[str, Any] = {}
    for axes in panels[: len(names)]:
        handles, labels = axes.get_legend_handles_labels()
        known |= dict(zip(labels, handles, strict=True))
    figure.legend(
        known.values(), known.keys(), loc="outside lower center", ncols=len(models), fontsize=8
    )
    return figure


def _split(technique: str) -> tuple[str, float]:
    """The curve a technique belongs to and its strength: "prune(0.5) + x" is ("prune(·) + x", 0.5).

    Only a number inside parentheses counts, not one in a name.
    """
    opened = technique.find("(")
    found = NUMBER.search(technique, opened) if opened >= 0 else None
    if found is None:
        return technique, float("nan")
    return f"{technique[: found.start()]}·{technique[found.end() :]}", float(found[0])
