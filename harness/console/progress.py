"""Progress: a table that lives on a terminal, plain lines elsewhere, or events for programs."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from math import inf, isfinite

from harness.console.events import tell_events
from harness.console.live import show_live
from harness.console.streams import err
from harness.record import TIMED, Record
from harness.report import text
from harness.sweep.progress import Progress
from harness.sweep.standing import Standing
from harness.wording import counted

LINE_EVERY_S = 10.0
PATIENCE_S = 3.0
"""So long a line waits for intervals: a heat's first rounds have none."""
NAMED = 3
"""Cells that are named in a line."""


@contextmanager
def show_progress(as_json: bool = False) -> Iterator[Progress]:
    """Yield what the runner reports to: for programs, for a terminal, or for a log."""
    if as_json:
        yield tell_events()
    elif err.is_terminal:
        with show_live(describe_record) as progress:
            yield progress
    else:
        yield _Lines().progress()


def describe_record(record: Record) -> str:
    """Return how a cell ended, in a line."""
    if record.status in TIMED:
        latency = text.format_value(record.metrics["latency_s"], "s")
        return f"{record.cell}: {latency}{' so far' * (record.status == 'partial')}"
    kind = f" ({record.failure_kind})" if record.failure_kind else ""
    return f"Cell {record.cell} {record.status}{kind}: {record.message}"


def describe_standings(standings: Sequence[Standing]) -> str:
    """Return in a line how a heat stands: who is fastest, and how sure that is."""
    timed = [one for one in standings if 0 < one.latency.value < inf]
    if not timed:
        return "nothing is timed yet"
    first = sorted(timed, key=lambda one: one.latency.value)[:NAMED]
    named = [f"{one.cell.technique} {_latency(one)}" for one in first]
    more = [f"{len(timed) - NAMED} more"] if len(timed) > NAMED else []
    widths = [one.latency.relative_half_width for one in timed]
    known = [width for width in widths if isfinite(width)]  # NaN where rounds are too few
    widest = f"; the widest ±{text.format_width(max(known))}" if len(known) == len(timed) else ""
    expected = max((one.expected for one in timed if isfinite(one.expected)), default=0.0)
    widest += f", ±{text.format_width(expected)} expected" if widest and expected else ""
    rounds = max(one.rounds for one in timed)
    so_far = f"so far, of {counted(rounds, 'round')}" if rounds else "warmed up"
    return f"{so_far}: {', '.join([*named, *more])}{widest}"


def _latency(one: Standing) -> str:
    latency = text.format_value(one.latency.value, "s")
    if not one.ratio.value > 0:
        return latency
    ratio = one.ratio
    return f"{latency}, {text.format_speedup(ratio.value, ratio.low, ratio.high)}"


class _Lines:
    """Lines of a log: each phase, each cell that ended, and how a heat stands now and then."""

    def __init__(self) -> None:
        self._cells = 0
        self._done = 0
        self._heat, self._told, self._next_s = "", False, 0.0

    def progress(self) -> Progress:
        return Progress(
            begin=self._begin,
            phase=lambda phase: err.print(f"  {phase}"),
            standings=self._stand,
            done=self._end,
        )

    def _begin(self, cells: int) -> None:
        self._cells = cells

    def _stand(self, heat: str, standings: Sequence[Standing]) -> None:
        now = time.monotonic()
        if heat != self._heat:
            self._heat, self._told, self._next_s = heat, False, now + PATIENCE_S
        known = all(one.latency.relative_half_width >= 0 for one in standings)
        if now >= self._next_s or (known and not self._told):
            err.print(f"  {describe_standings(standings)}")
            self._told, self._next_s = True, now + LINE_EVERY_S

    def _end(self, record: Record) -> None:
        self._done += 1
        err.print(f"[{self._done}/{self._cells}] {describe_record(record)}")
