"""Standings: how the cells of a heat compare so far, while they are timed."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import sqrt

from harness.grid import Cell
from harness.known import WITHIN, Between
from harness.likeness import compare_work
from harness.stats import Estimate, prepare_tests
from harness.sweep.compare import compare, process_spread
from harness.sweep.heat import Member, latencies
from harness.sweep.seat import Seat, find_baseline

LOOK_EVERY_S = 1.0
LOOK_SHARE = 0.01
"""The largest share of the timing that looking at it may take, as long as that is not for ever."""
LOOK_AT_LEAST_EVERY_S = 60.0
UNKNOWN = Estimate(float("nan"))


@dataclass(frozen=True)
class Standing:
    """A cell as it stands: seconds, ratio to its baseline (NaN without one), rounds so far.

    `expected`: the interval's half-width, relative, that its whole time will come to; NaN where
    that is not known. `stopped_by` is empty as long as it is timed; `problem` says why it is not.
    """

    cell: Cell
    latency: Estimate
    ratio: Estimate
    rounds: int
    stopped_by: str
    problem: str = ""
    expected: float = float("nan")

    @property
    def verdict(self) -> str:
        """In a word, how it compares: a ratio whose interval holds 1 decides nothing."""
        if self.problem:
            return "failed"
        if self.ratio.high < 1:
            return "faster"
        return "slower" if self.ratio.low > 1 else ""


def find_standings(
    seats: Sequence[Seat], control: Member | None = None,
    seconds_per_cell: float = float("nan"), between: Between = WITHIN,
) -> list[Standing]:  # fmt: skip
    """Return how each seat of a heat stands.

    A cell that was not timed yet has the pace of its warm-up, without an interval, or NaN. Ratios
    are for a repeat, as `between` tells; latencies are those of the rounds so far.
    """
    members = [seat.member for seat in seats if seat.member]
    members += [] if control is None else [control]
    found, spread = latencies(members), process_spread(members)
    standings = []
    for seat in seats:
        member, problem, ratio = seat.member, seat.failure, UNKNOWN
        if member is not None:
            baseline = find_baseline(seats, seat.cell)
            if baseline is not None and baseline is not seat and baseline.member is not None:
                known = between.of_ratio(compare_work(seat.work, baseline.work))
                ratio = compare(member, baseline.member, spread, known).estimate
        latency = found.get(seat.cell.id, Estimate(seat.pace_s))
        standings.append(
            Standing(
                seat.cell,
                latency,
                ratio,
                0 if member is None else len(member.rounds()),
                "" if member is None else member.stopped_by,
                "" if problem is None else str(problem),
                expect(latency, member, seconds_per_cell),
            )
        )
    return standings


def expect(latency: Estimate, member: Member | None, seconds_per_cell: float) -> float:
    """Return the relative half-width that a member's whole time will come to.

    An interval narrows with the root of the number of rounds.
    """
    if member is None or not member.spent_s > 0:
        return float("nan")
    spent = min(1.0, member.spent_s / seconds_per_cell)
    return latency.relative_half_width * sqrt(spent)


class Lookout:
    """Has something looked at once a second, or less often where a look takes long."""

    def __init__(
        self, look: Callable[[], None], clock: Callable[[], float] = time.monotonic
    ) -> None:
        prepare_tests()  # or the first look would pay for it
        self._look = look
        self._clock = clock
        self._next_s = clock()

    def look(self) -> None:
        """Look if it is time."""
        begin = self._clock()
        if begin < self._next_s:
            return
        self._look()
        end = self._clock()
        pause_s = min((end - begin) / LOOK_SHARE, LOOK_AT_LEAST_EVERY_S)
        self._next_s = end + max(LOOK_EVERY_S, pause_s)
