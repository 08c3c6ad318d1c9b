"""What is known of variances between sessions and runs: scaled inverse χ² distributions."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import ArrayLike

from harness.stats import Floats

VARIANCES = np.geomspace(1e-4, 1e4, 121)
"""Where a variance between sessions is looked at, as multiples of what is known of it."""
BETWEEN_VARIANCES = float(np.log(VARIANCES[1] / VARIANCES[0])) ** 2 / 12
"""How far off their logarithms may be for being so far apart, as a variance."""
SHARED = np.geomspace(1 / 30, 300, 25)
"""Where the variance of what the sessions of a run share is looked at, likewise."""

NOTHING = 1e-9
"""As fewer squares none count."""
LEAST_LOG = -700.0
"""Less is nothing, as a number of a computer."""


@dataclass(frozen=True)
class Known:
    """What earlier sessions showed: the variance between sessions, and as how many it counts.

    shared: the variance of what all sessions of a run have in common, and another run has not;
    as how many `runs` that counts. at_reference: how much of a ratio's variance is its reference's
    doing; the other cell has the rest, and two other cells have twice the rest.
    """

    variance: float
    sessions: float
    shared: float = 0.0
    runs: float = 1.0
    at_reference: float = 0.5

    def times(self, share: float) -> Known:
        """Return the same of cells that wander by this share of the variance."""
        return replace(self, variance=self.variance * share, shared=self.shared * share)


@dataclass(frozen=True)
class Between:
    """What sessions differ by on a machine, as variances of logarithms.

    work: of the ratio of cells that have no work in common. speed: of what all cells of a heat
    share, from one heat to another.
    """

    work: Known
    speed: Known

    def of_ratio(self, likeness: float) -> Known:
        """Return what is known of the ratio of two cells that have so much work in common."""
        return self.work.times(1 - likeness)


WITHIN = Between(Known(0.0, 1.0), Known(0.0, 1.0))
"""As if all sessions were alike: what is said of those that there were."""


def weigh(multiples: Floats, count: float, logs: Floats | float = 0.0) -> Floats:
    """Return how probable multiples of a variance are that was known of so many; they sum to 1.

    A scaled inverse χ², as a distribution of the logarithm; `logs`: what else is known, as the
    logarithm of its likelihood.
    """
    return _normalize(logs - count / 2 * (np.log(multiples) + 1 / multiples))


def _log_f(multiples: Floats, above: float, below: float) -> Floats:
    """Return the logarithm of the density of F(above, below), as one of the logarithm."""
    told: Floats = -(above + below) / 2 * np.log1p(below / above / multiples)
    return told - below / 2 * np.log(multiples)


def _normalize(logs: Floats) -> Floats:
    """Return weights that sum to 1, by their logarithms."""
    weights: Floats = np.exp(np.maximum(logs - logs.max(), LEAST_LOG))
    weights /= weights.sum()
    return weights


def find_likelihoods(
    variances: Floats, squares: ArrayLike, explained: ArrayLike, free: ArrayLike
) -> Floats:
    """Return for each variance the logarithm of the likelihood of sums of squares.

    Each sum is one of so many `free` squares, and the variance of each of these is so much more
    than what is asked for as something else explains.
    """
    counts = np.asarray(free, dtype=np.float64)
    whole = variances[:, None] + np.asarray(explained, dtype=np.float64)
    told: Floats = -(counts * np.log(whole) + np.asarray(squares) / whole).sum(1) / 2
    return told


def learn_variance(
    before: float, count: float, squares: ArrayLike, explained: ArrayLike, free: ArrayLike,
    least: float = 0.0,
) -> tuple[float, float]:  # fmt: skip
    """Return the variance that is known by sums of squares and of before, and as how many.

    before, count: what was known; it counts the less the more there is now, as it is of other cells
    or machines. These may be much steadier as well, which a scaled inverse χ² all but rules out: it
    turns into an F distribution, which does not. `least` is as little as the variance can be, and
    at most `before`. The rest: as in `find_likelihoods`; squares of which something else explains
    much tell little. The result is the scaled inverse χ² whose logarithm has the mean and the
    variance of the posterior. Source of the prior: Pérez, Pericchi and Ramírez, "The Scaled Beta2
    Distribution as a Robust Prior for Scales", Bayesian Analysis 2017.
    """
    from scipy.special import digamma  # late: few commands need it

    counts, known = np.asarray(free, np.float64), np.asarray(explained, np.float64)
    if not counts.any():
        return before, count
    told = max(NOTHING, float((counts * (before / (before + known)) ** 2).sum()))
    variances = before * VARIANCES
    logs = find_likelihoods(variances, squares, known, counts)
    logs = logs + _log_f(VARIANCES, count**2 / told, count**2 / (count + told))
    weights = _normalize(np.where(variances >= least, logs, -np.inf))
    middle = float(weights @ np.log(variances))
    spread = float(weights @ (np.log(variances) - middle) ** 2) + BETWEEN_VARIANCES
    half = (1 + np.sqrt(1 + 2 * spread)) / (2 * spread)  # trigamma(half) is `spread`
    return float(np.exp(middle + digamma(half)) / half), float(2 * half)
