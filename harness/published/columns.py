"""Any table: a CSV file whose columns a map in TOML names."""

from __future__ import annotations

import tomllib
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import pandas as pd
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from bench.errors import suggest
from harness.errors import UserError
from harness.published.table import Published, read_numbers, read_table, require_columns
from harness.record import METRIC_NAMES

TEXTS = ("model", "technique", "device", "runtime", "task", "realization")
COUNTS = ("threads", "batch", "seed", "call_examples")
EXAMPLE = """task = "imagenet"
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


class ColumnMap(BaseModel):
    """A map of columns: what holds for every row, and where each of our columns comes from."""

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
    columns: Annotated[dict[str, str | Source], Field(min_length=1)]


def read_map(path: Path) -> ColumnMap:
    """Return a map of columns; raise UserError for what is none."""
    try:
        found = ColumnMap.model_validate(tomllib.loads(path.read_text(encoding="utf-8")))
    except FileNotFoundError:
        raise UserError(f"There is no file {path}. A map of columns is like:\n{EXAMPLE}") from None
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise UserError(f"Cannot read {path} as TOML: {error}.") from None
    except ValidationError as problem:
        first = max(problem.errors(), key=lambda error: len(error["loc"]))  # the most precise
        place = ".".join(str(part) for part in first["loc"] if part != "Source") or "the file"
        raise UserError(
            f"{path}, {place}: {first['msg']}. A map of columns is like:\n{EXAMPLE}"
        ) from None
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
    sources = {
        name: Source(column=source) if isinstance(source, str) else source
        for name, source in columns.columns.items()
    }
    used = [one for source in sources.values() for one in (source.column, source.per) if one]
    require_columns(table, tuple(used), path, "the table that the map is of")
    fixed = columns.model_dump(exclude={"columns"}, exclude_none=True)
    cells: dict[str, Any] = dict(fixed)
    for name, source in sources.items():
        text = table[source.column]
        if name in TEXTS:
            cells[name] = text
            continue
        base = name.removesuffix("_low").removesuffix("_high")
        numbers = read_numbers(text, source.unit, base)
        if source.per is not None:
            numbers = numbers / read_numbers(table[source.per])
        unread = int((numbers.isna() & (text != "")).sum())
        if unread:
            told.append(f"{path.name}: {unread} values of {source.column} are no numbers: empty")
        cells[name] = numbers.astype("Int64") if name in COUNTS else numbers
    left_out = [name for name in table.columns if name not in used]
    told.append(f"{path.name}: {len(table)} cells")
    if left_out:
        told.append(f"{path.name}: columns not used: {', '.join(left_out)}")
    made = pd.DataFrame({"device": "unknown", "task": path.stem} | cells, index=table.index)
    named = made["model"].str.strip() != ""
    if not named.all():
        told.append(f"{path.name}: {int((~named).sum())} rows without a model left out")
    return made[named]
