"""What can be wrong with what a user asked for."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class SpecError(ValueError):
    """A name, a parameter, a file or a data set that the user gave is wrong."""


class Refusal(Exception):
    """A technique or model does not apply here; the cell is skipped with this reason."""


def suggest(name: str, known: Iterable[str]) -> str:
    """Return " Did you mean 'x'?" for the nearest known name, or an empty string."""
    close = difflib.get_close_matches(name, list(known), n=1, cutoff=0.6)
    return f" Did you mean {close[0]!r}?" if close else ""
