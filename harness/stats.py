"""Statistics: pure functions of numbers, each with its source."""

from __future__ import annotations

from dataclasses import dataclass
from math import sqrt
from statistics import NormalDist

import numpy as np
from numpy.typing import ArrayLike, NDArray

Floats = NDArray[np.float64]

RESAMPLES = 2_000
LEAST_FOR_INTERVAL = 5
LEAST_FOR_P99 = 662
"""Samples that a 99th percentile needs; MLPerf Inference rules, early stopping, p = 0.99."""
LEAST_FOR_P90 = 64
"""The same count for a 90th percentile."""


@dataclass(frozen=True)
class Estimate:
    """A value with its 95 % interval; the bounds are NaN where there are too few data."""

    value: float
    low: float = float("nan")
    high: float = float("nan")

    @property
    def relative_half_width(self) -> float:
        """Half the interval's width over the value; NaN without an interval."""
        return (self.high - self.low) / 2 / abs(self.value) if self.value else float("nan")


def median_interval(values: ArrayLike, seed: int = 0) -> Estimate:
    """Return the median with a percentile-bootstrap 95 % interval.

    Source: Efron and Tibshirani, "An Introduction to the Bootstrap", 1993, ch. 13. Give one value
    a round: rounds are what may be resampled, samples within a round are not independent.
    """
    data = np.asarray(values, dtype=np.float64)
    if data.size == 0:
        return Estimate(float("nan"))
    middle = float(np.median(data))
    if data.size < LEAST_FOR_INTERVAL:
        return Estimate(middle)
    picks = np.random.default_rng(seed).integers(0, data.size, (RESAMPLES, data.size))
    low, high = np.quantile(np.median(data[picks], axis=1), [0.025, 0.975])
    return Estimate(middle, float(low), float(high))


@dataclass(frozen=True)
class Ratio:
    """A median ratio with its interval, and the p-value of "there is no difference"."""

    estimate: Estimate
    p_value: float
    pairs: int


def paired_ratio(values: ArrayLike, reference: ArrayLike) -> Ratio:
    """Return the median of values/reference over pairs, with interval and signed-rank p-value.

    Pairs are resampled for the interval; the p-value is Wilcoxon's signed-rank test on the
    log-ratios (Wilcoxon, Biometrics Bulletin 1945). Pairs with NaN or non-positive values are
    left out.
    """
    top, bottom = np.asarray(values, float), np.asarray(reference, float)
    valid = np.isfinite(top) & np.isfinite(bottom) & (top > 0) & (bottom > 0)
    ratios = top[valid] / bottom[valid]
    estimate = median_interval(ratios)
    if ratios.size < LEAST_FOR_INTERVAL:
        return Ratio(estimate, float("nan"), ratios.size)
    return Ratio(estimate, signed_rank_p_value(np.log(ratios)), ratios.size)


def signed_rank_p_value(differences: ArrayLike) -> float:
    """Return the two-sided p-value of Wilcoxon's signed-rank test; 1 where all are zero."""
    from scipy import stats  # late: it takes a second, and few commands test anything

    values = np.asarray(differences, dtype=np.float64)
    return float(stats.wilcoxon(values).pvalue) if values.any() else 1.0


def wilson_interval(successes: int, trials: int) -> Estimate:
    """Return a proportion with its 95 % score interval.

    Source: Wilson, JASA 1927.
    """
    if trials == 0:
        return Estimate(float("nan"))
    z = NormalDist().inv_cdf(0.975)
    share = successes / trials
    centre = (share + z * z / (2 * trials)) / (1 + z * z / trials)
    half = z / (1 + z * z / trials) * sqrt(share * (1 - share) / trials + z * z / (4 * trials**2))
    return Estimate(share, max(0.0, centre - half), min(1.0, centre + half))


def percentile(samples: ArrayLike, percent: float, least: int) -> float:
    """Return a percentile of the samples; NaN where there are fewer than `least`."""
    data = np.asarray(samples, dtype=np.float64)
    return float(np.percentile(data, percent)) if data.size >= least else float("nan")


def macro_f1(predicted: ArrayLike, labels: ArrayLike) -> float:
    """Return the mean over classes of F1 = 2·TP / (2·TP + FP + FN), over classes that occur.

    A class that is neither present nor predicted is left out; one that is never right counts 0.
    """
    guess, truth = np.asarray(predicted), np.asarray(labels)
    scores = []
    for label in np.union1d(guess, truth):
        hits = int(np.sum((guess == label) & (truth == label)))
        misses = int(np.sum((guess == label) != (truth == label)))
        scores.append(2 * hits / (2 * hits + misses))
    return float(np.mean(scores)) if scores else float("nan")


def relative_fidelity(outputs: ArrayLike, reference: ArrayLike) -> float:
    """Return 1 − ‖outputs − reference‖₂ / ‖reference‖₂, at least 0; 1 means identical.

    NaN where the shapes differ or the reference is zero.
    """
    values, wanted = np.asarray(outputs, np.float64), np.asarray(reference, np.float64)
    norm = float(np.linalg.norm(wanted))
    if values.shape != wanted.shape or norm == 0 or not np.isfinite(norm):
        return float("nan")
    error = float(np.linalg.norm(values - wanted)) / norm
    return max(0.0, 1.0 - error) if np.isfinite(error) else 0.0
