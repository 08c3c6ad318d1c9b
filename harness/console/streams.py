"""Streams: where people and programs read, and what any command prints there."""

from __future__ import annotations

import io
import json
import sys
from contextlib import suppress
from math import isfinite
from typing import IO, Any, cast

from rich.console import Console
from rich.table import Table
from rich.text import Text

for stream in (sys.stdout, sys.stderr):
    if isinstance(stream, io.TextIOWrapper):  # not where a test or an embedder has replaced it
        stream.reconfigure(errors="replace")  # a terminal that cannot show × or µ shows a ?


class Heedless(io.TextIOBase):
    """Standard error for who does not mind when nobody can be told.

    A terminal may be closed, a pipe's reader gone, a log's disk full. Whatever rich draws there, a
    live table too, goes through this.
    """

    @property
    def stream(self) -> Any:
        """Standard error itself: rich puts a stand-in of its own there that prints to us."""
        return getattr(sys.stderr, "rich_proxied_file", sys.stderr)

    def write(self, text: str) -> int:
        """Write if that is possible."""
        with suppress(OSError):
            self.stream.write(text)
        return len(text)

    def flush(self) -> None:
        """Flush if that is possible."""
        with suppress(OSError):
            self.stream.flush()

    def isatty(self) -> bool:
        """Tell whether it is a terminal."""
        return bool(self.stream.isatty())

    def fileno(self) -> int:
        """Return standard error's own descriptor."""
        return int(self.stream.fileno())

    @property
    def encoding(self) -> str:  # type: ignore[override]  # of what is written to, now
        """The encoding of what is written to."""
        return getattr(self.stream, "encoding", None) or "utf-8"


# Names are printed as they are: they may look like markup or like an emoji's code.
_plain: Any = {"highlight": False, "markup": False, "emoji": False}
# A file or pipe has no width: nothing is cut there.
out = Console(width=None if sys.stdout.isatty() else 1_000, **_plain)
err = Console(file=cast(IO[str], Heedless()), soft_wrap=True, **_plain)


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
