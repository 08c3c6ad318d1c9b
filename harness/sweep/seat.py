"""Seats: a cell in a heat, with what is known of it so far; and a heat once it was timed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from harness.errors import WorkerFailure, WorkerRefusal
from harness.grid import BASELINE, Cell
from harness.headlines import TimedRounds, find_headlines
from harness.known import WITHIN, Between
from harness.likeness import compare_work, find_likeness, read_work
from harness.measure.roofline import Traffic
from harness.record import Record
from harness.repeats import Comparison
from harness.stats import Estimate
from harness.sweep.answers import Answers
from harness.sweep.compare import compare, tabulate_rounds
from harness.sweep.heat import Member
from harness.sweep.journal import Journal


@dataclass
class Seat:
    """A cell in the heat, and what is known of it so far. Not `kept`: its record exists already."""

    cell: Cell
    variant: str
    record: Record
    kept: bool = True
    mapped_bytes: float = 0.0
    member: Member | None = None
    answers: Answers = field(default_factory=dict)
    right: NDArray[np.bool_] | None = None
    """Whether each test example was answered right; None where that cannot be told."""
    judged: bool = False
    """Its answers are in the record: they are asked for in a heat's first session only."""
    traffic: Traffic | None = None
    pace_s: float = float("nan")
    """What a call took when it was warmed up: the first that is known of its latency."""
    load_s: float = float("nan")
    """What it took to load it in one process."""
    problem: WorkerFailure | WorkerRefusal | None = None
    concluded: bool = False
    """It has its last record, and is timed no further: what it was is there for the others."""

    @property
    def failure(self) -> WorkerFailure | WorkerRefusal | None:
        """Why its cell could not be timed, or not further; None where it could."""
        return self.problem or (self.member.problem if self.member else None)

    @property
    def work(self) -> dict[str, float]:
        """The share of its work in each kind of operator; nothing where that is not known."""
        return read_work(self.record.conditions.get("operators"), self.cell.runtime)

    @property
    def request(self) -> dict[str, Any]:
        """What every worker has to know of the cell."""
        cell = self.cell
        return {"variant": self.variant, "device": cell.device, "runtime": cell.runtime,
                "threads": cell.threads, "batch": cell.batch}  # fmt: skip

    def let_go(self) -> None:
        """Forget blocks and answers, which are kept in the store by now; not what went wrong."""
        self.problem = self.failure
        self.member, self.answers = None, {}


@dataclass(frozen=True)
class TimedHeat:
    """A heat that was run: who took part, beside which control, and how the machine did.

    `processes`: how many each cell had at once, 0 if it was loaded anew for every block. `between`:
    what sessions differ by, as is known of the machine.
    `machine_speed` is the share of its known speed at which it ran the control. Where it was
    `interrupted`, or is `open` to further sessions, its journal is there to go on from.
    """

    name: str
    seats: Sequence[Seat]
    control: Member
    processes: int
    took_s: float
    stalled_share: float
    between: Between = WITHIN
    machine_speed: float = float("nan")
    interrupted: bool = False
    open: bool = False
    journal: Journal | None = None

    @cached_property
    def members(self) -> list[Member]:
        """Who was timed, and the control."""
        return [*(seat.member for seat in self.seats if seat.member), self.control]

    @cached_property
    def rounds(self) -> TimedRounds:
        """The members' rounds, as the statistics need them."""
        works = [seat.work for seat in self.seats if seat.member]
        return tabulate_rounds(self.members, find_likeness([*works, {}]))

    @cached_property
    def latencies(self) -> dict[str, Estimate]:
        """The latency of each member that was timed, by name, for a repeat."""
        return find_headlines(self.rounds, self.between)

    @cached_property
    def within(self) -> dict[str, Estimate]:
        """The latency of each member that was timed in the heat's sessions."""
        return find_headlines(self.rounds, WITHIN)

    def compare(self, seat: Seat, reference: Seat) -> Comparison:
        """Return the ratio of two seats' latencies, as their headlines have it."""
        assert seat.member is not None and reference.member is not None
        known = self.between.of_ratio(compare_work(seat.work, reference.work))
        pair = seat.member, reference.member
        return compare(*pair, self.process_spread, known, self.rounds.split)

    @cached_property
    def process_spread(self) -> float:
        """How far processes with the same work were apart, relatively."""
        return self.rounds.spread


def find_baseline(seats: Sequence[Seat], cell: Cell) -> Seat | None:
    """Return the seat that a cell is compared with: its model's baseline, if it is among these."""
    same = (seat for seat in seats if seat.cell.place == cell.place)
    return next((seat for seat in same if seat.cell.technique == BASELINE), None)
