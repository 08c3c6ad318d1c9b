"""Outcomes: which cells of a run have a result, which a partial one, and what is kept of each."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

import pyarrow as pa

from harness.record import TIMED, Record
from harness.store import Run
from harness.sweep.plan import Plan

KNOWN = ("status", "heat", "started_at", "samples", "energy_j", "energy_source")
"""What is asked of a row: where it is from, and what no heat measures again."""


class Outcomes:
    """What became of a run's cells, as its rows say and as it goes on.

    retry: statuses of rows that do not count as results. Such a row is replaced, not taken away.
    rows: the cells' rows. partial: for each cell with a partial result, its heat.
    done: the cells that are not to be measured in this pass any more. heats: the names taken.
    """

    def __init__(self, run: Run, retry: Collection[str] = ()) -> None:
        rows = run.read("cells", KNOWN).to_pylist()
        again = {"partial", *retry}
        self.rows = {row["cell_id"]: row for row in rows}
        self.partial = {row["cell_id"]: row["heat"] for row in rows if row["status"] == "partial"}
        self.done = {row["cell_id"] for row in rows if row["status"] not in again}
        self.heats = {row["heat"] for row in rows}
        self.failures = 0
        self._run = run

    def count_left(self, plan: Plan) -> int:
        """Return how many cells have no whole result yet."""
        return len(plan.grid.expand()) - len(self.done - self.partial.keys())

    def of_heat(self, heat: str) -> dict[str, dict[str, Any]]:
        """Return the row of each cell whose result is of a heat that goes on now."""
        here = (row for row in self.rows.values() if row["heat"] == heat)
        return {row["cell_id"]: row for row in here if row["status"] in TIMED}

    def keep(
        self, record: Record, samples: pa.Table | None = None, examples: pa.Table | None = None
    ) -> None:
        """Keep a cell's result; what was timed of a partial one outlives a failure."""
        cell = record.cell.id
        self.failures += record.status == "failed"
        if record.status in TIMED or cell not in self.partial:
            self._run.add(record, samples, examples)
            row = record.to_row()
            if record.status == "partial":
                self.partial[cell] = record.conditions["heat"]
            elif record.status == "measured":
                self.partial.pop(cell, None)
            self.rows[cell] = {name: row[name] for name in ("cell_id", *KNOWN)}
        self.done.add(cell)
