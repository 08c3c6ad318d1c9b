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

from harness.decide.resample import SplitRounds, draw_sessions, pool_deviations, split_rounds
from harness.decide.sessions import find_doubt, find_spread, order_variants
from harness.record import Metric
from harness.stats import Z95, Floats

DRAWS = 500
UNSEEN = 2
"""As many examples as a test split might hold besides."""
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
            sessions = draw_sessions(
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
