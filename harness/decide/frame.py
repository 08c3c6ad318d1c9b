"""The frame: a run's cells as a table, with units and directions as they came with the data."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace

import pandas as pd

from bench.errors import suggest
from harness.errors import UserError
from harness.grid import BASELINE
from harness.record import METRICS_KEY, SCHEMA_VERSION, VERSION_KEY, Metric
from harness.store import Run, read_cells

PLACE = ("device", "threads", "batch")
VARIANT = ("model", "technique", "runtime")
GROUP = ("task", *PLACE)


@dataclass(frozen=True)
class Frame:
    """Cells of a run, a row each, and the definitions of their metrics."""

    run_id: str
    cells: pd.DataFrame
    metrics: dict[str, Metric]

    @property
    def measured(self) -> pd.DataFrame:
        """The cells that were measured."""
        return self.cells[self.cells["status"] == "measured"]

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


def load_frame(run: Run) -> Frame:
    """Return the cells of a run; raise UserError if it was written by a newer version."""
    metadata = run.read("cells").schema.metadata or {}
    version = int(metadata.get(VERSION_KEY, b"0"))
    if version > SCHEMA_VERSION:
        raise UserError(
            f"{run.folder} has schema version {version}, this paretogrid reads {SCHEMA_VERSION}. "
            "Update paretogrid."
        )
    described = json.loads(metadata.get(METRICS_KEY, b"{}"))
    metrics = {name: Metric(name, **facts) for name, facts in described.items()}
    return Frame(run.run_id, read_cells(run), metrics)


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
    averaged = grouped.agg({**kept, **rules}).reset_index()
    # A mean of some seeds is none of all: where a seed did not reach a target, there is none.
    complete = (grouped.size().to_numpy() == grouped[list(rules)].count().to_numpy().T).T
    averaged[list(rules)] = averaged[list(rules)].where(complete)
    undirected = [metric.name for metric in frame.metrics.values() if metric.direction == "none"]
    averaged[[name for name in undirected if name in averaged]] = float("nan")
    return averaged.assign(seeds=grouped.size().to_numpy())


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
