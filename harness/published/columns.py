"""Any table: a CSV file whose columns a map in TOML names."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

import pandas as pd
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field

from bench.errors import suggest
from harness.errors import UserError
from harness.published.numerals import write_plainly
from harness.published.table import (
    Published,
    name_some,
    read_numbers,
    read_table,
    require_columns,
)
from harness.record import METRIC_NAMES
from harness.toml_data import read_toml
from harness.wording import counted

TEXTS = ("model", "technique", "device", "runtime", "task", "realization")
COUNTS = ("threads", "batch", "seed", "call_examples")
WHOLE = (*COUNTS, "params", "nonzero_params", "macs", "weight_bytes")
SHARES = ("accuracy", "top5_accuracy", "macro_f1", "fidelity", "agreement", "fraction_of_roof",
          "latency_ratio_p_value", "latency_ratio_q_value")  # fmt: skip
POSITIVE = ("latency_s", "latency_p90_s", "latency_p99_s", "latency_ratio", "throughput_per_s",
            "device_latency_s", "control_latency_s")  # fmt: skip
EXACT = 2**53
"""From here on a number read from text may be its neighbour."""
HINT = """A map of columns is like:
task = "imagenet"
device = "cuda-a100"
[columns]
model = "name"
accuracy = { column = "top1", unit = "%" }
latency_s = { column = "step_time", unit = "ms", per = "batch_size" }"""


class Source(BaseModel):
    """Where a column of ours comes from: a column of the table, its unit, what it is divided by."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    column: str
    unit: str = ""
    per: str | None = None


NAMED = BeforeValidator(lambda told: {"column": told} if isinstance(told, str) else told)
"""A column that is only named."""


class ColumnMap(BaseModel):
    """A map of columns: what holds for every row, and where each of our columns comes from.

    decimal: the mark of all numbers, where the table itself does not tell.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    model: str | None = None
    technique: str | None = None
    device: str | None = None
    runtime: str | None = None
    task: str | None = None
    realization: str | None = None
    threads: int | None = None
    batch: int | None = None
    seed: int | None = None
    decimal: Literal[".", ","] | None = None
    columns: Annotated[dict[str, Annotated[Source, NAMED]], Field(min_length=1)]


def read_map(path: Path) -> ColumnMap:
    """Return a map of columns; raise UserError for what is none."""
    found = read_toml(path, ColumnMap, HINT)
    known = [*TEXTS, *COUNTS, *sorted(METRIC_NAMES)]
    for name in found.columns:
        if name not in known:
            raise UserError(
                f"{path}: [columns] fills {name!r}, which is no column of ours."
                f"{suggest(name, known)} `paretogrid list metrics` shows what there is."
            )
    if "model" not in found.columns and found.model is None:
        raise UserError(f"{path}: [columns] does not say where the model's name is.")
    return found


def read_csv(files: Sequence[Path], columns: ColumnMap) -> Published:
    """Return the rows of CSV files as cells, by a map of columns; raise UserError for a misfit."""
    told: list[str] = []
    parts = [_read_file(path, columns, told) for path in files]
    facts = {"tables": [str(path) for path in files], "columns": columns.model_dump(mode="json")}
    return Published(pd.concat(parts, ignore_index=True), tuple(told), facts)


def _read_file(path: Path, columns: ColumnMap, told: list[str]) -> pd.DataFrame:
    table = read_table(path)
    sources = columns.columns
    used = [one for source in sources.values() for one in (source.column, source.per) if one]
    require_columns(table, tuple(used), path, "the table that the map is of")
    plain = _write_plainly(table, columns)
    fixed = columns.model_dump(exclude={"columns", "decimal"}, exclude_none=True)
    cells: dict[str, Any] = dict(fixed)
    wrong: dict[str, pd.Series] = {}
    for name, source in sources.items():
        text = table[source.column]
        if name in TEXTS:
            cells[name] = text
            continue
        base = name.removesuffix("_low").removesuffix("_high")
        numbers = read_numbers(plain[source.column], source.unit, base)
        unread = text[numbers.isna() & (text != "")]
        if len(unread):
            some = f"{counted(len(unread), 'value')} of {source.column} not numeric"
            told.append(f"{path.name}: {some}, left empty: {name_some(unread)}")
        if source.per is not None:
            parts = read_numbers(plain[source.per])
            no_part = (parts <= 0) | (parts.isna() & numbers.notna())
            _add(wrong, f"{source.per} is not positive", no_part)
            numbers = numbers / parts.where(parts > 0)
        why, impossible = find_impossible(numbers, base)
        _add(wrong, f"{source.column} {why}", impossible)
        if name in WHOLE and not source.unit and source.per is None:
            _add(wrong, f"{source.column} is no whole number", numbers % 1 > 0)
        numbers = numbers.mask(impossible)
        cells[name] = numbers.astype("Int64") if name in COUNTS else numbers
    left_out = [name for name in table.columns if name not in used]
    told.append(f"{path.name}: {counted(len(table), 'row')} read")
    if left_out:
        told.append(f"{path.name}: columns not used: {', '.join(left_out)}")
    made = pd.DataFrame({"device": "unknown", "task": path.stem} | cells, index=table.index)
    named = made["model"].str.strip() != ""
    if not named.all():
        told.append(f"{path.name}: {counted((~named).sum(), 'row')} without a model left out")
    possible = named.copy()
    for why, rows in wrong.items():
        if (rows & named).any():
            left = made.loc[rows & named, "model"]
            told.append(
                f"{path.name}: {counted(len(left), 'row')} left out, {why}: {name_some(left)}"
            )
        possible &= ~rows
    return made[possible]


def _write_plainly(table: pd.DataFrame, columns: ColumnMap) -> pd.DataFrame:
    """The table with plain numerals in all columns that hold numbers by the map."""
    of_numbers = {name: one for name, one in columns.columns.items() if name not in TEXTS}
    whole = {one.column for name, one in of_numbers.items() if name in WHOLE and not one.unit}
    names = {one for source in of_numbers.values() for one in (source.column, source.per) if one}
    separator = table.attrs["separator"]
    return write_plainly(table, names, whole, columns.decimal or "", separator)


def _add(wrong: dict[str, pd.Series], why: str, rows: pd.Series) -> None:
    """Note rows that cannot be, beside those that another column found for the same reason."""
    wrong[why] = wrong[why] | rows if why in wrong else rows


def find_impossible(numbers: pd.Series, name: str) -> tuple[str, pd.Series]:
    """Return what is wrong with values that this column of ours cannot have, and which they are."""
    if name in COUNTS:
        least = 0 if name == "seed" else 1
        fits = (numbers >= least) & (numbers % 1 == 0) & (numbers < EXACT)
        return f"is no whole number from {least} on", ~fits & numbers.notna()
    if name in SHARES:
        return "is not between 0 and 1 (0 and 100 %)", (numbers < 0) | (numbers > 1)
    if name == "r2":
        return "is above 1", numbers > 1
    if name in POSITIVE:
        return "is not positive", numbers <= 0
    return "is negative", numbers < 0
