"""Streams: where people and programs read, and what any command prints there."""

from __future__ import annotations

import io
import json
import sys
from contextlib import suppress
from math import isfinite
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

for stream in (sys.stdout, sys.stderr):
    if isinstance(stream, io.TextIOWrapper):  # not where a test or an embedder has replaced it
        stream.reconfigure(errors="replace")  # a terminal that cannot show × or µ shows a ?


class Heedless(Console):
    """A console that does not mind when nobody can be told: a terminal that is gone, a full log."""

    def print(self, *objects: Any, **how: Any) -> None:
        """Print if that is possible."""
        with suppress(OSError):
            super().print(*objects, **how)


# Names are printed as they are: they may look like markup or like an emoji's code.
_plain: Any = {"highlight": False, "markup": False, "emoji": False}
# A file or pipe has no width: nothing is cut there.
out = Console(width=None if sys.stdout.isatty() else 1_000, **_plain)
err = Heedless(stderr=True, soft_wrap=True, **_plain)


def print_json(name: str, data: dict[str, Any]) -> None:
    """Print a versioned document for programs; numbers that JSON cannot say are null."""
    document = as_json({"schema": f"paretogrid.{name}/1", **data})
    sys.stdout.write(json.dumps(document, indent=2, default=str, allow_nan=False) + "\n")


def as_json(value: Any) -> Any:
    """Return plain data with null for NaN and infinity, at any depth."""
    if isinstance(value, dict):
        return {key: as_json(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [as_json(inner) for inner in value]
    return None if isinstance(value, float) and not isfinite(value) else value


def print_rows(kind: str, rows: list[dict[str, Any]]) -> None:
    """Print rows as a table."""
    if not rows:
        out.print(f"No {kind}.")
        return
    table = Table(box=None, header_style="bold")
    for column in rows[0]:
        table.add_column(column, overflow="fold")
    for row in rows:
        table.add_row(*(Text(str(value)) for value in row.values()))
    out.print(table)
