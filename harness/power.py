"""Power: how small a difference the comparison of two cells finds, by comparisons with itself."""

from __future__ import annotations

from collections.abc import Sequence
from math import expm1, hypot, log1p, sqrt

import numpy as np
from numpy.typing import ArrayLike

from harness.known import WITHIN, Known
from harness.repeats import compare_sessions
from harness.stats import robust_deviation

DRAWS, STEPS = 200, 8
LARGEST_LOG_RATIO = 3.0
Z90 = 1.645
"""Of so many deviations 95 % is below."""


def smallest_difference(
    log_ratios: Sequence[ArrayLike],
    rounds: int,
    spread: float = 0.0,
    power: float = 0.95,
    p_value: float = 0.05,
) -> float:
    """Return the smallest true ratio − 1 that `compare_sessions` would find this often.

    `log_ratios` are series of A/A comparisons in a session, one value a round. Rounds are drawn
    from them, a true difference is added, and the test is made, as often as it takes to know its
    power.
    """
    generator = np.random.default_rng(0)
    draws = []
    for _ in range(DRAWS):
        series = np.asarray(log_ratios[int(generator.integers(len(log_ratios)))], dtype=np.float64)
        shared = spread * generator.standard_normal()
        draws.append(generator.choice(series - np.median(series), rounds) + shared)

    def finds(difference: float) -> bool:
        told = (compare_sessions([draw + difference], [spread], WITHIN.work) for draw in draws)
        return float(np.mean([one.p_value < p_value for one in told])) >= power

    low, high = 0.0, 8 * robust_deviation(np.concatenate(draws)) / sqrt(rounds)
    while not finds(high) and high < LARGEST_LOG_RATIO:
        high *= 2
    for _ in range(STEPS):
        middle = (low + high) / 2
        low, high = (low, middle) if finds(middle) else (middle, high)
    return float(np.expm1(high))


def smallest_unlike_difference(alike: float, known: Known, sessions: int) -> float:
    """Return the smallest ratio − 1 of cells with unlike work that is found in 95 of 100 runs.

    At p < 0.05, by what is `known` of how far sessions and runs are apart; `alike` is the same of
    cells with the same work, which rounds and processes limit.
    """
    from scipy.special import stdtrit  # late: few commands need it

    parts = np.array([known.variance / sessions, known.shared])
    apart = float(parts.sum())
    if not apart:
        return alike
    # The test looks up how far a few are apart, which may be more: by Satterthwaite's number.
    free = apart**2 / float(parts**2 @ [1 / (known.sessions + sessions - 1), 1 / known.runs])
    asked = float(stdtrit(free, 0.975))
    found = asked + Z90 * sqrt(1 + asked**2 / 2 / free)
    return expm1(hypot(log1p(alike), found * sqrt(apart)))
