"""Options that several commands share."""

from __future__ import annotations

from typing import Annotated

import typer

ResultsOption = Annotated[
    str | None, typer.Option("--results", help="The store (PARETOGRID_RESULTS, or ./results).")
]
ReportsOption = Annotated[str, typer.Option("--reports", help="Where reports go.")]
RunArgument = Annotated[str | None, typer.Argument(help="A run; the latest if left out.")]
RunsArgument = Annotated[
    list[str] | None, typer.Argument(help="A run, or several of different machines; the latest.")
]
JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON, for programs.")]
