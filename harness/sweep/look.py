"""Look: what a heat has found so far, shown to who decides whether that is enough."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from math import ceil, log

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from harness.stats import LEAST_FOR_INTERVAL
from harness.store import control_id
from harness.sweep.conclude import with_sessions
from harness.sweep.heat import CONTROL, DECISION, INTERRUPTION, Member
from harness.sweep.ratio import with_likeness
from harness.sweep.seat import TimedHeat

OPEN = "open"
"""The decision of a cell of which more rounds may tell something."""
ENDED = ("failure", INTERRUPTION, DECISION)
"""Whoever is stopped by these is not looked at any more."""
GROWTH = 0.25
"""A look comes after so many more rounds: the fewer looks, the less is paid for them."""
LOOK_SHARE = 0.05
"""The largest share of the timing that looking may take."""


ROUND_COLUMNS = ["heat", "cell_id", "session", "round", "log_s"]


@dataclass(frozen=True)
class Look:
    """What a heat has found so far.

    cells: rows as the store has them. rounds: log of the median block of each cell in each round of
    the headline (heat, cell_id, session, round, log_s), the control's too. answers: for each cell
    whether each test example was answered right, where that can be told. left: the cells that are
    not timed any more.
    """

    cells: pd.DataFrame
    rounds: pd.DataFrame
    answers: dict[str, NDArray[np.bool_]]
    left: frozenset[str] = frozenset()


Decide = Callable[[Look, float], Mapping[str, str]]
"""Returns a decision for each cell; who differs by less than the second value is a tie."""


def look_at(timed: TimedHeat) -> Look:
    """Return what a heat has found so far."""
    rows, rounds = [], list(_rounds_of(timed.control, timed.name, control_id(timed.name)))
    for seat in timed.seats:
        if seat.member is None or seat.member.name not in timed.latencies:
            continue
        rounds += _rounds_of(seat.member, timed.name, seat.cell.id)
        if seat.failure is not None and not seat.concluded:  # it has no row that may dominate
            continue
        record = with_likeness(seat.record, timed.seats, seat)
        record = with_sessions(record, seat.member, timed.between)
        record = record.measured(latency_s=timed.latencies[seat.member.name])
        told = {"processes": seat.member.processes, "process_spread": timed.process_spread}
        rows.append(record.under(**told).to_row())
    answers = {seat.cell.id: seat.right for seat in timed.seats if seat.right is not None}
    left = frozenset(
        seat.cell.id for seat in timed.seats if seat.member and seat.member.stopped_by in ENDED
    )
    return Look(pd.DataFrame(rows), pd.DataFrame(rounds, columns=ROUND_COLUMNS), answers, left)


def _rounds_of(member: Member, heat: str, name: str) -> list[tuple[str, str, int, int, float]]:
    sessions = {number: block.session for number, block in member.rounds().items()}
    return [
        (heat, name, sessions[number], number, log(median_s))
        for number, median_s in member.medians().items()
    ]


class Looks:
    """Has a heat looked at after a quarter more rounds, or less often where a look takes long.

    Whose place is known leaves then; who follows stays as long as the others.
    """

    def __init__(
        self, members: Sequence[Member], decide: Callable[[], Mapping[str, str]], least_rounds: int,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:  # fmt: skip
        self._members = [member for member in members if member.name != CONTROL]
        self._decide = decide
        self._clock = clock
        self._begun_s = clock()
        self._before = 1 + max((b.round for m in self._members for b in m.blocks), default=-1)
        self._rounds = 0
        self._next = least_rounds

    def after_round(self) -> None:
        """Look if it is time."""
        self._rounds += 1
        if self._rounds < self._next:
            return
        begin = self._clock()
        self.look()
        round_s = (begin - self._begun_s) / self._rounds
        cost = (self._clock() - begin) / (LOOK_SHARE * round_s) if round_s > 0 else 0.0
        more = max(GROWTH * (self._before + self._rounds), cost)
        self._next = self._rounds + ceil(more)

    def look(self) -> None:
        """Let those leave whose place is known, once all have rounds enough for an interval."""
        there = [member for member in self._members if member.stopped_by not in ENDED]
        if not there or min(len(one.rounds()) for one in there) < LEAST_FOR_INTERVAL:
            return  # they have left, or the time was too short to know any of them
        decided = self._decide()
        places = {member.name: decided.get(member.name, OPEN) for member in there}
        known = OPEN not in places.values()
        for member in there:
            if known or (places[member.name] != OPEN and not member.follows):
                member.stopped_by = DECISION
