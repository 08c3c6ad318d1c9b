"""Repeats: what a value would be in other sessions, by how far those are apart that there are."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import nan, sqrt

import numpy as np
from numpy.typing import ArrayLike

from harness.stats import CONFIDENCE, LEAST_P_VALUE, Z95, Estimate, Floats, sum_squares

VARIANCES = np.geomspace(1e-4, 1e4, 121)
"""Where the variance between sessions is looked at, as multiples of what is known of it."""
FURTHEST = 8.0
"""Deviations beyond which there is nothing."""
HALVINGS = 40
"""After so many a bound is known to a trillionth of where it may be."""


@dataclass(frozen=True)
class Known:
    """What earlier sessions showed: the variance between sessions, and as how many it counts."""

    variance: float
    sessions: float


@dataclass(frozen=True)
class Repeat:
    """The mean of all sessions that there could be: normal distributions, each with its weight.

    spread: the deviation between sessions that is expected.
    """

    weights: Floats
    means: Floats
    deviations: Floats
    spread: float

    @property
    def mean(self) -> float:
        """The value that is expected."""
        return float(self.weights @ self.means)

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

    def draw(self, draws: int, generator: np.random.Generator) -> Floats:
        """Return values that it might as well have."""
        chosen = generator.choice(len(self.weights), draws, p=self.weights)
        normal: Floats = generator.standard_normal(draws)
        return self.means[chosen] + self.deviations[chosen] * normal


def average_sessions(values: ArrayLike, errors: ArrayLike, known: Known) -> Repeat:
    """Return what is known of the mean of all sessions after some, each with its standard error.

    Random effects: a session's value is the mean, and what is the session's own, and its error. The
    variance between sessions is what these show together with what is `known` (scaled inverse χ²);
    after a single session it is what is known. Its posterior is summed over, not estimated: of few
    sessions an estimate may be zero. Sources: Gelman et al., "Bayesian Data Analysis", 5.4; Röver,
    "Bayesian Random-Effects Meta-Analysis", Journal of Statistical Software 2020.
    """
    seen, own = np.asarray(values, dtype=np.float64), np.asarray(errors, dtype=np.float64)
    variances = known.variance * VARIANCES
    weights = 1 / (variances[:, None] + own**2)
    totals = weights.sum(1)
    means = weights @ seen / totals
    misfit = (weights * (seen - means[:, None]) ** 2).sum(1)
    logs = (np.log(weights).sum(1) - np.log(totals) - misfit) / 2
    logs -= known.sessions / 2 * (np.log(VARIANCES) + 1 / VARIANCES)
    shares = np.exp(logs - logs.max())
    shares /= shares.sum()
    return Repeat(shares, means, 1 / np.sqrt(totals), sqrt(float(shares @ variances)))


def find_session(values: ArrayLike, deviation: float, free: int) -> tuple[float, float]:
    """Return the median of a session's rounds, and its standard error; NaN where none is free.

    `deviation` of one round, estimated from so many free ones: a few tell it with doubt, and
    Student's distribution is that much wider than the normal one.
    """
    from scipy.stats import t

    seen = np.asarray(values, dtype=np.float64)
    if free < 1:
        return float(np.median(seen)), nan
    wider = float(t.ppf((1 + CONFIDENCE) / 2, free)) / Z95
    loss = np.pi / 2 if seen.size > 2 else 1.0
    return float(np.median(seen)), wider * deviation * sqrt(loss / seen.size)


def pool_rounds(sessions: Sequence[Floats]) -> tuple[float, int]:
    """Return the deviation of a round within its session, and how many are free to tell it."""
    free = sum(len(one) - 1 for one in sessions if len(one))
    return (sqrt(sum_squares(sessions) / free), free) if free else (nan, 0)
