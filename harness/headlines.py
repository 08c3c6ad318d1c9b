"""Headlines: each cell's latency for a repeat, of what is its own and what all of a heat share."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from math import hypot, sqrt

import numpy as np
from numpy.typing import NDArray

from harness.known import Between
from harness.repeats import as_factor, average, find_sessions
from harness.rounds import TIED, Medians, tabulate, take_apart
from harness.stats import Z95, Estimate, Floats, series_median_interval


@dataclass(frozen=True)
class TimedRounds:
    """A heat's rounds: seconds by cell and round, and the session of each round.

    processes: in how many each cell was timed, by session. spread: the deviation of what one
    process has of its own. likeness: cells × cells, in their order in `medians`.
    """

    medians: Medians
    sessions: Mapping[int, int]
    processes: Mapping[str, Mapping[int, int]]
    spread: float
    likeness: Floats

    @cached_property
    def split(self) -> SplitSessions:
        """The rounds, split into what is each cell's own and what they share."""
        names, numbers, logs = tabulate(self.medians)
        turns = np.array([self.sessions[number] for number in numbers], dtype=np.int64)
        parts = take_apart(logs) if names else (np.empty((0, 0)), np.empty(0))
        return SplitSessions(names, *parts, turns, numbers)


def find_headlines(heat: TimedRounds, between: Between) -> dict[str, Estimate]:
    """Return each cell's latency for a repeat: what is its own, and what all of the heat share.

    A cell without rounds is left out; one of too few has no interval.
    """
    split = heat.split
    level = average(*split.level(), between.speed)
    freedom = dict(zip(heat.medians, find_freedom(heat.likeness), strict=True))
    found = {}
    for name in split.names:
        own = split.parts[name]
        apart = [heat.spread / sqrt(heat.processes[name][one]) for one in own]
        middles = np.array([one.middle for one in own.values()])
        errors = np.array([one.error for one in own.values()])
        middle = average(middles, np.hypot(errors, apart), between.work.times(freedom[name]))
        low = middle.value - hypot(middle.value - middle.low, level.value - level.low)
        high = middle.value + hypot(middle.high - middle.value, level.high - level.value)
        found[name] = as_factor(
            Estimate(middle.value + level.value, low + level.value, high + level.value)
        )
    return found


@dataclass(frozen=True)
class SplitSessions:
    """A heat's rounds as logarithms, split: what is each cell's own (cells × rounds), and shared.

    turns: the session of each round, and `numbers` that of the round.
    """

    names: list[str]
    own: Floats
    shared: Floats
    turns: NDArray[np.int64]
    numbers: list[int]

    @cached_property
    def slowness(self) -> dict[int, float]:
        """How slow all cells were in each round, beside the level that headlines are told at."""
        level, _ = self.level()
        factors = np.exp(self.shared - level) if len(level) else np.empty(0)
        return dict(zip(self.numbers, factors.tolist(), strict=True))

    @cached_property
    def parts(self) -> dict[str, dict[int, Own]]:
        """What is each cell's own in each session that it has rounds in."""
        found = {}
        for name, row in zip(self.names, self.own, strict=True):
            there = np.isfinite(row)
            sessions = [int(one) for one in np.unique(self.turns[there])]
            told = find_sessions([row[there & (self.turns == one)] for one in sessions])
            found[name] = {
                one: Own(row[self.turns == one], float(middle), float(error))
                for one, middle, error in zip(sessions, *told, strict=True)
            }
        return found

    def count_rounds(self, name: str, other: str, session: int) -> float:
        """Return as many rounds in which all cells were clean would tell a ratio as surely.

        Where cells have their clean rounds apart, they are compared by way of the others: of an
        incomplete block design. Infinite where nothing is in doubt, 0 where nothing ties them.
        """
        ties = self._ties[session]
        apart = np.zeros(len(self.names))
        apart[self.names.index(name)], apart[self.names.index(other)] = 1.0, -1.0
        reached = ties[0] @ (ties[1] @ apart)
        if not np.allclose(reached, apart, atol=1e-6):
            return 0.0
        doubt = float(apart @ ties[1] @ apart)
        return 2 / doubt if doubt > 0 else float("inf")

    @cached_property
    def _ties(self) -> dict[int, tuple[Floats, Floats]]:
        """How a session's rounds tie its cells: the information in them, and its inverse."""
        found = {}
        for one in map(int, np.unique(self.turns)):
            there = np.isfinite(self.own[:, self.turns == one]).astype(np.float64)
            counts = np.maximum(1.0, there.sum(0))
            ties = np.diag(there.sum(1)) - (there / counts) @ there.T
            found[one] = ties, np.linalg.pinv(ties, TIED, hermitian=True)
        return found

    def level(self) -> tuple[Floats, Floats]:
        """Return the level of the heat, the mean over sessions, and its standard error, as arrays.

        Neighbours in time are alike, and sessions of a run are neighbours: it is a single value.
        """
        sessions = [self.shared[self.turns == one] for one in np.unique(self.turns)]
        if not sessions:
            return np.empty(0), np.empty(0)
        middles, errors = find_sessions(sessions)
        halves = [(one.high - one.low) / 2 for one in map(series_median_interval, sessions)]
        errors = np.fmax(errors, np.array(halves) / Z95)
        return middles.mean(keepdims=True), np.sqrt((errors**2).sum(keepdims=True)) / len(sessions)


@dataclass(frozen=True)
class Own:
    """What is a cell's own in the rounds of a session, NaN where it had none that counts.

    middle, error: the median, and its standard error.
    """

    values: Floats
    middle: float
    error: float

    @property
    def rounds(self) -> int:
        """How many rounds tell of it."""
        return int(np.isfinite(self.values).sum())


def find_freedom(likeness: Floats) -> Floats:
    """Return how much of `Between.work` each cell has against the mean of a heat's cells.

    The ratio of two that have nothing in common has all of it, and each of them half.
    """
    freedom: Floats = (np.diag(likeness) - 2 * likeness.mean(1) + likeness.mean()) / 2
    return np.maximum(freedom, 0.0)
