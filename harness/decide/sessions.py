"""Sessions drawn: how far cells might have been off in those that were timed, together."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import pandas as pd

from harness.headlines import find_freedom
from harness.likeness import find_likeness, read_work
from harness.repeats import Known
from harness.stats import Floats

LEAST_SHARE = 0.05
"""Of the variance that is known remains so much, however alike a few sessions look."""
OF_RUNS = {"run_spread": 0.0035, "known_runs": 1e6}
"""What was taken to be known of runs before it was learnt: results that do not say are of then."""


@dataclass(frozen=True)
class SessionDoubt:
    """What sessions of a heat differ by, and how much of their work its cells have in common."""

    work: Known
    speed: Known
    likeness: Floats

    def draw_work(
        self, middles: Floats, errors: Floats, draws: int, generator: np.random.Generator
    ) -> Floats:
        """Return cells × draws: how far each is off by the sessions that it was timed in.

        middles, errors: cells × sessions, NaN where a cell was not timed. Cells with the same work
        are off together. The variance between sessions is drawn from what is known and these show.
        """
        there = np.isfinite(middles)
        counts = np.maximum(1, there.sum(1))
        known = self._with_shown(middles, errors)
        scale = _draw_deviations(known, draws, generator) / np.sqrt(2)  # of one of two cells
        root = _find_root(self.likeness)
        normal = generator.standard_normal((*middles.shape, draws))
        off = np.einsum("ij,jsd->isd", root, normal)
        drawn: Floats = scale * (off * there[:, :, None]).sum(1) / counts[:, None]
        shared = root @ generator.standard_normal((len(middles), draws))
        runs = Known(self.work.shared, self.work.runs)
        drawn += _draw_deviations(runs, draws, generator) / np.sqrt(2) * shared
        return drawn

    def draw_speed(self, draws: int, generator: np.random.Generator) -> Floats:
        """Return how far all cells of a heat are off by the machine's speed in it."""
        normal: Floats = generator.standard_normal(draws)
        return _draw_deviations(self.speed, draws, generator) * normal

    def _with_shown(self, middles: Floats, errors: Floats) -> Known:
        """Return what is known of the variance between sessions with what these show."""
        whole = np.isfinite(middles).all(1)
        count, sessions = int(whole.sum()), middles.shape[1]
        freedom = float(find_freedom(self.likeness)[whole].sum())
        if sessions < 2 or count < 2 or not freedom > 0:
            return self.work
        seen = middles[whole]
        rest = seen - seen.mean(1, keepdims=True)
        rest = rest - rest.mean(0)
        beyond = float((rest**2).sum() - (sessions - 1) * (errors[whole] ** 2).mean(1).sum())
        free = (sessions - 1) * (count - 1)
        return _add(self.work, free * beyond / ((sessions - 1) * freedom), free)


def find_doubt(cells: pd.DataFrame) -> SessionDoubt | None:
    """Return the doubt of the cells of one heat; None where nothing was known of sessions."""
    columns = ["work_spread", "speed_spread", "known_sessions"]
    known = cells.reindex(columns=[*columns, "run_spread", "known_runs"]).astype(float)
    known = known.dropna(subset=columns)
    if known.empty:
        return None
    work, speed, sessions, run, runs = known.fillna(OF_RUNS).iloc[0]
    asked = cells.reindex(columns=["operators", "runtime"])
    works = [read_work(text, runtime) for text, runtime in asked.itertuples(index=False)]
    of_work = Known(work**2, sessions, run**2 if work else 0.0, runs)
    return SessionDoubt(of_work, Known(speed**2, sessions), find_likeness(works))


def _add(known: Known, squares: float, free: float) -> Known:
    """Return what is known together with the squares of so many free values."""
    count = known.sessions + free
    if not count > 0:
        return known
    variance = (known.sessions * known.variance + squares) / count
    return replace(known, variance=max(LEAST_SHARE * known.variance, variance), sessions=count)


def _draw_deviations(known: Known, draws: int, generator: np.random.Generator) -> Floats:
    """Return deviations that it might be: scaled inverse χ²."""
    if not known.variance > 0:
        return np.zeros(draws)
    drawn: Floats = np.sqrt(
        known.variance * known.sessions / generator.chisquare(known.sessions, draws)
    )
    return drawn


def _find_root(matrix: Floats) -> Floats:
    """Return what normal values are multiplied by to be as alike as a matrix says."""
    values, vectors = np.linalg.eigh(matrix)
    root: Floats = vectors * np.sqrt(np.maximum(values, 0.0))
    return root
