"""Statistics of times: pure functions of numbers, each with its source."""

from __future__ import annotations

import sys
from collections.abc import Iterable
from dataclasses import dataclass
from functools import lru_cache
from math import log, sqrt
from statistics import NormalDist

import numpy as np
from numpy.typing import ArrayLike, NDArray

Floats = NDArray[np.float64]

CONFIDENCE = 0.95
Z95 = NormalDist().inv_cdf((1 + CONFIDENCE) / 2)
LEAST_FOR_INTERVAL = 6
"""Five values cannot hold their median with 95 %: all are on one side too often (1 in 16)."""
LEAST_FOR_P99 = 662
"""Samples that a 99th percentile needs; MLPerf Inference rules, early stopping, p = 0.99."""
LEAST_P_VALUE = sys.float_info.min
"""What is smaller would be zero: no number of standard errors, and no logarithm."""
OUTLYING = 3.0
"""As so many deviations counts what is further away."""
MOST_FOR_TREND = 1_000
LEAST_FOR_P90 = 64
"""The same count for a 90th percentile."""
PROCESS_SPREAD = 0.004
"""How far the log-ratio of two processes with the same work is from 0 for as long as they live
(standard deviation): where their memory lies decides. Found in `tests/data/same_cell_twice.parquet`
by what the two halves of each heat have in common."""


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


def median_interval(values: ArrayLike, confidence: float = CONFIDENCE) -> Estimate:
    """Return the median with its interval, from order statistics that are interpolated.

    Holds for every continuous distribution. Source: Hettmansperger and Sheather, Statistics &
    Probability Letters 1986; Nyblom, the same 1992. A percentile bootstrap covers only 92 % with
    8 values and 94 % with 30. Give one value a round: samples within a round are not independent.
    """
    data = np.sort(np.asarray(values, dtype=np.float64))
    if data.size == 0:
        return Estimate(float("nan"))
    middle = float(np.median(data))
    if data.size < LEAST_FOR_INTERVAL or not np.isfinite(middle):
        return Estimate(middle)
    depth, weight = _order_statistics(data.size, confidence)
    low, high = (
        (1 - weight) * side[depth - 1] + weight * side[depth] for side in (data, data[::-1])
    )
    return Estimate(middle, float(low), float(high))


def series_median_interval(series: ArrayLike) -> Estimate:
    """Return the median of values in the order they were measured, with its 95 % interval.

    Neighbours in time are alike where a machine changes its speed now and then: so many values say
    less than if they were independent, and the bounds lie further out in rank, by the root of
    1 + 2 Σ (1 − k/n) (2/π) arcsin ρᵏ over the lags k. ρ follows from how often successive values
    are on different sides of the median. Source: Gastwirth and Rubin, "Effect of Dependence on the
    Level of Some One-Sample Tests", JASA 1971 (sign test, autoregressive series).
    """
    values = np.asarray(series, dtype=np.float64)
    plain = median_interval(values)
    if not np.isfinite(plain.low):
        return plain
    above = values > plain.value
    crossings = float(np.mean(above[1:] != above[:-1]))
    lags = np.arange(1, values.size)
    alike = 2 / np.pi * np.arcsin(max(0.0, np.cos(np.pi * crossings)) ** lags)
    stretch = sqrt(1 + 2 * float(np.sum((1 - lags / values.size) * alike)))
    depth, weight = _order_statistics(values.size)
    middle = (values.size - 1) / 2
    below = max(0.0, middle - stretch * (middle - (depth - 1 + weight)))
    low, high = np.interp([below, 2 * middle - below], np.arange(values.size), np.sort(values))
    return Estimate(plain.value, float(low), float(high))


