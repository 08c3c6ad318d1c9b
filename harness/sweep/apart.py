"""What a heat shows of how far its sessions are apart, and from the last run of the same cells."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from harness.known import Known
from harness.likeness import compare_work
from harness.repeats import find_sessions
from harness.stats import Floats
from harness.sweep.compare import pair_sessions
from harness.sweep.seat import Seat, TimedHeat, find_baseline

WILDEST = 25.0
"""Squares count as no larger than so many times what was to be expected."""
FURTHEST_STEP = 9.0
"""The same for those of a step from run to run."""
CHANGED = 36.0
"""A step of which the square is larger than so many times what was to be expected is a change."""
MOST_RUNS = 20
"""As so many at the most those before a run count: a machine changes."""
UNLIKE = 0.2
"""Pairs with less of their work apart than this tell little."""
ONE_DEVIATION = 0.3173
"""The probability outside of one: errors are to be what they are, not what is safe."""


@dataclass(frozen=True)
class Shown:
    """What a heat shows of its ratios, as of pairs with nothing in common.

    squares: of the sessions about their mean, added up; so many are free, and rounds and processes
    explain `error` of each. step: the square by which a run of the same cells adds to those about
    the mean of all, of which rounds and processes explain `step_error`, and sessions
    `step_sessions` times the variance between them; there are `steps` of these: 1, or 0 where there
    was no run before.
    others, others_error, others_free: as the first three, of cells that are no baselines.
    """

    squares: float = 0.0
    error: float = 0.0
    free: float = 0.0
    step: float = 0.0
    step_error: float = 0.0
    step_sessions: float = 0.0
    steps: float = 0.0
    others: float = 0.0
    others_error: float = 0.0
    others_free: float = 0.0


@dataclass(frozen=True)
class Told:
    """What the runs of a pair told, in the mean, as of one with nothing in common.

    value: the log-ratio. error: the square of what a run's is off by its rounds and processes.
    share: 1 / sessions.
    """

    value: float
    error: float
    share: float
    runs: float = 1.0

    def after(self, now: Told, known: Known) -> Told:
        """Return it after another run; of a pair that was changed, that alone is told."""
        if now.differs(self, known):
            return now
        runs = min(self.runs, MOST_RUNS - 1)

        def mean(mine: float, its: float) -> float:
            return (runs * mine + its) / (runs + 1)

        return Told(
            mean(self.value, now.value), mean(self.error, now.error),
            mean(self.share, now.share), runs + 1,
        )  # fmt: skip

    def differs(self, before: Told, known: Known) -> bool:
        """Tell whether a run is so far from those before that something was changed."""
        square, error, share = self.step(before)
        return square > CHANGED * (known.shared + share * known.variance + error)

    def step(self, before: Told) -> tuple[float, float, float]:
        """Return what a run adds to the squares about the mean of all, and what explains it.

        Of runs that are as far apart as they like, drifting ones too, these squares add up to those
        about their mean. Source: Welford, Technometrics 1962.
        """
        old, new = before.runs / (before.runs + 1), 1 / (before.runs + 1)
        square = old * (self.value - before.value) ** 2
        return square, old * self.error + new * before.error, old * self.share + new * before.share


@dataclass(frozen=True)
class Pair:
    """A cell and its reference: the log-ratio of each session, and the error of that.

    apart: how much of their work they have not in common.
    """

    name: str
    apart: float
    sessions: Floats
    errors: Floats

    @property
    def told(self) -> Told:
        """What its run tells."""
        count = len(self.sessions)
        error = float((self.errors**2).sum()) / count**2
        return Told(float(self.sessions.mean()) / self.apart**0.5, error / self.apart, 1 / count)


def find_pairs(timed: TimedHeat) -> Iterator[Pair]:
    """Yield the pairs of a heat that tell something: unlike cells and their baselines."""
    for seat in timed.seats:
        baseline = find_baseline(timed.seats, seat.cell)
        if baseline is not None and baseline is not seat:
            yield from _find_pair(timed, seat, baseline)


def find_others(timed: TimedHeat) -> Iterator[Pair]:
    """Yield pairs of unlike cells that have no more in common with their baseline than each other.

    What these differ by is not their baseline's doing.
    """
    found: dict[int, list[tuple[float, int]]] = {}
    for number, seat in enumerate(timed.seats):
        baseline = find_baseline(timed.seats, seat.cell)
        if baseline is not None and baseline is not seat:
            alike = compare_work(seat.work, baseline.work)
            if 1 - alike >= UNLIKE:
                found.setdefault(id(baseline), []).append((alike, number))
    for cells in found.values():
        for (less, one), (more, other) in pairwise(sorted(cells)):
            if more - less <= UNLIKE:
                yield from _find_pair(timed, timed.seats[one], timed.seats[other])


def _find_pair(timed: TimedHeat, seat: Seat, reference: Seat) -> Iterator[Pair]:
    apart = 1 - compare_work(seat.work, reference.work)
    if apart < UNLIKE or not (seat.member and reference.member):
        return
    sessions, errors = pair_sessions(seat.member, reference.member, timed.process_spread)
    values, own = find_sessions([*sessions.values()], ONE_DEVIATION)
    if values.size and np.isfinite(own).all():
        named = " ".join([seat.cell.id, seat.variant, reference.variant])
        name = hashlib.sha256(named.encode()).hexdigest()[:16]
        yield Pair(name, apart, values, np.hypot(own, errors))


def find_shown(
    pairs: Sequence[Pair], before: Mapping[str, Told], known: Known,
    others: Sequence[Pair] = (),
) -> Shown:  # fmt: skip
    """Return what a heat shows beside what its pairs told in the runs before.

    All pairs together as much as one of them: it may be their baseline that wanders. `known`: what
    was known before.
    """
    steps = [
        _find_step(pair.told, before[pair.name], known) for pair in pairs if pair.name in before
    ]
    step, error, share = map(float, np.mean(steps, axis=0)) if steps else (0.0, 0.0, 0.0)
    return Shown(
        *_add_squares(pairs, known), step, error, share, float(bool(steps)),
        *_add_squares(others, known),
    )  # fmt: skip


def _add_squares(pairs: Sequence[Pair], known: Known) -> tuple[float, float, float]:
    """Return the squares, the error of one, and how many are free, in the mean over pairs."""
    apart = [one for pair in pairs if (one := _find_squares(pair, known))]
    squares, error, free = map(float, np.mean(apart, axis=0)) if apart else (0.0, 0.0, 0.0)
    return squares, error, free


def _find_squares(pair: Pair, known: Known) -> tuple[float, float, float] | None:
    """Return the squares of a pair's sessions about their mean, the error of one; how many."""
    free = len(pair.sessions) - 1
    if free < 1:
        return None
    error = float((pair.errors**2).mean()) / pair.apart
    squares = float(((pair.sessions - pair.sessions.mean()) ** 2).sum()) / pair.apart
    return min(squares, free * WILDEST * (known.variance + error)), error, float(free)


def _find_step(now: Told, before: Told, known: Known) -> tuple[float, float, float]:
    """Return the square of what a run is off those before, not too large, and what explains it."""
    square, error, share = now.step(before)
    most = FURTHEST_STEP * (known.shared + share * known.variance + error)
    return min(square, most), error, share
