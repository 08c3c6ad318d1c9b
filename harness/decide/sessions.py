"""Sessions drawn: how far cells might have been off in those that were timed, together."""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from harness.grid import BASELINE
from harness.known import VARIANCES, Known, find_likelihoods, weigh
from harness.likeness import find_likeness, read_work
from harness.rounds import ONE_PROCESS
from harness.stats import Floats

ALIKE = 1e-9
"""Cells with less of their work apart than this tell nothing."""
OF_SESSIONS, SHARED_BY_SESSIONS, FIRST_SESSION = range(3)
"""Parts of what is drawn, each by a generator of its own."""
LEAST_SQUARE = 1e-12
"""Of a χ²: a deviation of any size is one that sessions might have, but an infinite one."""
VARIANT, PLACE = ["model", "technique", "runtime"], ["run_id", "device", "threads", "batch"]
OF_RUNS = {"run_spread": 0.0035, "known_runs": 1e6, "reference_share": 0.5}
"""What was taken to be known of runs before it was learnt: results that do not say are of then."""


@dataclass(frozen=True)
class SessionDoubt:
    """What sessions of a heat differ by, and how much of their work its cells have in common.

    likeness: cells × cells; on its diagonal, how much of what they differ by is each cell's doing.
    """

    work: Known
    speed: Known
    likeness: Floats

    def of(self, cells: NDArray[np.int64]) -> SessionDoubt:
        """Return the doubt of some of the cells, in this order."""
        return replace(self, likeness=self.likeness[np.ix_(cells, cells)])

    def draw_work(
        self, middles: Floats, errors: Floats, sessions: Sequence[int], draws: int,
        key: Sequence[int],
    ) -> Floats:  # fmt: skip
        """Return cells × draws: how far each is off by the sessions that it was timed in.

        middles, errors: cells × sessions, NaN where a cell was not timed; sessions: their numbers.
        Cells with the same work are off together. The variance between sessions is drawn from what
        is known and these show. Heats with the same key are off together in each session that both
        have: it is the same server's.
        """
        there = np.isfinite(middles)
        counts = np.maximum(1, there.sum(1))
        root = _find_root(self.likeness)

        def generator(part: int) -> np.random.Generator:
            return np.random.default_rng([*key, part])

        drawn = np.zeros((len(middles), draws))
        for place, number in enumerate(sessions):
            off = root @ generator(FIRST_SESSION + number).standard_normal((len(middles), draws))
            drawn += off * (there[:, place] / counts)[:, None]
        drawn *= self._draw_scales(middles, errors, generator(OF_SESSIONS).random(draws))
        shared = generator(SHARED_BY_SESSIONS)
        off = root @ shared.standard_normal((len(middles), draws))
        drawn += off * _find_deviations(
            Known(self.work.shared, self.work.runs), shared.random(draws)
        )
        drawn /= np.sqrt(2)  # of one of a pair
        return drawn

    def draw_speed(self, draws: int, generator: np.random.Generator) -> Floats:
        """Return how far all cells of a heat are off by the machine's speed in it."""
        normal: Floats = generator.standard_normal(draws)
        return _find_deviations(self.speed, generator.random(draws)) * normal

    def _draw_scales(self, middles: Floats, errors: Floats, places: Floats) -> Floats:
        """Return deviations between sessions that it might be, by what is known and these show.

        `places` (0 to 1) are where in their distribution: that of another heat may be another, and
        what is wide in the one is wide in the other.

        Of cells that are in all sessions, in each about its mean and that of its session; of
        cells with the same work all together tell as much as one (Satterthwaite's number).
        """
        whole, sessions = np.isfinite(middles).all(1), middles.shape[1]
        if sessions < 2 or not whole.any() or not self.work.variance > 0:
            return _find_deviations(self.work, places)
        rest = middles[whole] - middles[whole].mean(1, keepdims=True)
        alike = self.likeness[np.ix_(whole, whole)]
        alike = alike - alike.mean(0) - alike.mean(1)[:, None] + alike.mean()
        trace, both = float(np.trace(alike)), float((alike**2).sum())
        if not trace > ALIKE:
            return _find_deviations(self.work, places)
        free = (sessions - 1) * trace**2 / both
        share = trace / 2 / whole.sum()  # of the variance, in each of the cells
        noise = (1 - 1 / whole.sum()) * float((errors[whole] ** 2).mean())
        squares = float(((rest - rest.mean(0)) ** 2).sum())
        # As many squares as are free, each as large as those of a cell are in the mean.
        squares *= free / ((sessions - 1) * whole.sum())
        variances = self.work.variance * VARIANCES
        logs = find_likelihoods(variances, [squares / share], [noise / share], [free])
        weights = weigh(VARIANCES, self.work.sessions, logs)
        found = np.searchsorted(np.cumsum(weights), places).clip(max=len(variances) - 1)
        drawn: Floats = np.sqrt(variances[found])
        return drawn


