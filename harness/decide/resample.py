"""Resample: the rounds of a heat, drawn anew for all its cells at once."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from harness.rounds import find_deviation, take_apart
from harness.stats import Floats, bounded_variance, known_median
from harness.store import CONTROL_PREFIX

RESAMPLED_FROM = 12
"""Of fewer rounds the resampled medians are too alike: of 6, two equal cells are told apart with
95 % in 27 % of heats."""
NOISIER = 0.99
"""A cell has noise of its own where an equally noisy one would have less with this probability."""
MOST_AT_ONCE = 100_000
"""Values that are resampled in one step: a loop over single draws takes several times as long."""


@dataclass(frozen=True)
class SplitRounds:
    """What is each cell's own in each round, and what all cells of the round share.

    Both are logarithms; their sum is the log of the cell's median block. turns: the session of each
    round. deviation: that of one block of one cell, estimated from so many `free` ones; NaN where
    none is.
    """

    own: pd.DataFrame
    common: Floats
    turns: NDArray[np.int64]
    deviation: float
    free: int


def split_rounds(heat: pd.DataFrame) -> SplitRounds:
    """Return the rounds of a heat, split."""
    rows, names = pd.factorize(heat["cell_id"], sort=True)  # a pivot takes ten times as long
    columns, numbers = pd.factorize(heat["round"], sort=True)
    table, turns = np.full((len(names), len(numbers)), np.nan), np.zeros(len(numbers), np.int64)
    table[rows, columns], turns[columns] = heat["log_s"], heat["session"]
    apart, common = take_apart(table)
    cells = [number for number, name in enumerate(names) if not name.startswith(CONTROL_PREFIX)]
    own = pd.DataFrame(apart[cells], names[cells], numbers)
    return SplitRounds(own, common, turns, *find_deviation(apart))


def draw_blocks(rounds: int, draws: int, generator: np.random.Generator) -> NDArray[np.int64]:
    """Return draws × rounds of round numbers, in runs: neighbours in time are alike.

    Source: Politis and Romano, "A Circular Block-Resampling Procedure" (1992); runs of the cube
    root of the number of rounds.
    """
    length = max(1, round(rounds ** (1 / 3)))
    starts = generator.integers(0, rounds, (draws, -(-rounds // length)))
    chosen = (starts[:, :, None] + np.arange(length)) % rounds
    return chosen.reshape(draws, -1)[:, :rounds]


def pool_deviations(heats: Sequence[SplitRounds]) -> tuple[float, int]:
    """Return the deviation of a block over all heats, for a heat that tells none; how many free."""
    known = [heat for heat in heats if heat.free]
    free = sum(heat.free for heat in known)
    total = sum(heat.free * heat.deviation**2 for heat in known)
    return (float(np.sqrt(total / free)), free) if free else (float("nan"), 0)


@dataclass(frozen=True)
class DrawnSessions:
    """What rounds tell of a heat's sessions: logarithms.

    numbers: of the sessions. middles, errors: cells × sessions, NaN where a cell has no rounds;
    levels: of each session. off: cells × draws, how far the mean of a cell's sessions might be off
    by its rounds.
    """

    numbers: list[int]
    middles: Floats
    errors: Floats
    levels: Floats
    off: Floats


def draw_sessions(
    table: Floats, common: Floats, turns: NDArray[np.int64], known: tuple[float, int],
    draws: int, generator: np.random.Generator,
) -> DrawnSessions:  # fmt: skip
    """Draw rounds anew in each session, the same ones for all cells.

    A few values tell too little of how far values are apart: there the deviation of a block of the
    whole heat is taken, from so many free values (`known`), and Student's distribution.
    """
    sessions = np.unique(turns)
    there = np.stack([np.isfinite(table[:, turns == one]).any(1) for one in sessions], axis=1)
    middles, errors = np.full((2, *there.shape), np.nan)
    levels, off = np.empty(len(sessions)), np.zeros((len(table), draws))
    for number, one in enumerate(sessions):
        kept, here = np.flatnonzero(there[:, number]), turns == one
        part, shared = table[kept][:, here], common[here]
        chosen = draw_blocks(part.shape[1], draws, generator)
        levels[number] = np.median(shared)
        off += (_median_over(shared[None, :], chosen) - levels[number]) / len(sessions)
        if not kept.size:  # the control's alone, or other cells'
            continue
        middles[kept, number] = known_median(part, 1)
        counts = np.isfinite(part).sum(1)
        errors[kept, number] = known[0] * np.sqrt(np.where(counts > 2, np.pi / 2, 1.0) / counts)
        own = _draw_own(part, chosen, known, generator)
        off[kept] += own / there[kept].sum(1)[:, None]
    return DrawnSessions(sessions.tolist(), middles, errors, levels, off)


def _draw_own(
    table: Floats, chosen: NDArray[np.int64], known: tuple[float, int],
    generator: np.random.Generator,
) -> Floats:  # fmt: skip
    """Return rows × draws: how far each row's median is off by the columns that it was taken of."""
    middles = known_median(table, 1)[:, None]
    counts = np.isfinite(table).sum(1)
    own = _median_over(table, chosen) - middles
    few = np.flatnonzero(counts < RESAMPLED_FROM)
    if few.size:
        deviation, free = (found[:, None] for found in _find_deviations(table[few], known))
        one = deviation * np.sqrt(np.where(counts > 2, np.pi / 2, 1.0) / counts)[few, None]
        own[few] = one * generator.standard_t(free, (few.size, own.shape[1]))
    return own


def _find_deviations(table: Floats, known: tuple[float, int]) -> tuple[Floats, Floats]:
    """Return the deviation of each row's values, and of how many free ones it is.

    That of all cells together, as a few values tell little; or a row's own where that is clearly
    more (F test): a cell that is noisier than the others is not as sure as they are.
    """
    from scipy.special import fdtri  # late: few commands need it

    deviation, free = np.full(len(table), known[0]), np.full(len(table), float(max(1, known[1])))
    for row, values in enumerate(table):
        there = values[np.isfinite(values)]
        if there.size > 2:
            own, count = bounded_variance(there), there.size - 1
            if own > known[0] ** 2 * fdtri(count, free[row], NOISIER):
                deviation[row], free[row] = np.sqrt(own), count
    return deviation, free


def _median_over(table: Floats, chosen: NDArray[np.int64]) -> Floats:
    """Return rows × draws: each row's median over the chosen columns, unknown ones left out."""
    middles = known_median(table, 1)
    found = np.empty((len(table), len(chosen)))
    together = max(1, MOST_AT_ONCE // table.size)
    for start in range(0, len(chosen), together):
        part = table[:, chosen[start : start + together]]  # rows × some draws × columns
        empty = ~np.isfinite(part).any(2)
        part[empty, 0] = np.broadcast_to(middles[:, None], empty.shape)[empty]
        found[:, start : start + together] = known_median(part, 2)
    return found
