"""The store: one folder a run, Parquet inside; the only file that writes results/.

A cell's result is durable when it ends: samples and examples first, then its row, each under a
temporary name, synced and renamed. `compact` joins the parts at the end of a run.
"""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
from pyarrow import compute

from harness.durable import remove_leftovers, write_durably
from harness.errors import UserError
from harness.grid import BASELINE
from harness.locks import is_locked, wait_for_lock
from harness.parquet import read_groups, read_schema, read_whole
from harness.record import EXAMPLES_SCHEMA, SAMPLES_SCHEMA, Record, schema
from harness.stats import correct_p_values

TABLES = {"cells": schema(), "samples": SAMPLES_SCHEMA, "examples": EXAMPLES_SCHEMA}
PARTS = "parts"
BATCH_ROWS = 500_000
"""Of a table that may be larger than memory, handled at once."""
MANY_CELLS = 100_000
"""Above so many a table of them is not copied."""
LOCK_WAIT_S = 2.0
"""Who looks whether a run is being measured holds it for a moment."""
CONTROL_PREFIX = "control-"
"""Of the samples that belong to a heat and to no cell."""


def control_id(heat: str) -> str:
    """Return what the control's samples of a heat are kept under, in place of a cell's id."""
    return f"{CONTROL_PREFIX}{hashlib.sha256(heat.encode()).hexdigest()[:12]}"