def find_doubt(cells: pd.DataFrame) -> SessionDoubt | None:
    """Return the doubt of the cells of one heat; None where nothing was known of sessions."""
    columns = ["work_spread", "speed_spread", "known_sessions"]
    known = cells.reindex(columns=[*columns, *OF_RUNS, "known_heats"]).astype(float)
    known = known.dropna(subset=columns)
    if known.empty:
        return None
    known = known.fillna({**OF_RUNS, "known_heats": known["known_sessions"]})
    work, speed, sessions, run, runs, at_reference, heats = known.iloc[0]
    asked = cells.reindex(columns=["operators", "runtime"])
    works = [read_work(text, runtime) for text, runtime in asked.itertuples(index=False)]
    of_work = Known(work**2, sessions, run**2 if work else 0.0, runs)
    likeness = weigh_likeness(find_likeness(works), find_alike(cells), at_reference)
    return SessionDoubt(of_work, Known(speed**2, heats), likeness)


def find_alike(cells: pd.DataFrame) -> Floats:
    """Return how much two cells have in common of what each has in common with its baseline.

    Whether that is among them or not. Of whom no baseline is known, as if half of it.
    """
    told = cells.reindex(columns=["model", "runtime", "technique", "reference_likeness"])
    alike = told["reference_likeness"].astype(float).fillna(0.5).to_numpy()
    alike = np.where(told["technique"] == BASELINE, 1.0, alike)
    family = told[["model", "runtime"]].astype(object).fillna("").agg(tuple, axis=1)
    same = np.equal.outer(*[pd.factorize(family)[0]] * 2)
    found: Floats = np.minimum.outer(alike, alike) * same
    return found


def weigh_likeness(likeness: Floats, alike: Floats, at_reference: float) -> Floats:
    """Return the likeness of cells of which some wander more than others: their baseline's share.

    A cell and its baseline differ by what is known of ratios: `at_reference` of it is the
    baseline's, and of who does the same work; of two cells that have nothing in common with it,
    each has the rest. alike: as `find_alike` has it.
    """
    return 2 * (1 - at_reference) * likeness + (4 * at_reference - 2) * alike


def find_spread(cells: pd.DataFrame) -> Floats:
    """Return how far each cell is off by the processes it was timed in, relatively (deviation)."""
    columns = ["process_spread", "processes", "effective_processes"]
    known = cells.reindex(columns=columns).astype(float)
    alone = known["process_spread"].fillna(ONE_PROCESS).to_numpy(float)
    processes = known["effective_processes"].fillna(known["processes"]).fillna(1)
    spread: Floats = alone / np.sqrt(processes.to_numpy(float))
    return spread


def order_variants(cells: pd.DataFrame) -> tuple[NDArray[np.int64], int]:
    """Return the order of variants, and a number that a run's heats of the same ones share.

    Whatever their seeds: they are timed in processes of the same servers. What these are off by,
    all seeds are off by, and a mean over seeds is as doubtful.
    """
    named = cells.reindex(columns=[*VARIANT, *PLACE]).astype(object).fillna("").astype(str)
    variants = named[VARIANT].agg(" ".join, axis=1).to_numpy()
    order = np.argsort(variants, kind="stable")
    place = named[PLACE].drop_duplicates().agg(" ".join, axis=1)
    return order, zlib.crc32("\n".join([*variants[order], *place]).encode())


def _find_deviations(known: Known, places: Floats) -> Floats:
    """Return deviations that it might be, at places (0 to 1) of a scaled inverse χ²."""
    from scipy.special import chdtri  # late: few commands need it

    if not known.variance > 0:
        return np.zeros(len(places))
    # The upper tail of χ² is the lower one of what it divides.
    squares = np.maximum(chdtri(known.sessions, places), LEAST_SQUARE)
    found: Floats = np.sqrt(known.variance * known.sessions / squares)
    return found


def _find_root(matrix: Floats) -> Floats:
    """Return what normal values are multiplied by to be as alike as a matrix says."""
    values, vectors = np.linalg.eigh(matrix)
    root: Floats = vectors * np.sqrt(np.maximum(values, 0.0))
    return root
