"""The frame: a run's cells as a table, with units and directions as they came with the data."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from bench.errors import suggest
from harness.errors import UserError
from harness.grid import BASELINE
from harness.record import METRICS_KEY, SCHEMA_VERSION, TIMED, VERSION_KEY, Metric
from harness.store import Run, read_cells

PLACE = ("device", "threads", "batch")
VARIANT = ("model", "technique", "runtime")
GROUP = ("task", *PLACE)
APART = (*VARIANT, *GROUP, "cell_id", "seed", "status", "started_at", "headline_blocks")
"""Columns that tell cells apart, and what any decision needs to know of them."""


@dataclass(frozen=True)
class Frame:
    """Cells of a run, a row each, and the definitions of their metrics."""

    run_id: str
    cells: pd.DataFrame
    metrics: dict[str, Metric]

    @cached_property
    def measured(self) -> pd.DataFrame:
        """The cells that were measured, in part or as wanted."""
        measured = self.cells["status"].isin(TIMED)
        return self.cells if measured.all() else self.cells[measured]  # a copy may be large

    def metric(self, name: str) -> Metric:
        """Return a metric's definition; raise UserError with the nearest name."""
        if name in self.metrics:
            return self.metrics[name]
        raise UserError(
            f"Unknown metric {name!r}.{suggest(name, self.metrics)} "
            f"`paretogrid list metrics` shows all {len(self.metrics)}."
        )

    def by_task(self) -> dict[str, Frame]:
        """Return the frame's part for each task, by name: tasks are judged by their own metrics."""
        parts = self.cells.groupby("task", dropna=False)
        return {str(task): replace(self, cells=cells) for task, cells in parts}

    def has(self, name: str) -> bool:
        """Tell whether any measured cell has this metric."""
        return name in self.cells and bool(self.measured[name].notna().any())


def load_frame(run: Run, metrics: Sequence[str] | None = None) -> Frame:
    """Return the cells of a run; raise UserError if it was written by a newer version.

    With `metrics` only these and what tells cells apart are read: a run of a million cells has
    more columns than fit in memory.
    """
    metadata = run.schema().metadata or {}
    version = int(metadata.get(VERSION_KEY, b"0"))
    if version > SCHEMA_VERSION:
        raise UserError(
            f"{run.folder} has schema version {version}, this paretogrid reads {SCHEMA_VERSION}. "
            "Update paretogrid."
        )
    described = json.loads(metadata.get(METRICS_KEY, b"{}"))
    known = {name: Metric(name, **facts) for name, facts in described.items()}
    columns = None
    if metrics is not None:
        asked = [known[name] for name in metrics if name in known]
        columns = [*APART, *(column for metric in asked for column in metric.columns())]
    return Frame(run.run_id, read_cells(run, columns), known)


def average_seeds(frame: Frame) -> pd.DataFrame:
    """Return measured cells with one row a variant and place: the mean over seeds.

    `seeds` counts them. With several seeds, an interval spans the seeds' own intervals, and
    p-values, which have no mean, are left out.
    """
    keys = [*VARIANT, *GROUP]
    cells = frame.measured
    if cells.empty or cells["seed"].nunique() == 1:
        return cells.assign(seeds=1)
    columns = [column for metric in frame.metrics.values() for column in metric.columns()]
    rules = {
        column: "min" if column.endswith("_low") else "max" if column.endswith("_high") else "mean"
        for column in columns
        if column in cells
    }
    kept = {
        column: "first" for column in cells.columns if column not in rules and column not in keys
    }
    grouped = cells.groupby(keys, sort=False, dropna=False)
    averaged = grouped.agg({**kept, **rules}).copy().reset_index()  # copies: one block again
    # A mean of some seeds is none of all: where a seed did not reach a target, there is none.
    complete = (grouped.size().to_numpy() == grouped[list(rules)].count().to_numpy().T).T
    averaged[list(rules)] = averaged[list(rules)].where(complete)
    averaged[[name for name in rules if name.endswith(("_p_value", "_q_value"))]] = float("nan")
    return averaged.copy().assign(seeds=grouped.size().to_numpy())


def seed_rows(frame: Frame, variants: pd.DataFrame) -> list[NDArray[np.int64]]:
    """Return for each row of `average_seeds` the places of its seeds among the measured cells."""
    keys = [*VARIANT, *GROUP]
    cells = frame.measured
    order = np.argsort(cells["seed"].to_numpy(), kind="stable")
    places: dict[tuple[object, ...], list[int]] = {}
    names = list(cells[keys].astype(object).fillna("").itertuples(index=False, name=None))
    for place in order:
        places.setdefault(names[place], []).append(int(place))
    wanted = variants[keys].astype(object).fillna("").itertuples(index=False, name=None)
    return [np.array(places[name]) for name in wanted]


def variant_name(row: pd.Series, models: Sequence[str]) -> str:
    """Return what a chart calls a variant; the model is named where there are several."""
    technique = str(row["technique"])
    parts = [str(row["model"])] if len(models) > 1 else []
    return " · ".join([*parts, technique])


def baseline_of(row: pd.Series, cells: pd.DataFrame) -> pd.Series | None:
    """Return the baseline cell of the same model and place, if it was measured."""
    same = cells["technique"] == BASELINE
    for column in ("model", "runtime", *GROUP):
        same &= cells[column] == row[column]
    found = cells[same]
    return None if found.empty else found.iloc[0]
