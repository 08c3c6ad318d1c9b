"""Bring: make runs of tables that others have published."""

from __future__ import annotations

import shlex
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

import typer

from harness.commands.options import FILE, ResultsOption
from harness.console.streams import out
from harness.decide.prices import read_prices
from harness.errors import UserError
from harness.published.columns import read_csv, read_map
from harness.published.table import Published, make_cells
from harness.published.timm import read_timm
from harness.runs import results_folder
from harness.store import Run
from harness.wording import counted

app = typer.Typer(help="Make a run of a published table.", no_args_is_help=True)
PriceOption = Annotated[
    Path | None, typer.Option(help="A price table (TOML) that is kept with the run.", **FILE)
]
FilesArgument = Annotated[list[Path], typer.Argument(help="CSV files.", **FILE)]


@app.command()
def timm(
    files: FilesArgument,
    accuracy: Annotated[Path | None, typer.Option(help="The table of accuracies.", **FILE)] = None,
    price: PriceOption = None,
    results: ResultsOption = None,
) -> None:
    """Import inference tables of timm; devices and precision are in the files' names."""
    _keep(read_timm(files, accuracy), "timm", price, results)


@app.command("csv")
def csv_(
    files: FilesArgument,
    columns: Annotated[
        Path, typer.Option("--map", help="A TOML file: which column is what.", **FILE)
    ],
    price: PriceOption = None,
    results: ResultsOption = None,
) -> None:
    """Import any table, with a map of its columns."""
    _keep(read_csv(files, read_map(columns)), "csv", price, results)


def _keep(published: Published, kind: str, price: Path | None, results: str | None) -> None:
    """Write the cells as a run, and say how they were made."""
    prices = {} if price is None else {"prices": read_prices(price).model_dump(mode="json")}
    facts = {
        "state": "finished", "imported": {"kind": kind, **published.facts},
        "told": list(published.told), "command": shlex.join(["paretogrid", *sys.argv[1:]]),
        "cwd": str(Path.cwd()), **prices,
    }  # fmt: skip
    now = datetime.now(UTC).isoformat(timespec="seconds")
    for line in published.told:
        out.print(line)
    if published.cells.empty:
        raise UserError("No row is a cell, and no run was made: the lines above say why.")
    rows = make_cells(published.cells, now)  # first: a mistake leaves no run behind
    made = Run.create(results_folder(results), kind, facts)
    made.write_cells(rows)
    out.print(f"{counted(len(published.cells), 'cell')}: {made.folder / 'cells.parquet'}")
