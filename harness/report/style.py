"""Style: colours, markers and the legend that every picture of a report shares."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import ceil

import pandas as pd
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000", "#999999")
MARKERS = ("o", "s", "^", "D", "v", "P", "X", "*", "<", ">", "p", "h", "d", "8", "H")
BOUNDS = {"compute": "#D55E00", "memory": "#0072B2", "overhead": "#009E73"}
"""The colour of what bounds a cell."""
LEGEND_ROW_IN = 0.2
MOST_MODELS = 24
MOST_DRAWN = 500
"""Points that a vector picture holds; more are pixels in it."""


@dataclass(frozen=True)
class Style:
    """Colours of models and markers of techniques, the same in every picture of a report."""

    colours: dict[str, str]
    markers: dict[str, str]

    @classmethod
    def of(cls, cells: pd.DataFrame) -> Style:
        """Give each model a colour and each technique a marker, in order of appearance."""
        models, techniques = dict.fromkeys(cells["model"]), dict.fromkeys(cells["technique"])
        shapes = MARKERS if len(techniques) <= len(MARKERS) else MARKERS[:1]
        return cls(
            {name: COLOURS[i % len(COLOURS)] for i, name in enumerate(models)},
            {name: shapes[i % len(shapes)] for i, name in enumerate(techniques)},
        )

    @property
    def tells_models(self) -> bool:
        """Tell whether a legend of models can be read; of very many it cannot."""
        return len(self.colours) <= MOST_MODELS

    @property
    def tells_techniques(self) -> bool:
        """Tell whether each technique has a marker of its own; too many share one."""
        return len(self.markers) <= len(MARKERS)


def draw_legend(
    figure: Figure, models: Sequence[str], techniques: Sequence[str], style: Style
) -> None:
    """Put the techniques' markers and the models' colours below a figure."""
    shapes = [
        Line2D([], [], marker=style.markers[name], color="0.3", linestyle="", label=name,
               markerfacecolor="white", markersize=6)
        for name in techniques
    ]  # fmt: skip
    figure.legend(
        handles=shapes, loc="lower left", ncols=3, fontsize=8, frameon=False,
        bbox_to_anchor=(0.01, 0),
    )  # fmt: skip
    if len(models) > 1:
        rows = ceil(len(techniques) / 3)
        offset = LEGEND_ROW_IN * rows / figure.get_figheight()
        colours = [
            Line2D([], [], marker="o", color=style.colours[name], linestyle="", label=name,
                   markersize=6)
            for name in models
        ]  # fmt: skip
        figure.legend(
            handles=colours, loc="lower left", ncols=4, fontsize=8, frameon=False,
            bbox_to_anchor=(0.01, offset),
        )  # fmt: skip
