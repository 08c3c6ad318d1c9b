"""Streams: where people and programs read, and what any command prints there."""

from __future__ import annotations

import json
import sys
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

# A file or pipe has no width: nothing is cut there.
out = Console(highlight=False, width=None if sys.stdout.isatty() else 1_000)
err = Console(highlight=False, stderr=True, soft_wrap=True)


def print_json(name: str, data: dict[str, Any]) -> None:
    """Print a versioned document for programs."""
    document = {"schema": f"paretogrid.{name}/1", **data}
    sys.stdout.write(json.dumps(document, indent=2, default=str, allow_nan=False) + "\n")


def print_rows(kind: str, rows: list[dict[str, Any]]) -> None:
    """Print rows as a table."""
    if not rows:
        out.print(f"No {kind}.", markup=False)
        return
    table = Table(box=None, header_style="bold")
    for column in rows[0]:
        table.add_column(column, overflow="fold")
    for row in rows:
        table.add_row(*(Text(str(value)) for value in row.values()))
    out.print(table)
