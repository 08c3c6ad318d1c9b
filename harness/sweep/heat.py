"""A heat: cells that are compared are alive together and timed in rounds of short blocks."""

from __future__ import annotations

import random
import time
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from functools import cached_property
from typing import Protocol

import numpy as np

from harness.errors import WorkerFailure, WorkerRefusal
from harness.measure.disturbance import Disturbance
from harness.rounds import (
    CAUSES,
    choose_rounds,
    find_latencies,
)
from harness.stats import LEAST_FOR_INTERVAL, Estimate, Floats

INTERRUPTION = "interruption"
DECISION = "decision"
"""What a cell is stopped by whose place is known."""
CONTROL = "control"
"""The name of the control among the members."""
CHECK_EVERY_ROUNDS = 5
CHECK_EVERY_SHARE = 0.05
"""A look at all rounds comes after so many more of them: its cost stays a share of the timing."""
OVERDRAFT = 3
"""How many times its budget a cell may spend while it has too few rounds for an interval."""
PROCESS_IDS = 2**22
"""There are no more on Linux."""
REPEAT_FROM = CAUSES.index("preempted")
"""Blocks as bad as this are repeated; beside a steady load every block would be loaded again."""


class Samples(Protocol):
    """What a worker returns for a block."""

    @property
    def seconds(self) -> Floats:
        """Seconds of one call, a value for each sample."""

    @property
    def loops(self) -> int:
        """The calls in each sample."""

    @property
    def disturbance(self) -> Disturbance:
        """What disturbed the block."""

    @property
    def process(self) -> int:
        """The id of the process that took them."""


@dataclass(frozen=True)
class Stop:
    """When a heat ends: the intervals are narrow enough, or the budget or the rounds are spent."""

    relative_ci: float
    max_seconds_per_cell: float
    least_rounds: int
    most_rounds: float = float("inf")
    enough_rounds: int = LEAST_FOR_INTERVAL
    """As long as a cell has fewer it may overdraw its budget."""


@dataclass(frozen=True)
class TimedBlock:
    """A block with its place: round, running number in the heat, position in the round, time.

    session: which time the heat was taken up; servers and processes are others in each.
    """

    round: int
    block: int
    position: int
    at_s: float
    samples: Samples
    session: int = 0

    @property
    def level(self) -> int:
        """How badly it was disturbed."""
        return self.samples.disturbance.level

    @property
    def process(self) -> int:
        """Which process took it: another server's may have the same id."""
        return self.session * PROCESS_IDS + self.samples.process

    @cached_property
    def median_s(self) -> float:
        """The median of its samples."""
        return float(np.median(self.samples.seconds))


@dataclass
class Member:
    """A cell in a heat, and what the heat found of it.

    Members of a `family` (a model's cells) have their blocks next to each other in every round. One
    that `follows` stays in as long as another does, so that every round has its pair.
    """

    name: str
    time_block: Callable[[], Samples]
    family: str = ""
    follows: bool = False
    present: Callable[[], AbstractContextManager[None]] = nullcontext
    """In which its block is timed: who does not stay is loaded, at nobody's cost."""
    blocks: list[TimedBlock] = field(default_factory=list)
    spent_s: float = 0.0
    stopped_by: str = ""
    problem: WorkerFailure | WorkerRefusal | None = None
    _best: dict[int, TimedBlock] = field(default_factory=dict)
    _seen: int = 0
    """How many of the blocks are in `_best`: a look costs what is new, however long the heat."""

    def rounds(self) -> dict[int, TimedBlock]:
        """Return the least disturbed block of each round; not to be changed."""
        best = self._best
        for block in self.blocks[self._seen :]:
            if block.round not in best or block.level < best[block.round].level:
                best[block.round] = block
        self._seen = len(self.blocks)
        return best

    def medians(self) -> dict[int, float]:
        """Return the block median of each of the headline's rounds, in seconds, in their order."""
        rounds = self.rounds()
        chosen, _ = choose_rounds({number: block.level for number, block in rounds.items()})
        return {number: rounds[number].median_s for number in chosen}

    @property
    def processes(self) -> int:
        """In how many processes it was timed."""
        return len({block.process for block in self.blocks})

    def processes_by_session(self) -> dict[int, int]:
        """Return in how many processes it was timed in each session."""
        taken = {(block.session, block.samples.process) for block in self.blocks}
        return dict(Counter(session for session, _ in taken))

    def headline_level(self) -> int:
        """Return how disturbed the blocks are that the headline had to take."""
        return choose_rounds({number: b.level for number, b in self.rounds().items()})[1]


