"""Tables: CSV files of others, read as text, and their numbers brought to our units."""

from __future__ import annotations

import csv
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa

from bench.errors import suggest
from harness.decide.units import to_metric_unit
from harness.errors import UserError
from harness.grid import identify
from harness.record import METRICS, schema
from harness.wording import counted

AXES = ("model", "technique", "device", "threads", "batch", "runtime", "seed")
PLAIN: dict[str, Any] = {
    "technique": "baseline", "runtime": "eager", "seed": 0, "status": "measured",
    "failure_kind": "", "message": "", "realization": "", "git_commit": "",
}  # fmt: skip
"""What a published cell has where its table does not say."""
MOST_NAMED = 5


@dataclass(frozen=True)
class Published:
    """Cells made from published tables, and what is to be told of how they were made.

    cells: columns of a record, a row each; what a table does not say is absent. facts: JSON-able,
    kept with the run.
    """

    cells: pd.DataFrame
    told: tuple[str, ...]
    facts: dict[str, Any] = field(default_factory=dict)


def read_table(path: Path) -> pd.DataFrame:
    """Return a CSV file as text, blanks around it removed; raise UserError if it is none.

    Separated by commas, semicolons or tabs, whichever give most columns; `attrs["separator"]` says
    which. A row may end in separators with nothing behind them; short rows are filled up with empty
    text.
    """
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            first = file.readline()
            file.seek(0)
            mark = max(",;\t", key=lambda one: len(next(csv.reader([first], delimiter=one), [])))
            rows = [row for row in csv.reader(file, delimiter=mark, skipinitialspace=True) if row]
    except FileNotFoundError:
        raise UserError(f"There is no file {path}.") from None
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise UserError(f"Cannot read {path} as a CSV file: {error}.") from None
    if not rows:
        raise UserError(f"Cannot read {path} as a CSV file: it is empty.")
    rows = [[text.strip() for text in row] for row in rows]
    names, *rows = rows
    if not rows:
        raise UserError(f"{path} has names of columns and no row.")
    while names and not names[-1]:
        names.pop()
    if len(set(names)) < len(names):
        raise UserError(f"{path} has two columns of one name: {', '.join(names)}.")
    for number, row in enumerate(rows, 1):
        if any(row[len(names) :]):
            raise UserError(
                f"{path}: row {number} has {counted(len(row), 'value')} for "
                f"{counted(len(names), 'column')}: "
                f"{mark.join(row)[:80]}. A value that holds a {mark!r} needs quotes."
            )
    full = [(row + [""] * len(names))[: len(names)] for row in rows]
    table = pd.DataFrame(full, columns=pd.Index(names, dtype=str), dtype=str)
    table.attrs["separator"] = mark
    return table


def require_columns(table: pd.DataFrame, names: tuple[str, ...], path: Path, what: str) -> None:
    """Raise UserError where a table lacks a column that `what` has."""
    for name in names:
        if name not in table:
            raise UserError(
                f"{path} has no column {name!r} and is not {what}."
                f"{suggest(name, list(table.columns))} Its columns: {', '.join(table.columns)}."
            )


def read_numbers(column: pd.Series, unit: str = "", metric: str = "") -> pd.Series:
    """Return a column of plain numerals in the metric's unit; what is no number is NaN.

    A % sign belongs to the number where the unit is none or a percentage. Raises UserError for a
    unit that does not fit.
    """
    known = {one.name: one.unit for one in METRICS}
    of = known.get(metric, "1")
    scale = to_metric_unit(1.0, unit, of, metric or str(column.name))
    percent = column.str.endswith("%")
    bare = column.str.removesuffix("%").where(percent & (unit in ("", "%")) & (of == "1"), column)
    scales = pd.Series(scale, column.index).where(bare == column, 0.01)
    numbers = pd.to_numeric(bare, errors="coerce") * scales
    return numbers.replace([np.inf, -np.inf], np.nan)


def make_cells(cells: pd.DataFrame, started_at: str) -> pa.Table:
    """Return the rows of a run to come; raise UserError where two rows would be one cell."""
    rows = cells.assign(started_at=started_at)
    for name, value in PLAIN.items():
        if name not in rows:
            rows[name] = value
    for name in AXES:
        if name not in rows:
            rows[name] = None
    axes = rows[list(AXES)].astype(object)
    known = axes.where(axes.notna(), None).to_dict("records")
    rows["cell_id"] = [identify({str(name): value for name, value in row.items()}) for row in known]
    twice = rows[rows["cell_id"].duplicated()]
    if len(twice):
        raise UserError(
            f"Cells with several rows ({counted(len(twice), 'row')} too many): "
            f"{name_some(twice['model'])}. Give each row what sets it apart (a column of the map, "
            "as technique or batch), or import their files one by one."
        )
    table = {name: rows.get(name) for name in schema().names}
    columns = [
        pa.array(values, type=kind.type, from_pandas=True)
        if values is not None
        else pa.nulls(len(rows), kind.type)
        for values, kind in zip(table.values(), schema(), strict=True)
    ]
    return pa.table(columns, schema=schema())


def drop_unreadable(table: pd.DataFrame, names: tuple[str, ...], path: Path, told: list[str],
                    called: str) -> pd.DataFrame:  # fmt: skip
    """Return the rows in which these numbers are known, and tell of the others."""
    known = table[list(names)].notna().all(axis=1) & (table[list(names)] > 0).all(axis=1)
    if not known.all():
        left_out = table.loc[~known, called]
        told.append(
            f"{path.name}: {counted(len(left_out), 'row')} left out, for {' or '.join(names)} is "
            f"no positive number there: {name_some(left_out)}"
        )
    return table[known]


def name_some(names: pd.Series) -> str:
    """Return the first few names, and how many more there are."""
    shown = [str(name) for name in names.head(MOST_NAMED)]
    return ", ".join(shown) + (f" and {len(names) - MOST_NAMED} more" * (len(names) > MOST_NAMED))
