"""Rounds: what is a cell's own time and what all cells of a round share, as logarithms.

A machine changes its speed, and cells have their clean blocks in different rounds. A median over
each cell's own rounds would be of different machines; taken apart, all are of the same one.
"""

from __future__ import annotations

from collections.abc import Mapping
from math import exp, hypot, sqrt

import numpy as np
from numpy.typing import NDArray

from harness.stats import (
    LEAST_FOR_INTERVAL,
    PROCESS_SPREAD,
    Estimate,
    Floats,
    known_median,
    robust_deviation,
    series_median_interval,
    sum_squares,
)

CAUSES = ("", "loaded", "preempted", "throttled")
"""What disturbs a block, from harmless to worst: its place is the block's level."""
CLEAN_SHARE = 1 / 3
"""Share of the rounds that the headline needs; else it takes more disturbed ones as well."""
Medians = Mapping[str, Mapping[int, float]]
"""Seconds by cell and round."""
ONE_PROCESS = PROCESS_SPREAD / sqrt(2)
"""What one process has of its own as long as it lives, where a heat does not tell."""
PRIOR_WEIGHT = 10
"""What earlier heats showed counts as much as so many cells in two processes."""
HUBER = 1.345
"""Deviations from which a value counts for less: for normal noise 95 % as efficient as a mean."""
STEPS = 50
SETTLED = 1e-5
"""A step that changes no cell by more than this, relatively, is the last."""
NOTHING = 1e-12
"""What rounding leaves of a deviation that is none."""
TIED = 1e-9
"""Rows with weaker ties than this, beside the strongest, have none but by rounding."""


def polish(table: Floats) -> tuple[Floats, Floats]:
    """Return what is each row's own and what each column's rows share: their sum is the table.

    Columns have the median 0. NaN stands for what is unknown; every row and every column needs a
    known value. Both are Huber's M-estimates, fitted together: rows that are known in other
    columns are compared by way of those that they share. What nothing ties keeps its median.
    Sources: Huber, Annals of Mathematical Statistics 1964; weighted least squares in turn with
    the weights, Holland and Welsch, Communications in Statistics 1977. With Tukey's medians, the
    middle one of a few rows has no rest at all in most columns.
    """
    known = np.isfinite(table)
    rows = known_median(table, 1)
    columns = known_median(table - rows[:, None], 0)
    values = known.sum()  # of which those of few rows are near to what they share
    drawn = sqrt(values / max(1, values - sum(table.shape) + 1))
    for _ in range(STEPS):
        rest = np.where(known, table - rows[:, None] - columns, 0.0)
        limit = max(
            SETTLED, HUBER * drawn * _scale(rest)
        )  # which at first holds what rows were off by
        weights = known * limit / np.maximum(np.abs(rest), limit)
        changes = _fit_sums(rest, weights)
        rows, columns = rows + changes[0], columns + changes[1]
        if max(np.abs(change).max() for change in changes) < SETTLED:
            break
    middle = np.median(columns)
    return rows + middle, columns - middle


def _fit_sums(table: Floats, weights: Floats) -> tuple[Floats, Floats]:
    """Return the rows and columns whose sums are next to the table, by weighted least squares.

    Of rows that no column ties to others, the mean is 0.
    """
    totals = weights.sum(0)
    shares = weights / totals
    middles = (shares * table).sum(0)
    ties = np.diag(weights.sum(1)) - weights @ shares.T
    rows = np.linalg.pinv(ties, TIED, hermitian=True) @ (weights * (table - middles)).sum(1)
    return rows, middles - rows @ shares


def _scale(rest: Floats) -> float:
    """The deviation of what is left; of a value that a row or column equals, it tells nothing."""
    away = np.abs(rest)
    away = away[away > NOTHING]
    return 1.4826 * float(np.median(away)) if away.size else 0.0


def take_apart(logs: Floats) -> tuple[Floats, Floats]:
    """Return what is each cell's own in each round (cells × rounds), and what those of one share.

    A round that only one cell has tells nothing of what is its own: NaN, unless it has no others.
    """
    _, shared = polish(logs)
    known = np.isfinite(logs)
    tells = known & (known.sum(0) > 1)
    tells |= known & ~tells.any(1, keepdims=True)
    return np.where(tells, logs - shared, np.nan), shared


def find_deviation(own: Floats) -> tuple[float, int]:
    """Return the standard deviation of one block of one cell, and how many values are free in it.

    own: as `take_apart` gives it. Values of a table are free but for one a row and one a column;
    outliers among enough values of a row leave it alone. NaN where none is free.
    """
    known = np.isfinite(own)
    counts = known.sum(1)
    free = int(known.sum() - (counts > 0).sum() - known.any(0).sum() + 1)
    if free < 1:
        return float("nan"), 0
    rows = (row[here] for row, here in zip(own, known, strict=True))
    return sqrt(sum_squares(rows) / free), free


