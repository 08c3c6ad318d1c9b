"""What a heat shows of how far its sessions are apart, and from the last run of the same cells."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import astuple, dataclass

import numpy as np
from numpy.typing import ArrayLike

from harness.likeness import compare_work
from harness.repeats import find_sessions
from harness.stats import Floats
from harness.sweep.heat import pair_sessions
from harness.sweep.seat import TimedHeat, find_baseline

LEAST = 0.001**2
"""No machine is as steady as to differ by less."""
MOST_FREE = 400.0
"""When so much is known, half is forgotten: a machine changes over the months."""
WILDEST = 25.0
"""A heat counts as no further apart than so many times the variance that was known."""
FURTHEST_STEP = 9.0
"""A step counts as no longer than so many times its variance: a cell may have been changed."""
UNLIKE = 0.2
"""Pairs with less of their work apart than this tell little."""
TURNS = 20
"""After so many the variance between runs is known to a millionth."""


@dataclass(frozen=True)
class Shown:
    """What sessions have shown: squares beyond what rounds and processes explain, of how many."""

    total: float = 0.0
    free: float = 0.0

    def plus(self, other: Shown) -> Shown:
        """Return both together; half of it where it has become too much."""
        return Shown(*_add(astuple(self), astuple(other)))

    def after(self, variance: float, count: float, most: float) -> tuple[float, float]:
        """Return the variance that is known by them and by what was known before, and as how many.

        The more there are the less counts what was before: it is of other cells or machines.
        """
        before = count**2 / (count + self.free)
        told = (before * variance + self.total) / (before + self.free)
        return max(LEAST, told), min(before + self.free, most)


@dataclass(frozen=True)
class Steps:
    """What runs have shown, each beside the one before it of the same cells.

    total: halves of the squares of their differences; of these are explained by rounds and
    processes `errors`, and by sessions `sessions` times the variance of one; of how many.
    """

    total: float = 0.0
    errors: float = 0.0
    sessions: float = 0.0
    free: float = 0.0

    def plus(self, other: Steps) -> Steps:
        """Return both together; half of it where it has become too much."""
        return Steps(*_add(astuple(self), astuple(other)))

    def after(
        self, variance: float, count: float, between: float, most: float
    ) -> tuple[float, float]:
        """Return the variance between runs by them and by what was known, and as how many it is.

        between: the variance between sessions. Steps count by how much of them is not explained:
        the less that is, the less they tell.
        """
        if not self.free:
            return variance, count
        explained = (self.errors + self.sessions * between) / self.free
        told, free = variance, 0.0
        for _ in range(TURNS):
            free = self.free * (told / (told + explained)) ** 2
            shown = self.total / self.free - explained
            told = max(LEAST, (count * variance + free * shown) / (count + free))
        return told, min(count + free, most)


def _add(one: Sequence[float], other: Sequence[float]) -> list[float]:
    share = 0.5 if one[-1] + other[-1] > MOST_FREE else 1.0
    return [share * (mine + its) for mine, its in zip(one, other, strict=True)]


@dataclass(frozen=True)
class Pair:
    """A cell and its baseline: the log-ratio of each session, and the error of that.

    apart: how much of their work they have not in common.
    """

    name: str
    apart: float
    sessions: Floats
    errors: Floats

    def mean(self) -> tuple[float, float, float]:
        """Return the log-ratio that its run tells, the square of its error, and 1 / sessions.

        Of pairs with nothing in common.
        """
        count = len(self.sessions)
        error = float((self.errors**2).sum()) / count**2
        return float(self.sessions.mean()) / self.apart**0.5, error / self.apart, 1 / count


def find_pairs(timed: TimedHeat) -> Iterator[Pair]:
    """Yield the pairs of a heat that tell something, those of unlike cells."""
    for seat in timed.seats:
        baseline = find_baseline(timed.seats, seat.cell)
        if baseline is None or baseline is seat or not (seat.member and baseline.member):
            continue
        apart = 1 - compare_work(seat.work, baseline.work)
        if apart < UNLIKE:
            continue
        sessions, errors = pair_sessions(seat.member, baseline.member, timed.process_spread)
        values, own = find_sessions(sessions)
        if values.size and np.isfinite(own).all():
            named = json.dumps([seat.cell.id, seat.work], sort_keys=True)
            name = hashlib.sha256(named.encode()).hexdigest()[:16]
            yield Pair(name, apart, values, np.hypot(own, errors))


def find_between(pairs: Sequence[Pair], known: float) -> Shown:
    """Return what the sessions of a heat show of the ratios of unlike cells.

    All pairs together as much as one of them: it may be their baseline that wanders. `known`: the
    variance that was known.
    """
    found = [(find_excess(one.sessions, one.errors, known * one.apart), one) for one in pairs]
    told = [(shown.total / pair.apart, shown.free) for shown, pair in found if shown.free]
    return Shown(*map(float, np.mean(told, axis=0))) if told else Shown()


def find_steps(pairs: Sequence[Pair], latest: Mapping[str, Sequence[float]], known: float) -> Steps:
    """Return what a run shows beside the last one; all pairs together as much as one of them.

    Differences of neighbours (von Neumann): a cell that was changed between two runs counts once.
    """
    found = []
    for pair in pairs:
        if pair.name in latest:
            value, error, share = pair.mean()
            before, its_error, its_share = latest[pair.name]
            explained = (error + its_error) / 2, (share + its_share) / 2
            most = FURTHEST_STEP * (known * (1 + explained[1]) + explained[0])
            found.append((min((value - before) ** 2 / 2, most), *explained, 1.0))
    return Steps(*map(float, np.mean(found, axis=0))) if found else Steps()


def find_excess(values: ArrayLike, errors: ArrayLike, known: float) -> Shown:
    """Return the squares of sessions about their mean, beyond those of their errors.

    Without a bias, and so they may be negative; nothing of fewer than two, or without errors.
    """
    seen, own = np.asarray(values, dtype=np.float64), np.asarray(errors, dtype=np.float64)
    free = seen.size - 1
    if free < 1 or not np.isfinite(own).all():
        return Shown()
    squares = float(((seen - seen.mean()) ** 2).sum() - free * (own**2).mean())
    return Shown(min(squares, free * WILDEST * known), float(free))
