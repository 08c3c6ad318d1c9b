"""The mean of few values, such as those of seeds, with its doubt."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike

from harness.stats import CONFIDENCE, Estimate


def mean_interval(values: ArrayLike) -> Estimate:
    """Return the mean with its 95 % t interval; NaN bounds for a single value.

    Source: Student, "The Probable Error of a Mean", Biometrika 1908.
    """
    from scipy import stats  # late: it takes a second

    data = np.asarray(values, dtype=np.float64)
    mean = float(data.mean())
    if data.size < 2:
        return Estimate(mean)
    half = float(stats.t.ppf((1 + CONFIDENCE) / 2, data.size - 1) * stats.sem(data))
    return Estimate(mean, mean - half, mean + half)
