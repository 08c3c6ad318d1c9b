"""Noise: values that cells might as well have had, drawn from a run's rounds and examples.

Cells that were timed in the same rounds, or judged by the same examples, are drawn together: what
they share moves them together, and only what tells them apart makes their order doubtful.
"""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from math import sqrt

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from harness.decide.sessions import find_doubt, find_spread, order_variants
from harness.record import Metric
from harness.rounds import find_deviation, take_apart
from harness.stats import Z95, Floats, bounded_variance, known_median
from harness.store import CONTROL_PREFIX

DRAWS = 500
UNSEEN = 2
"""As many examples as a test split might hold besides."""
RESAMPLED_FROM = 12
"""Of fewer rounds the resampled medians are too alike: of 6, two equal cells are told apart with
95 % in 27 % of heats."""
NOISIER = 0.99
"""A cell has noise of its own where an equally noisy one would have less with this probability."""
MOST_AT_ONCE = 100_000
"""Values that are resampled in one step: a loop over single draws takes several times as long."""
TIMED = {"latency_s": 1.0, "throughput_per_s": -1.0}
"""Metrics that follow from the rounds, and with which sign of their logarithm."""
BLOCK_COLUMNS = ["heat", "cell_id", "session", "round", "block", "cause", "median_s"]


@dataclass(frozen=True)
class Noise:
    """What a run tells of the doubt in its cells.

    rounds: log of the median block of each cell in each round (columns cell_id, heat, session,
    round, log_s), those of the headline only. answers: for each cell whose answers were kept,
    whether each test example was answered right. blocks: every block of every cell, with its median
    in seconds and what disturbed it.
    """

    rounds: pd.DataFrame
    answers: dict[str, NDArray[np.bool_]] = field(default_factory=dict)
    blocks: pd.DataFrame = field(default_factory=lambda: pd.DataFrame(columns=BLOCK_COLUMNS))

    @cached_property
    def heats(self) -> list[SplitRounds]:
        """The rounds of each heat, split into what is the cells' own and what they share."""
        return [split_rounds(heat) for _, heat in self.rounds.groupby("heat", sort=True)]

    def draw(
        self, cells: pd.DataFrame, metric: Metric, seed: int = 0, draws: int = DRAWS
    ) -> Floats:
        """Return an array of cells × draws of a metric for rows of measured cells.

        From rounds, examples, or else the 95 % interval; a metric with none of them is exact. NaN
        for times where rounds are few and no heat of the run tells how far rounds are apart.
        """
        values = cells[metric.name].to_numpy(float)
        drawn = draw_within_intervals(cells, metric, np.random.default_rng([seed, 1]), draws)
        if metric.name in TIMED:
            self._draw_rounds(cells, values, TIMED[metric.name], drawn, seed)
        elif metric.name == "accuracy":
            self._draw_examples(cells, drawn, seed)
        return drawn

    def _draw_rounds(
        self, cells: pd.DataFrame, values: Floats, sign: float, drawn: Floats, seed: int
    ) -> None:
        """Put what the rounds tell in the places of the cells that have them."""
        place = {cell: row for row, cell in enumerate(cells["cell_id"])}
        spread, pooled = find_spread(cells), pool_deviations(self.heats)
        for number, heat in enumerate(self.heats):
            known = [cell for cell in heat.own.index if cell in place]
            table, common = heat.own.loc[known].to_numpy(float), heat.common
            if not known:
                continue
            # The same generator for every metric: latency and throughput are one measurement.
            generator = np.random.default_rng([seed, 2, number])
            deviation = (heat.deviation, heat.free) if heat.free else pooled
            rows = [place[cell] for cell in known]
            sessions = _draw_sessions(
                table, common, heat.turns, deviation, drawn.shape[1], generator
            )
            off = sessions.off + spread[rows, None] * generator.standard_normal(sessions.off.shape)
            doubt = find_doubt(cells.iloc[rows])
            if doubt is not None:
                errors = np.hypot(sessions.errors, spread[rows, None] * sqrt(len(sessions.levels)))
                order, name = order_variants(cells.iloc[rows])
                off[order] += doubt.of(order).draw_work(
                    sessions.middles[order], errors[order], sessions.numbers, drawn.shape[1],
                    (seed, 5, name),
                )  # fmt: skip
                off += doubt.draw_speed(drawn.shape[1], generator)
            drawn[rows] = values[rows, None] * np.exp(sign * off)

    def _draw_examples(self, cells: pd.DataFrame, drawn: Floats, seed: int) -> None:
        """Put what the test examples tell in the places of the cells whose answers were kept.

        Source: Rubin, "The Bayesian Bootstrap", Annals of Statistics 1981. It knows no examples but
        those that there are: of two cells that differ in a single answer, one would be better for
        sure. Hence some unseen ones, of which each way of answering has its share, give or take a
        half: with one answer more the odds are 4 to 1, as by a flat prior of who is ahead.
        """
        by_count: dict[int, list[int]] = {}
        for row, cell in enumerate(cells["cell_id"]):
            if cell in self.answers:
                by_count.setdefault(len(self.answers[cell]), []).append(row)
        for count, rows in by_count.items():
            generator = np.random.default_rng([seed, 3, count])
            weights = generator.standard_exponential((count + UNSEEN, drawn.shape[1]))
            weights /= weights.sum(0)
            ids = cells["cell_id"].to_numpy()[rows]
            right = np.array([self.answers[cell] for cell in ids], dtype=float)
            unseen = np.array([_draw_unseen(one, drawn.shape[1], seed) for one in right])
            found = right @ weights[:count] + (unseen * weights[count:]).sum(1)
            drawn[rows] = np.clip(found, 0.0, 1.0)


