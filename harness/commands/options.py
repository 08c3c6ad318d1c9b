"""Options that several commands share."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Annotated, Any

import typer

from harness.paths import read_path
from harness.runs import results_folder
from harness.store import Run

FILE: Any = {"parser": read_path, "metavar": "FILE"}
"""Of options and arguments that are files; `~` is the home folder in all of them."""

ResultsOption = Annotated[
    str | None, typer.Option("--results", help="The store (PARETOGRID_RESULTS, or ./results).")
]
ReportsOption = Annotated[
    Path, typer.Option("--reports", help="Where reports go.", parser=read_path, metavar="FOLDER")
]
REPORTS = Path("reports")
ReportOption = Annotated[
    bool, typer.Option("--report/--no-report", help="Write the report when all is measured.")
]
RunArgument = Annotated[str | None, typer.Argument(help="A run; the latest if left out.")]
RunsArgument = Annotated[
    list[str] | None, typer.Argument(help="A run, or several of different machines; the latest.")
]
EventsOption = Annotated[
    bool, typer.Option("--json", help="Print what happens as JSON, an event a line.")
]
NoWaitOption = Annotated[
    bool, typer.Option("--no-wait", help="End at once if another run is timing here.")
]
JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON, for programs.")]


def how_to(
    command: str, run: str, results: str | None, reports: Path = REPORTS, mixed: bool = False
) -> str:
    """Return the command that does something with a run, with the folders that were named.

    run: its id or its path, as it can be opened from here.
    """
    options = [] if results is None else ["--results", results]
    options += [] if reports == REPORTS else ["--reports", str(reports)]
    options += ["--mixed"] if mixed and command == "resume" else []
    return shlex.join(["paretogrid", command, run, *options])


def name_run(made: Run, results: str | None) -> str:
    """Return what a run can be opened as: its id, or its path where another folder is the store."""
    in_store = (results_folder(results) / made.run_id).resolve() == made.folder.resolve()
    return made.run_id if in_store else str(made.folder)