@lru_cache
def _order_statistics(size: int, confidence: float = CONFIDENCE) -> tuple[int, float]:
    """Return the depth k of the outer order statistics, and the weight of the next inner ones."""
    ranks = np.arange(1, size // 2)
    steps = np.log((size - ranks + 1) / ranks)  # of the binomial coefficients, as logarithms
    below = np.cumsum(np.exp(np.concatenate([[0.0], np.cumsum(steps)]) - size * log(2)))
    cover = 1 - 2 * below  # of the interval from the k-th smallest to the k-th largest, from k = 1
    depth = int(np.sum(cover >= confidence))
    inner = cover[depth] if depth < cover.size else 0.0
    share = (cover[depth - 1] - confidence) / (cover[depth - 1] - inner)
    return depth, float((size - depth) * share / (depth + (size - 2 * depth) * share))


@dataclass(frozen=True)
class Trend:
    """Change of a series from its first value to its last, relative to the median; its p-value."""

    change: float
    p_value: float


def find_trend(values: ArrayLike) -> Trend:
    """Return the robust trend of a series in the order it was measured; NaN with too few values.

    Of very many values the medians of as many neighbours as it takes: the slope looks at each pair.
    Slope: Theil and Sen (Sen, JASA 1968). Test: Kendall's rank correlation with time (Mann,
    Econometrica 1945).
    """
    from scipy import stats  # late: it takes a second, and few commands test anything

    data = np.asarray(values, dtype=np.float64)
    if data.size < LEAST_FOR_INTERVAL:
        return Trend(float("nan"), float("nan"))
    if data.size > MOST_FOR_TREND:
        data = np.array([np.median(part) for part in np.array_split(data, MOST_FOR_TREND)])
    times = np.arange(data.size)
    slope = float(stats.theilslopes(data, times).slope)
    p_value = float(stats.kendalltau(times, data).pvalue) if np.ptp(data) else 1.0
    return Trend(slope * (data.size - 1) / float(np.median(data)), p_value)


def known_median(table: Floats, axis: int) -> Floats:
    """Return the median of what is known along an axis, where NaN stands for what is not.

    NaN where nothing is. NumPy's `nanmedian` takes ten times as long for short rows.
    """
    counts = np.isfinite(table).sum(axis, keepdims=True)
    if (counts == table.shape[axis]).all():
        return np.asarray(np.median(table, axis))
    ordered = np.sort(table, axis)  # NaN last
    middles = [
        np.take_along_axis(ordered, np.maximum(place, 0), axis)
        for place in ((counts - 1) // 2, np.minimum(counts // 2, table.shape[axis] - 1))
    ]
    return np.asarray(np.squeeze((middles[0] + middles[1]) / 2, axis))


def robust_deviation(values: ArrayLike) -> float:
    """Return the standard deviation by the median absolute deviation, which outliers leave alone.

    Source: Rousseeuw and Croux, JASA 1993; 1.4826 · MAD, for normal noise the deviation itself.
    """
    data = np.asarray(values, dtype=np.float64)
    return 1.4826 * float(np.median(np.abs(data - np.median(data))))


def sum_squares(series: Iterable[Floats]) -> float:
    """Return the squares of how far values are from the middle of their series, added up.

    Outliers count less, where they can be told; a series of one value adds nothing.
    """
    return sum((len(one) - 1) * bounded_variance(one) for one in series if len(one) > 1)


def bounded_variance(values: Floats) -> float:
    """Return the variance of values of which outliers, where they can be told, count less."""
    if len(values) >= LEAST_FOR_INTERVAL:
        away, most = values - np.median(values), OUTLYING * robust_deviation(values)
        values = np.clip(away, -most, most)
    return float(np.var(values, ddof=1))


def prepare_tests() -> None:
    """Import what the tests need, which takes a second, before time matters."""
    import scipy.stats  # noqa: F401  # for its effect


def correct_p_values(p_values: ArrayLike) -> Floats:
    """Return q-values: the false discovery rate at which each would be found; NaN stays NaN.

    Source: Benjamini and Hochberg, Journal of the Royal Statistical Society B 1995.
    """
    from scipy import stats

    values = np.asarray(p_values, dtype=np.float64)
    valid = np.isfinite(values)
    corrected = np.full_like(values, np.nan)
    if valid.any():
        corrected[valid] = stats.false_discovery_control(values[valid])
    return corrected


def percentile(samples: ArrayLike, percent: float, least: int) -> float:
    """Return a percentile of the samples; NaN where there are fewer than `least`."""
    data = np.asarray(samples, dtype=np.float64)
    return float(np.percentile(data, percent)) if data.size >= least else float("nan")