def _draw_unseen(right: Floats, draws: int, seed: int) -> Floats:
    """Return UNSEEN × draws: how many of an unseen example a way of answering has right.

    Its share, and a half more or less; the same for the same answers.
    """
    name = zlib.crc32(np.packbits(right > 0).tobytes())
    generator = np.random.default_rng([seed, 6, len(right), name])
    found: Floats = generator.integers(0, 2, (UNSEEN, draws)) - 0.5 + right.mean()
    return found


def draw_within_intervals(
    cells: pd.DataFrame, metric: Metric, generator: np.random.Generator, draws: int
) -> Floats:
    """Return cells × draws that have each cell's 95 % interval, a half-normal on either side."""
    values = cells[metric.name].to_numpy(float)[:, None]
    drawn = np.repeat(values, draws, axis=1)
    if not metric.interval or f"{metric.name}_low" not in cells:
        return drawn
    low, high = (
        cells[f"{metric.name}_{side}"].to_numpy(float)[:, None] for side in ("low", "high")
    )
    normal = generator.standard_normal(drawn.shape) / Z95
    away = np.where(normal < 0, values - low, high - values) * normal
    return drawn + np.where(np.isfinite(away), away, 0.0)


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


def average_draws(
    drawn: Floats, groups: Sequence[NDArray[np.int64]], seeds: Sequence[int], seed: int = 0
) -> Floats:
    """Return groups × draws: what the mean over all seeds might be, by those that there are.

    A group's rows are those of one variant, each of one of the `seeds`: with the same seed it is
    the same model before the technique, so variants are off in the same direction by it, and
    each of their differences is as doubtful as Student's t has it of so few. Drawn from the seeds
    themselves, means would all lie between these: two variants that are equal would be told apart
    by two seeds in every other case. Source: Student, Biometrika 1908.
    """
    averaged = np.empty((len(groups), drawn.shape[1]))
    for number, rows in enumerate(groups):
        values, count = drawn[rows], len(rows)
        averaged[number] = values.mean(0)
        if count > 1:
            normal = np.array([
                np.random.default_rng([seed, 4, seeds[row]]).standard_normal(drawn.shape[1])
                for row in rows
            ])  # fmt: skip
            few = np.random.default_rng([seed, 7, count])
            squares = few.chisquare(count - 1, drawn.shape[1])
            off = (normal * (values - averaged[number])).sum(0)
            averaged[number] += off / np.sqrt(count * squares)
    return averaged


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


def _draw_sessions(
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
