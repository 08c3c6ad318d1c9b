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
"""The same for those of a step from run to run: a cell may have been changed."""
UNLIKE = 0.2
"""Pairs with less of their work apart than this tell little."""
ONE_DEVIATION = 0.3173
"""The probability outside of one: errors are to be what they are, not what is safe."""


@dataclass(frozen=True)
class Shown:
    """What a heat shows of its ratios, as of pairs with nothing in common.

    squares: of the sessions about their mean, added up; so many are free, and rounds and processes
    explain `error` of each. step: the square of the difference to the last run of the same cells,
    halved, of which rounds and processes explain `step_error`, and sessions `step_sessions` times
    the variance between them; there are `steps` of these: 1, or 0 where there was no such run.
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
class Pair:
    """A cell and its reference: the log-ratio of each session, and the error of that.

    apart: how much of their work they have not in common.
    """

    name: str
    apart: float
    sessions: Floats
    errors: Floats

    def mean(self) -> tuple[float, float, float]:
        """Return the log-ratio that its run tells, the square of its error, and 1 / sessions.

        As of a pair with nothing in common.
        """
        count = len(self.sessions)
        error = float((self.errors**2).sum()) / count**2
        return float(self.sessions.mean()) / self.apart**0.5, error / self.apart, 1 / count


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
    pairs: Sequence[Pair], latest: Mapping[str, Sequence[float]], known: Known,
    others: Sequence[Pair] = (),
) -> Shown:  # fmt: skip
    """Return what a heat shows beside what its pairs told in their `latest` run.

    All pairs together as much as one of them: it may be their baseline that wanders. `known`: what
    was known before.
    """
    steps = [
        _find_step(pair.mean(), latest[pair.name], known) for pair in pairs if pair.name in latest
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


def _find_step(
    now: Sequence[float], before: Sequence[float], known: Known
) -> tuple[float, float, float]:
    """Return half the square of what a pair went from one run to another, and what explains it.

    Differences of neighbours (von Neumann): a change of the machine counts once.
    """
    (value, error, share), (its_value, its_error, its_share) = now, before
    error, share = (error + its_error) / 2, (share + its_share) / 2
    most = FURTHEST_STEP * (known.shared + share * known.variance + error)
    return min((value - its_value) ** 2 / 2, most), error, share
