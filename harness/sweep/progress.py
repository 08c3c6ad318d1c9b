"""Progress: what the runner tells the one who waits."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from harness.record import Record
from harness.sweep.standing import Standing


@dataclass(frozen=True)
class Progress:
    """Who is told: of the number of cells, what is done now, how a heat stands, and each record."""

    begin: Callable[[int], None] = lambda cells: None
    phase: Callable[[str], None] = lambda text: None
    standings: Callable[[str, Sequence[Standing]], None] = lambda heat, standings: None
    done: Callable[[Record], None] = lambda record: None
