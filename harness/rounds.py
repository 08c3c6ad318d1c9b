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
    robust_deviation,
    series_median_interval,
)

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


def polish(table: Floats) -> tuple[Floats, Floats]:
    """Return what is each row's own and what each column's rows share: their sum is the table.

    Columns have the median 0. NaN stands for what is unknown; every row and every column needs a
    known value. Rows are medians, columns Huber's M-estimates. Sources: Tukey's median polish,
    "Exploratory Data Analysis" (1977), chapter 11; Huber, Annals of Mathematical Statistics 1964.
    With medians for the columns too, the middle one of a few rows has no rest at all in most
    columns: its own part then hardly moves, whatever columns are drawn.
    """
    known = np.isfinite(table)
    median = np.median if known.all() else np.nanmedian  # ten times as fast
    rows = median(table, 1)
    columns = median(table - rows[:, None], 0)
    limit = max(SETTLED, HUBER * _scale(table - rows[:, None] - columns))
    for _ in range(STEPS):
        rest = np.where(known, table - rows[:, None], columns)
        weights = known * limit / np.maximum(np.abs(rest - columns), limit)
        before, shared = rows, columns
        columns = (weights * rest).sum(0) / weights.sum(0)
        columns -= np.median(columns)
        rows = median(table - columns, 1)
        if max(np.abs(rows - before).max(), np.abs(columns - shared).max()) < SETTLED:
            break
    return rows, columns


def _scale(rest: Floats) -> float:
    """The deviation of what is left; where a column's middle row has nothing, it tells nothing."""
    away = np.abs(rest[np.isfinite(rest) & (rest != 0)])
    return 1.4826 * float(np.median(away)) if away.size else 0.0


def find_latencies(medians: Medians) -> dict[str, Estimate]:
    """Return the latency of each cell in the median round of its heat, with its 95 % interval.

    The interval is that of the cell's own time over its rounds and of the rounds' speed over all
    of them, together. A round that only one cell has tells nothing of what is its own. A cell
    without rounds is left out.
    """
    names, _, logs = _tabulate(medians)
    if not names:
        return {}
    _, shared = polish(logs)
    level = series_median_interval(shared)
    found = {}
    known = np.isfinite(logs)
    several = known.sum(0) > 1
    for name, row, mine in zip(names, logs - shared, known, strict=True):
        apart = mine & several
        middle = series_median_interval(row[apart if apart.sum() >= LEAST_FOR_INTERVAL else mine])
        low = middle.value - hypot(middle.value - middle.low, level.value - level.low)
        high = middle.value + hypot(middle.high - middle.value, level.high - level.value)
        found[name] = Estimate(*(exp(bound) for bound in (middle.value, low, high)))
    return found


def find_slowness(medians: Medians) -> dict[int, float]:
    """Return for each round how slow all of its cells were in it, the median round being 1."""
    names, numbers, logs = _tabulate(medians)
    if not names:
        return {}
    _, shared = polish(logs)
    factors = np.exp(shared - np.median(shared))
    return dict(zip(numbers, factors.tolist(), strict=True))


def find_process_spread(medians: Medians, processes: Mapping[str, Mapping[int, int]]) -> float:
    """Return how far processes with the same work are apart as long as they live, relatively.

    A standard deviation, from cells that were timed in several processes (`processes`: which one,
    by cell and round): the variance between a cell's processes beyond that of its rounds, pooled
    over the cells and with what earlier heats showed, and not less than that. Source: Kalibera and
    Jones, "Rigorous Benchmarking in Reasonable Time", ISMM 2013.
    """
    known = ONE_PROCESS**2
    total, count = PRIOR_WEIGHT * known, PRIOR_WEIGHT
    names, numbers, logs = _tabulate(medians)
    if len(names) > 1:
        rows, _ = polish(logs)
        rest = logs - rows[:, None]
        for place, name in enumerate(names):
            # Without the cell itself, which would draw its rounds towards it.
            own = rest[place] - _median(np.delete(rest, place, 0))
            turns = np.array([processes[name].get(number, -1) for number in numbers])
            apart, more = _compare_processes(own, turns)
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


def _tabulate(medians: Medians) -> tuple[list[str], list[int], Floats]:
    """Return the cells that have rounds, all rounds, and the logarithms, NaN where none is."""
    names = [name for name, rounds in medians.items() if rounds]
    numbers = sorted(set().union(*(medians[name] for name in names)))
    table = [[medians[name].get(number, np.nan) for number in numbers] for name in names]
    return names, numbers, np.log(np.array(table, dtype=np.float64))


def _median(table: Floats) -> Floats:
    """The median of each column; NaN where it has no known value."""
    found = np.full(table.shape[1], np.nan)
    some = np.isfinite(table).any(0)
    found[some] = np.nanmedian(table[:, some], 0)
    return found