class Run:
    """One run's folder in the store."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.run_id = folder.name

    @classmethod
    def create(cls, root: Path, name: str, facts: dict[str, Any]) -> Run:
        """Make the folder of a new run, named after the grid and the time, and note its facts."""
        stamp = datetime.now(UTC).strftime("%Y%m%d-%H%M%S")
        for number in range(1, 1_000):
            run_id = f"{name}-{stamp}" + (f"-{number}" if number > 1 else "")
            try:
                (root / run_id).mkdir(parents=True)  # fails where another run has this name
                (root / run_id / PARTS).mkdir()
            except FileExistsError:
                continue
            except OSError as error:
                raise UserError(
                    f"Cannot write results to {root}: {error.strerror}. "
                    "Name another folder with --results."
                ) from None
            run = cls(root / run_id)
            created = datetime.now(UTC).isoformat(timespec="seconds")
            run.write_facts({"run_id": run_id, "created_at": created, "state": "running", **facts})
            return run
        raise UserError(f"Too many runs named {name} in {root}.")

    @contextmanager
    def lock(self) -> Iterator[None]:
        """Hold the run for writing; raise UserError if another process does."""
        try:
            file = (self.folder / ".lock").open("w")
        except OSError as error:
            raise UserError(
                f"Cannot write to {self.folder}: {error.strerror}. A run is measured further by "
                "the user who owns its folder; copy the folder to go on with the copy."
            ) from None
        with file:
            if not wait_for_lock(file, LOCK_WAIT_S):
                raise UserError(
                    f"The run {self.run_id} is being measured by another process, or what it had "
                    "timed when it was killed is being made results."
                )
            for folder in (self.folder, self.folder / PARTS):
                remove_leftovers(folder)
            yield

    def facts(self) -> dict[str, Any]:
        """Return what was noted of the run: grid, machine, state."""
        path = self.folder / "run.json"
        try:
            facts: dict[str, Any] = json.loads(path.read_text())
        except OSError as error:
            raise UserError(f"Cannot read {path}: {error.strerror}.") from None
        except ValueError as error:
            raise UserError(f"{path} is not whole: {error}.") from None
        return facts

    def state(self) -> str:
        """Return "running", "finished" or "interrupted", as one that was killed is, too."""
        noted = str(self.facts().get("state", ""))
        killed = noted == "running" and not is_locked(self.folder / ".lock")
        return "interrupted" if killed else noted

    def write_facts(self, facts: dict[str, Any]) -> None:
        """Note the facts of the run."""
        text = json.dumps(facts, indent=1, sort_keys=True)
        _write(self.folder / "run.json", lambda path: path.write_text(text))

    def add(
        self, record: Record, samples: pa.Table | None = None, examples: pa.Table | None = None
    ) -> None:
        """Keep a cell's result; it is durable when this returns."""
        parts = self.folder / PARTS
        try:
            parts.mkdir(exist_ok=True)
        except OSError as error:
            raise UserError(f"Cannot write {parts}: {error.strerror}.") from None
        for table_name, table in (("samples", samples), ("examples", examples)):
            if table is not None and table.num_rows:
                _write_table(table, parts / f"{record.cell.id}.{table_name}.parquet")
        self.add_row(record)

    def add_row(self, record: Record) -> None:
        """Keep a cell's row, in the place of the one it has."""
        row = pa.Table.from_pylist([record.to_row()], schema=TABLES["cells"])
        _write_table(row, self.folder / PARTS / f"{record.cell.id}.cells.parquet")

    def write_cells(self, rows: pa.Table) -> None:
        """Write the rows of a run that was not measured here, all at once, under this run's id."""
        place = rows.schema.get_field_index("run_id")
        ids = pa.array([self.run_id] * len(rows), pa.string())
        _write_table(rows.set_column(place, "run_id", ids), self.folder / "cells.parquet")
        shutil.rmtree(self.folder / PARTS, ignore_errors=True)

    def add_control(self, name: str, samples: pa.Table) -> None:
        """Keep the samples of a heat's control workload, which has no row of its own."""
        parts = self.folder / PARTS
        parts.mkdir(exist_ok=True)
        _write_table(samples, parts / f"{name}.samples.parquet")

    def finished(self) -> set[str]:
        """Return the ids of the cells that have a row."""
        found = {path.name.split(".")[0] for path in self._parts("cells")}
        if (self.folder / "cells.parquet").is_file():
            table = read_whole(self.folder / "cells.parquet", ["cell_id"])
            found |= set(table["cell_id"].to_pylist())
        return found

    def compact(self) -> None:
        """Join the parts to one file a table; safe to interrupt and to repeat."""
        rows = self.read("cells", ["heat"])
        controls = {control_id(heat) for heat in set(rows["heat"].to_pylist()) - {None}}
        done = pa.array(sorted({*rows["cell_id"].to_pylist(), *controls}), pa.string())
        for name in ("samples", "examples"):  # rows last: they say what is finished
            self._join(name, done)
        cells = correct_over_grid(self.read("cells").sort_by("started_at"))
        _write_table(cells, self.folder / "cells.parquet")
        shutil.rmtree(self.folder / PARTS, ignore_errors=True)

    def _join(self, name: str, done: pa.Array) -> None:
        """Write the rows of finished cells and their heats' controls to one file, by batches."""

        def write(path: Path) -> None:
            with (
                path.open("wb") as file,
                pq.ParquetWriter(file, TABLES[name], compression="zstd") as writer,
            ):
                for table in self.batches(name):
                    kept = compute.is_in(table["cell_id"], value_set=done)
                    rows = [TABLES[name].empty_table(), table.filter(kept)]
                    joined = pa.concat_tables(rows, promote_options="default")
                    if len(joined):  # a row group each: parts stay whole
                        wanted = joined.select(TABLES[name].names)
                        writer.write_table(wanted, row_group_size=len(wanted))

        _write(self.folder / f"{name}.parquet", write)

    def read(self, name: str, columns: Sequence[str] | None = None) -> pa.Table:
        """Return a table of the run: joined file and parts together, each cell once.

        With `columns` these and cell_id alone are read.
        """
        wanted = None if columns is None else list(dict.fromkeys(["cell_id", *columns]))
        tables = list(self._tables(name, wanted))
        if not tables:
            return TABLES[name].empty_table()
        return pa.concat_tables(tables, promote_options="default")

    def batches(
        self, name: str, columns: Sequence[str] | None = None, rows: int = BATCH_ROWS
    ) -> Iterator[pa.Table]:
        """Yield a table of the run in parts of so many rows or some more, in order.

        It may be larger than memory. Rows of a cell are in one batch, or in neighbours.
        """
        waiting: list[pa.Table] = []
        for table in self._tables(name, columns):
            waiting.append(table)
            if sum(map(len, waiting)) >= rows:
                yield pa.concat_tables(waiting, promote_options="default")
                waiting = []
        if waiting:
            yield pa.concat_tables(waiting, promote_options="default")

    def _tables(self, name: str, columns: Sequence[str] | None) -> Iterator[pa.Table]:
        """Yield the row groups of the joined file and then the parts, each cell from one only."""
        joined = self.folder / f"{name}.parquet"
        parts = self._parts(name)
        fresh = pa.array([path.name.split(".")[0] for path in parts], pa.string())
        if joined.is_file():
            # A part that outlived an interrupted compaction is in both.
            for table, again in read_groups(joined, columns, fresh):
                yield table.filter(compute.invert(again)) if len(fresh) else table
        gone = []
        for path in parts:
            try:
                yield read_whole(path, columns)
            except FileNotFoundError:
                gone.append(path.name.split(".")[0])
        if gone:  # joined meanwhile
            for table, chosen in read_groups(joined, columns, pa.array(gone, pa.string())):
                yield table.filter(chosen)

    def schema(self) -> pa.Schema:
        """Return the schema of the run's cells, with what its metadata say of their units."""
        joined, parts = self.files("cells")
        files = [*joined, *parts.values()]
        try:
            return read_schema(files[0]) if files else TABLES["cells"]
        except FileNotFoundError:  # joined meanwhile
            return read_schema(self.folder / "cells.parquet")

    def files(self, name: str) -> tuple[list[Path], dict[str, Path]]:
        """Return the joined file of a table, if there is one, and the part of each cell.

        A cell that has a part is to be read from there.
        """
        joined = self.folder / f"{name}.parquet"
        parts = {path.name.split(".")[0]: path for path in self._parts(name)}
        return [joined] if joined.is_file() else [], parts

    def has_parts(self) -> bool:
        """Tell whether cells wait to be joined."""
        return bool(self._parts("cells"))

    def _parts(self, name: str) -> list[Path]:
        return sorted((self.folder / PARTS).glob(f"*.{name}.parquet"))


