"""Streams: where people and programs read, and what any command prints there."""

from __future__ import annotations

import io
import json
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from math import isfinite
from pathlib import Path
from typing import IO, Any, cast

from rich.console import Console
from rich.table import Table
from rich.text import Text

from harness.errors import UserError

for name in ("stdout", "stderr"):
    if getattr(sys, name) is None:  # its descriptor is closed
        setattr(sys, name, Path(os.devnull).open("w"))  # noqa: SIM115  # as long as we live
for stream in (sys.stdout, sys.stderr):
    if isinstance(stream, io.TextIOWrapper):  # not where a test or an embedder has replaced it
        stream.reconfigure(errors="replace")  # a terminal that cannot show × or µ shows a ?


class Stream(io.TextIOBase):
    """Standard output or error, as it is when something is written.

    Whatever rich draws, a live table too, goes through this.
    """

    def __init__(self, name: str) -> None:
        self._name = name

    @property
    def stream(self) -> Any:
        """The stream itself: rich puts a stand-in of its own there that prints to us."""
        now = getattr(sys, self._name)
        return getattr(now, "rich_proxied_file", now)

    def isatty(self) -> bool:
        """Tell whether it is a terminal."""
        return bool(self.stream.isatty())

    def fileno(self) -> int:
        """Return its own descriptor."""
        return int(self.stream.fileno())

    @property
    def encoding(self) -> str:  # type: ignore[override]  # of what is written to, now
        """The encoding of what is written to."""
        return getattr(self.stream, "encoding", None) or "utf-8"


class Careful(Stream):
    """Standard output: what cannot be written is a user's mistake, as on a full disk.

    A reader that has gone is none; the command ends.
    """

    def write(self, text: str) -> int:
        """Write, or raise UserError."""
        with self._told():
            self.stream.write(text)
        return len(text)

    def flush(self) -> None:
        """Flush, or raise UserError."""
        with self._told():
            self.stream.flush()

    @contextmanager
    def _told(self) -> Iterator[None]:
        try:
            yield
        except BrokenPipeError:
            raise
        except OSError as error:
            raise UserError(f"Cannot write the output: {error.strerror}.") from None


class Heedless(Stream):
    """Standard error for who does not mind when nobody can be told.

    A terminal may be closed, a pipe's reader gone, a log's disk full.
    """

    def write(self, text: str) -> int:
        """Write if that is possible."""
        with suppress(OSError):
            self.stream.write(text)
        return len(text)

    def flush(self) -> None:
        """Flush if that is possible."""
        with suppress(OSError):
            self.stream.flush()


# Names are printed as they are: they may look like markup or like an emoji's code.
_plain: Any = {"highlight": False, "markup": False, "emoji": False}
# A file or pipe has no width: nothing is cut there.
_output = cast(IO[str], Careful("stdout"))
out = Console(file=_output, width=None if sys.stdout.isatty() else 1_000, **_plain)
err = Console(file=cast(IO[str], Heedless("stderr")), soft_wrap=True, **_plain)


def drop_undelivered(stream: IO[str]) -> None:
    """Let what cannot be delivered, and all that is written after it, go nowhere.

    Python would try once more when it ends, and end with 120.
    """
    try:
        stream.flush()
    except OSError:
        with Path(os.devnull).open("w") as nowhere:
            if nowhere.fileno() != stream.fileno():
                os.dup2(nowhere.fileno(), stream.fileno())


def print_json(name: str, data: dict[str, Any]) -> None:
    """Print a versioned document for programs; numbers that JSON cannot say are null."""
    document = as_json({"schema": f"paretogrid.{name}/1", **data})
    _output.write(json.dumps(document, indent=2, default=str, allow_nan=False) + "\n")
    _output.flush()


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
