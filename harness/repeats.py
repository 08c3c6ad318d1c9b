"""Repeats: what a value would be in other sessions, by how far those are apart that there are."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import exp, log, nan, sqrt
from statistics import NormalDist

import numpy as np
from numpy.typing import ArrayLike

from harness.known import SHARED, VARIANCES, WITHIN, Known, weigh
from harness.stats import (
    CONFIDENCE,
    LEAST_FOR_INTERVAL,
    LEAST_P_VALUE,
    Estimate,
    Floats,
    median_interval,
    sum_squares,
)

FURTHEST = 8.0
"""Deviations beyond which there is nothing."""
HALVINGS = 40
"""After so many a bound is known to a trillionth of where it may be."""
FLAGGED = 0.01
"""The probability below which a difference counts as one: there the tails have to be right."""
NEAR = 0.1
"""A p-value whose tails are to be those at itself is found as closely, as a logarithm."""
FURTHEST_OUT = 1e-200
"""Tails are not looked at further out."""
LEAST_FOR_ORDER = 12
"""Rounds of a session from which on their order tells how sure their median is."""
ENOUGH_FOR_TAILS = 100
"""So many tell that well enough for the tails to be those of a normal distribution."""
LEAST_AWAY = sqrt(1 + sqrt(2))
"""Nearer to nothing, crossings would be told less often, which they are not."""
LEAST_WEIGHT = 1e-9
"""What is less probable than that is left out."""
NOTHING = 1e-9
"""The error of what is told without any: no figure of a clock is better."""


@dataclass(frozen=True)
class Repeat:
    """What a value would be elsewhere: normal distributions, each with its weight."""

    weights: Floats
    means: Floats
    deviations: Floats

    @property
    def mean(self) -> float:
        """The value that is expected."""
        return float(self.weights @ self.means)

    def over_runs(self, known: Known) -> Repeat:
        """Return what is known of the mean of all runs: off by what this one's sessions share."""
        if not known.shared:
            return self
        there = self.weights > LEAST_WEIGHT
        shares = weigh(SHARED, known.runs)
        off = np.hypot(self.deviations[there, None], np.sqrt(known.shared * SHARED))
        weights = np.outer(self.weights[there], shares / self.weights[there].sum())
        return Repeat(weights.ravel(), np.repeat(self.means[there], len(SHARED)), off.ravel())

    def interval(self) -> Estimate:
        """Return it with its 95 % interval."""
        from scipy.special import ndtr  # late: few commands need it

        wanted = np.array([(1 - CONFIDENCE) / 2, (1 + CONFIDENCE) / 2])
        most = FURTHEST * self.deviations
        low, high = np.full(2, (self.means - most).min()), np.full(2, (self.means + most).max())
        for _ in range(HALVINGS):
            middle = (low + high) / 2
            away = (middle[:, None] - self.means) / self.deviations
            enough = ndtr(away) @ self.weights >= wanted
            low, high = np.where(enough, low, middle), np.where(enough, middle, high)
        return Estimate(self.mean, *map(float, high))

    def p_value(self) -> float:
        """Return how probable a value as far from 0 is, two-sided, if it is 0."""
        from scipy.special import ndtr

        away = self.means / self.deviations
        sides = [float(self.weights @ ndtr(sign * away)) for sign in (1, -1)]
        return min(1.0, max(2 * min(sides), LEAST_P_VALUE))


def average_sessions(values: ArrayLike, errors: ArrayLike, known: Known) -> Repeat:
    """Return what is known of the mean of all sessions after some, each with its standard error.

    Random effects: a session's value is the mean, and what is the session's own, and its error. The
    variance between sessions is what these show together with what is `known` (scaled inverse χ²);
    after a single session it is what is known. What they share is not in it. The posterior of the
    variance is summed over, not estimated: of few sessions an estimate may be zero. Sources:
    Gelman et al., "Bayesian Data Analysis", 5.4; Röver, "Bayesian Random-Effects Meta-Analysis",
    Journal of Statistical Software 2020.
    """
    seen, own = np.asarray(values, dtype=np.float64), np.asarray(errors, dtype=np.float64)
    variances = known.variance * VARIANCES
    weights = 1 / (variances[:, None] + own**2)
    totals = weights.sum(1)
    means = weights @ seen / totals
    misfit = (weights * (seen - means[:, None]) ** 2).sum(1)
    logs = (np.log(weights).sum(1) - np.log(totals) - misfit) / 2
    return Repeat(weigh(VARIANCES, known.sessions, logs), means, np.sqrt(1 / totals))


def average_runs(values: ArrayLike, errors: ArrayLike, known: Known) -> Repeat:
    """Return what is known of the mean of all runs that there could be, after sessions of one.

    That is the value that repeats scatter around. One that is near it may be as far off as this.
    """
    return average_sessions(values, errors, known).over_runs(known)


@dataclass(frozen=True)
class Comparison:
    """A ratio for a repeat, and the p-value of "there is none"; and of these sessions alone."""

    estimate: Estimate
    p_value: float
    within: Estimate


