"""Progress: what the runner tells the one who waits."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from harness.record import Record
from harness.sweep.standing import Standing


@dataclass(frozen=True)
class Progress:
    """Who is told: of the number of cells, what is done now, how a heat stands, and each record."""

    begin: Callable[[int], None] = lambda cells: None
    phase: Callable[[str], None] = lambda text: None
    standings: Callable[[str, Sequence[Standing]], None] = lambda heat, standings: None
    done: Callable[[Record], None] = lambda record: None


def without_fail(progress: Progress) -> Progress:
    """Return one that tells the same, and does not mind when nobody can be told.

    A terminal that was closed, a log on a full disk: what is measured is kept all the same.
    """

    def try_to(tell: Callable[..., None]) -> Callable[..., None]:
        def told(*news: Any) -> None:
            with suppress(OSError):
                tell(*news)

        return told

    return Progress(
        begin=try_to(progress.begin), phase=try_to(progress.phase),
        standings=try_to(progress.standings), done=try_to(progress.done),
    )  # fmt: skip