def correct_over_grid(cells: pa.Table) -> pa.Table:
    """Return the rows with q-values: of many p-values below 0.05, some are luck."""
    p_values = cells["latency_ratio_p_value"].to_numpy(zero_copy_only=False)
    compared = cells["technique"].to_numpy(zero_copy_only=False) != BASELINE
    q_values = correct_p_values(np.where(compared, p_values, np.nan))
    place = cells.schema.get_field_index("latency_ratio_q_value")
    column = pa.array(q_values, pa.float64(), from_pandas=True)
    return cells.set_column(place, cells.schema.field(place), column)


def read_cells(run: Run, columns: Sequence[str] | None = None) -> pd.DataFrame:
    """Return the run's cells, a row each, in the order in which they were measured."""
    table = run.read("cells", columns)
    if run.has_parts():  # what was joined is in order
        table = table.sort_by("started_at")
    # Columns are handed over one by one: a million cells are not in memory twice.
    frame: pd.DataFrame = table.to_pandas(split_blocks=True, self_destruct=True)
    return frame if len(frame) > MANY_CELLS else frame.copy()  # whose columns are easily added to


def _write_table(table: pa.Table, path: Path) -> None:
    def write(temporary: Path) -> None:
        with temporary.open("wb") as file:  # of a name, Arrow would make an address: `a:b/c`
            pq.write_table(table, file, compression="zstd")

    _write(path, write)


def _write(path: Path, write: Callable[[Path], Any]) -> None:
    try:
        write_durably(path, write)
    except OSError as error:
        raise UserError(f"Cannot write {path}: {error}.") from None