def compare_sessions(
    sessions: Sequence[Floats], apart: Sequence[float], known: Known, told: ArrayLike | None = None
) -> Comparison:
    """Return the ratio that log-ratios of rounds tell, session by session.

    apart: the deviation of what each session's processes have of their own. told: what each session
    tells; without it, the median of its rounds. Without an interval and a p-value where no session
    has two rounds.
    """
    middles, errors = find_sessions(sessions)
    middles = middles if told is None else np.asarray(told, dtype=np.float64)
    if not middles.size or np.isnan(errors).any():
        alone = Estimate(exp(float(middles.mean())) if middles.size else nan)
        return Comparison(alone, nan, alone)
    errors = np.hypot(errors, apart)
    repeat = average_runs(middles, errors, known).interval()
    within = average_sessions(middles, errors, WITHIN.work).interval()
    p_value = _find_p_value(sessions, middles, apart, known)
    return Comparison(as_factor(repeat), p_value, as_factor(within))


def pay_for_looks(p_value: float, rounds: int) -> float:
    """Return how probable a ratio as far from 1 is in any look, up to so many rounds, if it is 1.

    Of a cell that left at one of them: it may have left as it was far off just then. That is how
    often a mean of independent values, looked at with each of them from LEAST_FOR_INTERVAL on, is
    so many of its deviations off at least once; looks are fewer, and what sessions differ by does
    not change from one to the next. Source: Siegmund, "Sequential Analysis" (1985), chapter 4.
    """
    if not p_value < 1 or rounds <= LEAST_FOR_INTERVAL:
        return p_value
    away = max(LEAST_AWAY, -NormalDist().inv_cdf(p_value / 2))
    crossings = (away - 1 / away) * NormalDist().pdf(away) * log(rounds / LEAST_FOR_INTERVAL)
    return min(1.0, p_value + crossings)


def _find_p_value(
    sessions: Sequence[Floats], middles: Floats, apart: Sequence[float], known: Known
) -> float:
    """Return how probable a ratio as far from 1 is, if there is none.

    Of few rounds the tails are long, and longer the further out: errors are those of a normal
    distribution that has as much outside as the p-value itself says.
    """

    def reckon(outside: float) -> float:
        _, errors = find_sessions(sessions, outside)
        return average_runs(middles, np.hypot(errors, apart), known).p_value()

    found = reckon(FLAGGED)
    if found >= FLAGGED or sum(map(len, sessions)) >= ENOUGH_FOR_TAILS:
        return found
    low, high = log(FURTHEST_OUT), log(FLAGGED)  # the p-value falls as its tails' place rises
    while high - low > NEAR:
        middle = (low + high) / 2
        low, high = (middle, high) if reckon(exp(middle)) > exp(middle) else (low, middle)
    return exp(high)


def average(middles: Floats, errors: Floats, known: Known) -> Estimate:
    """Return the mean of all runs; without an interval where an error is unknown."""
    if not middles.size or np.isnan(errors).any():
        return Estimate(float(middles.mean()) if middles.size else nan)
    return average_runs(middles, errors, known).interval()


def as_factor(logarithm: Estimate) -> Estimate:
    """Return what an estimate of a logarithm is one of."""
    return Estimate(*(exp(bound) for bound in (logarithm.value, logarithm.low, logarithm.high)))


def find_sessions(
    sessions: Sequence[Floats], outside: float = 1 - CONFIDENCE
) -> tuple[Floats, Floats]:
    """Return the median of each session's rounds, and its standard error.

    That of a normal distribution which has as much `outside` the same bounds: of few rounds the
    tails are longer.

    Of what real heats hold, some rounds in which one of two cells was disturbed, a mean is twice as
    far off as a median, and one in which outliers count less 1.4 times. How far rounds are apart is
    taken of all sessions together, NaN where no two rounds tell it.
    """
    if not sessions:
        return np.empty(0), np.empty(0)
    middles = np.array([np.median(one) for one in sessions])
    counts = np.array([len(one) for one in sessions])
    scale = _scale_by_order(sessions, outside) or _scale_by_deviation(sessions, outside)
    return middles, np.maximum(scale / np.sqrt(counts), NOTHING)


def _scale_by_order(sessions: Sequence[Floats], outside: float) -> float:
    """Return the standard error of a session's median, times the root of its rounds' number.

    From order statistics, which hold for any distribution; 0 where no session has enough rounds
    for what is so far outside.
    """
    known = [
        one for one in sessions
        if len(one) >= LEAST_FOR_ORDER and 2.0 ** (1 - len(one)) < outside
    ]  # fmt: skip
    found = [median_interval(one, 1 - outside) for one in known]
    widths = [one.high - one.low for one in found]
    rounds = np.array([len(one) for one in known])
    # Variances are what adds up: beside a noisy session a quiet one is not as noisy.
    scale = sqrt(float(rounds @ np.square(widths)) / max(1, len(known)))
    return scale / 2 / _errors_at(outside)


def _scale_by_deviation(sessions: Sequence[Floats], outside: float) -> float:
    """Return the same from how far a few rounds are apart, with Student's distribution."""
    from scipy.special import stdtrit  # late: few commands need it

    deviation, free = pool_rounds(sessions)
    loss = np.pi / 2 if max(map(len, sessions)) > 2 else 1.0
    wider = -float(stdtrit(free, outside / 2)) / _errors_at(outside) if free else nan
    return wider * deviation * sqrt(loss)


def _errors_at(outside: float) -> float:
    return -NormalDist().inv_cdf(outside / 2)


def pool_rounds(sessions: Sequence[Floats]) -> tuple[float, int]:
    """Return the deviation of a round within its session, and how many are free to tell it."""
    free = sum(len(one) - 1 for one in sessions if len(one))
    return (sqrt(sum_squares(sessions) / free), free) if free else (nan, 0)
