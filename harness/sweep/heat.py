"""A heat: cells that are compared are alive together and timed in rounds of short blocks."""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np

from harness.errors import WorkerFailure, WorkerRefusal
from harness.stats import LEAST_FOR_INTERVAL, Estimate, Floats, median_interval

CHECK_EVERY_ROUNDS = 5
OVERDRAFT = 3
"""How many times its budget a cell may spend while it has too few rounds for an interval."""


class Samples(Protocol):
    """What a worker returns for a block: seconds of one call, and the calls in each sample."""

    seconds: Floats
    loops: int


@dataclass(frozen=True)
class Stop:
    """When a heat ends: the interval is narrow enough, or the budget of its cells is spent."""

    relative_ci: float
    max_seconds_per_cell: float
    least_rounds: int


@dataclass(frozen=True)
class TimedBlock:
    """A block with its place: round, running number in the heat, position in the round."""

    round: int
    block: int
    position: int
    samples: Samples


@dataclass
class Member:
    """A cell in a heat, and what the heat found of it."""

    name: str
    time_block: Callable[[], Samples]
    leads: bool = False
    blocks: list[TimedBlock] = field(default_factory=list)
    spent_s: float = 0.0
    stopped_by: str = ""
    problem: WorkerFailure | WorkerRefusal | None = None

    def round_medians(self) -> dict[int, float]:
        """Return the median of each round, in seconds."""
        return {block.round: float(np.median(block.samples.seconds)) for block in self.blocks}

    def latency(self) -> Estimate:
        """Return the median over rounds, with its interval."""
        return median_interval(list(self.round_medians().values()))

    def is_narrow(self, relative_ci: float) -> bool:
        """Tell whether the interval has become as narrow as asked."""
        return self.latency().relative_half_width <= relative_ci


def run_heat(
    members: Sequence[Member],
    stop: Stop,
    seed: int,
    clock: Callable[[], float] = time.monotonic,
) -> None:
    """Time the members in rounds until each is narrow enough or has spent its budget.

    Each round visits every member that is still in, in a freshly shuffled order. The leading
    member (the baseline) stays in as long as another does, so that every round has its pair. A
    member whose worker fails leaves with the failure; the others go on.
    """
    order = random.Random(seed)
    number = block = 0
    while active := _active(members):
        order.shuffle(active)
        for position, member in enumerate(active):
            begin = clock()
            try:
                samples = member.time_block()
            except (WorkerFailure, WorkerRefusal) as problem:
                member.problem, member.stopped_by = problem, "failure"
                continue
            member.spent_s += clock() - begin
            member.blocks.append(TimedBlock(number, block, position, samples))
            block += 1
        number += 1
        _retire(members, stop, number)


def _active(members: Sequence[Member]) -> list[Member]:
    going = [member for member in members if not member.stopped_by]
    leaders = [m for m in members if m.leads and m.stopped_by and m.problem is None]
    return [*leaders, *going] if any(not member.leads for member in going) else going


def _retire(members: Sequence[Member], stop: Stop, rounds: int) -> None:
    going = [member for member in members if not member.stopped_by]
    for member in going:
        # A stall may eat the budget in a round or two: an interval needs a few more.
        patience = 1 if len(member.blocks) >= LEAST_FOR_INTERVAL else OVERDRAFT
        if member.spent_s >= patience * stop.max_seconds_per_cell:
            narrow = member.is_narrow(stop.relative_ci)
            member.stopped_by = "interval" if narrow else "budget"
    if rounds < stop.least_rounds or rounds % CHECK_EVERY_ROUNDS:
        return
    # All together: a cell that left early would miss the rounds of those that stay.
    if all(member.is_narrow(stop.relative_ci) for member in going if not member.stopped_by):
        for member in going:
            member.stopped_by = member.stopped_by or "interval"