def choose_rounds(levels: Mapping[int, int]) -> tuple[list[int], int]:
    """Return the rounds of the lowest level that has enough of them, and that level.

    levels: that of the least disturbed block of each round.
    """
    enough = max(LEAST_FOR_INTERVAL, CLEAN_SHARE * len(levels))
    for level in range(len(CAUSES)):
        chosen = [number for number, found in levels.items() if found <= level]
        if len(chosen) >= enough:
            return chosen, level
    return list(levels), max(levels.values(), default=0)


def find_latencies(
    medians: Medians, sessions: Mapping[int, int] | None = None
) -> dict[str, Estimate]:
    """Return the latency of each cell at the level of its heat, with its 95 % interval.

    The interval is that of the cell's own time over its rounds and of the rounds' speed over all
    of them, together; where rounds are of several `sessions`, of these alone, whatever they differ
    by. A round that only one cell has tells nothing of what is its own. A cell without rounds is
    left out.
    """
    names, numbers, logs = tabulate(medians)
    if not names:
        return {}
    own, shared = take_apart(logs)
    turns = np.array([(sessions or {}).get(number, 0) for number in numbers])
    level = _find_middle(shared, turns)
    found = {}
    for name, row in zip(names, own, strict=True):
        there = np.isfinite(row)
        middle = _find_middle(row[there], turns[there])
        low = middle.value - hypot(middle.value - middle.low, level.value - level.low)
        high = middle.value + hypot(middle.high - middle.value, level.high - level.value)
        bounds = (one + level.value for one in (middle.value, low, high))
        found[name] = Estimate(*(exp(bound) for bound in bounds))
    return found


def _find_middle(values: Floats, turns: NDArray[np.int64]) -> Estimate:
    """Return the mean of the sessions' medians; its interval is by how far rounds are off these."""
    middles = {int(one): float(np.median(values[turns == one])) for one in np.unique(turns)}
    if not middles:
        return Estimate(float("nan"))
    rest = series_median_interval(values - np.array([middles[one] for one in turns]))
    middle = float(np.mean([*middles.values()]))
    # A mean of medians, each of its own rounds: a short session is as doubtful as it is.
    counts = np.array([np.count_nonzero(turns == one) for one in middles])
    stretch = sqrt(len(values) * float((1 / counts).sum())) / len(counts)
    below, above = stretch * (rest.value - rest.low), stretch * (rest.high - rest.value)
    return Estimate(middle, middle - below, middle + above)


def find_process_spread(
    medians: Medians, processes: Mapping[str, Mapping[int, int]], sessions: Mapping[int, int]
) -> float:
    """Return how far processes with the same work are apart as long as they live, relatively.

    A standard deviation, from cells that were timed in several processes of one session
    (`processes`: which one, by cell and round): the variance between a cell's processes beyond that
    of its rounds, pooled over cells and sessions and with what earlier heats showed, and not less
    than that. Source: Kalibera and
    Jones, "Rigorous Benchmarking in Reasonable Time", ISMM 2013.
    """
    known = ONE_PROCESS**2
    total, count = PRIOR_WEIGHT * known, PRIOR_WEIGHT
    names, numbers, logs = tabulate(medians)
    if len(names) > 1:
        rows, shared = polish(logs)
        present = np.isfinite(logs).sum(0)
        # A round is drawn towards each of its cells, by its share of them.
        drawn = np.where(present > 1, present / np.maximum(1, present - 1), np.nan)
        rest = (logs - rows[:, None] - shared) * drawn
        times = np.array([sessions.get(number, 0) for number in numbers])
        for own, name in zip(rest, names, strict=True):
            turns = np.array([processes[name].get(number, -1) for number in numbers])
            for one in np.unique(times):
                apart, more = _compare_processes(own[times == one], turns[times == one])
                total, count = total + more * apart, count + more
    return sqrt(max(known, total / count))


def _compare_processes(own: Floats, turns: NDArray[np.int64]) -> tuple[float, int]:
    """Return the variance between processes beyond chance, and how many of them are free."""
    known = np.isfinite(own)
    series = [own[known & (turns == one)] for one in np.unique(turns[known])]
    series = [values for values in series if len(values) >= LEAST_FOR_INTERVAL]
    if len(series) < 2:
        return 0.0, 0
    apart = float(np.var([np.median(values) for values in series], ddof=1))
    errors = [np.pi / 2 * robust_deviation(values) ** 2 / len(values) for values in series]
    return apart - float(np.mean(errors)), len(series) - 1


def tabulate(medians: Medians) -> tuple[list[str], list[int], Floats]:
    """Return the cells that have rounds, all rounds, and the logarithms, NaN where none is."""
    names = [name for name, rounds in medians.items() if rounds]
    numbers = sorted(set().union(*(medians[name] for name in names)))
    table = [[medians[name].get(number, np.nan) for number in numbers] for name in names]
    return names, numbers, np.log(np.array(table, dtype=np.float64))