def never() -> Samples:
    """Time nothing: of a member that has stopped before the heat began."""
    raise AssertionError("it takes no part")


def latencies(members: Sequence[Member]) -> dict[str, Estimate]:
    """Return the time of each member that was timed, at the level of the heat's sessions."""
    medians = {member.name: member.medians() for member in members}
    return find_latencies(medians, find_rounds_sessions(members))


def find_rounds_sessions(members: Sequence[Member]) -> dict[int, int]:
    """Return the session of each round of a heat."""
    return {n: one.session for member in members for n, one in member.rounds().items()}


def run_heat(
    members: Sequence[Member],
    stop: Stop,
    seed: int,
    left: Sequence[TimedBlock] = (),
    clock: Callable[[], float] = time.monotonic,
    after_round: Callable[[], bool] = lambda: False,
    session: int = 0,
) -> None:
    """Time the members in rounds until each is narrow enough or has spent its budget.

    Each round visits every member that is still in, in a freshly shuffled order (of families, and
    within each), and then once more those whose block was preempted. A member whose worker fails
    leaves with the failure; the others go on. Members that have blocks already go on from there,
    and so do they where others, who are not here any more, `left` some: this is another `session`.
    `after_round` is called at the end of each round; if it returns True, the heat is interrupted.
    """
    known = [*left, *(block for member in members for block in member.blocks)]
    number = max((one.round for one in known), default=-1) + 1
    block = max((one.block for one in known), default=-1) + 1
    order = random.Random(f"{seed} {number}" if known else seed)
    start = clock() - max((one.at_s for one in known), default=0.0)
    next_check = number + stop.least_rounds
    while active := _active(members):
        visits = _shuffle(active, order)
        for position, member in enumerate(visits):
            try:
                with member.present():
                    begin = clock()
                    samples = member.time_block()
                    member.spent_s += clock() - begin
            except (WorkerFailure, WorkerRefusal) as problem:
                member.problem, member.stopped_by = problem, "failure"
                continue
            place = (number, block, position, begin - start)
            member.blocks.append(TimedBlock(*place, samples, session))
            block += 1
            first = position < len(active)
            if first and samples.disturbance.level >= REPEAT_FROM and _can_pay(member, stop):
                visits.append(member)
        number += 1
        check = number >= next_check
        if check:
            next_check = number + max(CHECK_EVERY_ROUNDS, int(CHECK_EVERY_SHARE * number))
        _retire(members, stop, number, check)
        if after_round():
            for member in members:
                member.stopped_by = member.stopped_by or INTERRUPTION


def _active(members: Sequence[Member]) -> list[Member]:
    going = [member for member in members if not member.stopped_by]
    followers = [m for m in members if m.follows and m.stopped_by and m.problem is None]
    return [*followers, *going] if going else []


def _shuffle(members: Sequence[Member], order: random.Random) -> list[Member]:
    """Families in random order: blocks far apart in time share less of what disturbs them."""
    families: dict[str, list[Member]] = {}
    for member in members:
        families.setdefault(member.family, []).append(member)
    shuffled = list(families.values())
    order.shuffle(shuffled)
    for family in shuffled:
        order.shuffle(family)
    return [member for family in shuffled for member in family]


def _can_pay(member: Member, stop: Stop) -> bool:
    return member.spent_s < stop.max_seconds_per_cell


def _retire(members: Sequence[Member], stop: Stop, rounds: int, check: bool) -> None:
    going = [member for member in members if not member.stopped_by]
    for member in going:
        # A stall may eat the budget in a round or two: an interval needs a few more.
        patience = 1 if len(member.rounds()) >= stop.enough_rounds else OVERDRAFT
        if member.spent_s >= patience * stop.max_seconds_per_cell:
            member.stopped_by = "budget"
        elif rounds >= stop.most_rounds:
            member.stopped_by = "rounds"
    spent = [member for member in going if member.stopped_by == "budget"]
    staying = [member for member in going if not member.stopped_by]
    if not spent and not check:
        return
    found = latencies(members)
    narrow = {name for name, one in found.items() if one.relative_half_width <= stop.relative_ci}
    # All together: a cell that left early would miss the rounds of those that stay.
    done = staying if check and narrow.issuperset(member.name for member in staying) else []
    for member in [*done, *(member for member in spent if member.name in narrow)]:
        member.stopped_by = "interval"
