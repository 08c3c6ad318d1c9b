"""Recommend: one variant under conditions, what they cost, and how sure the answer is."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import isnan, nan

import numpy as np
import pandas as pd

from harness.decide.condition import Condition, Mask, split_condition
from harness.decide.frame import GROUP, Frame, average_seeds
from harness.decide.frontier import Objective
from harness.decide.membership import draw_objectives, tell_ahead
from harness.decide.noise import Noise, draw_within_intervals

DRAWS = 4_000


@dataclass(frozen=True)
class Held:
    """A condition: how sure it is that the pick keeps it, and what it costs.

    probability: that the pick keeps it. best_without: the best cell that keeps all other
    conditions. cost: by how much that is better in the first objective, in its unit; 0 where the
    condition changes nothing.
    """

    condition: Condition
    probability: float
    best_without: pd.Series | None
    cost: float


@dataclass(frozen=True)
class Recommendation:
    """The answer for one group of cells.

    pick and runner_up are rows; None where nothing is feasible, or nothing else. margin: by how
    much the pick is better than the runner-up in the first objective that tells them apart.
    probability: that all conditions hold. ahead: that the pick is better than the runner-up. Both
    are NaN where the values came without intervals.
    nearest: without a pick, the cell that misses its conditions by the least share of their
    bounds. unknown: cells that lack a value that a condition or an objective needs.
    """

    key: dict[str, object]
    considered: int
    feasible: int
    pick: pd.Series | None
    runner_up: pd.Series | None
    decided_by: str
    margin: float
    probability: float
    ahead: float
    held: tuple[Held, ...]
    nearest: pd.Series | None
    missed_by: float
    unknown: pd.DataFrame


def recommend(
    frame: Frame,
    conditions: Sequence[Condition],
    objectives: Sequence[Objective],
    noise: Noise,
    by: Sequence[str] = GROUP,
) -> list[Recommendation]:
    """Return the recommendation of every group; objectives after the first settle ties.

    Conditions that look at the group's own columns only choose groups: those that do not keep them
    are left out.
    """
    parts = [part for whole in conditions for part in split_condition(whole)]
    selecting = [part for part in parts if set(part.columns()) <= set(by)]
    kept = [part for part in parts if part not in selecting]
    found = []
    for key, cells in average_seeds(frame).groupby(list(by), dropna=False):
        if all(part.holds(cells).all() for part in selecting):
            named = dict(zip(by, key, strict=True))
            found.append(_recommend_in(named, cells, kept, objectives, frame, noise))
    return found


def order_cells(cells: pd.DataFrame, objectives: Sequence[Objective]) -> pd.DataFrame:
    """Return the cells, the best first: by the first objective, ties by the next ones."""
    names = [objective.name for objective in objectives]
    ascending = [objective.direction == "lower" for objective in objectives]
    return cells.sort_values(names, ascending=ascending, kind="stable")


def _recommend_in(
    key: dict[str, object], cells: pd.DataFrame, conditions: Sequence[Condition],
    objectives: Sequence[Objective], frame: Frame, noise: Noise,
) -> Recommendation:  # fmt: skip
    needed = [column for part in conditions for column in part.columns()]
    needed = list(dict.fromkeys([*(one.name for one in objectives), *needed]))
    judged = cells[[one.name for one in objectives]].notna().all(axis=1)
    usable, unknown = cells[judged], cells[cells[needed].isna().any(axis=1)]
    holding = [part.holds(usable) for part in conditions]
    ranked = order_cells(usable[_all_of(holding, len(usable))], objectives)
    if ranked.empty:
        nearest, missed_by = _find_nearest(usable, conditions, objectives)
        held = tuple(Held(part, nan, None, nan) for part in conditions)
        return Recommendation(
            key, len(usable), 0, None, None, "", nan, 0.0, nan, held, nearest,
            missed_by, unknown,
        )  # fmt: skip
    pick = ranked.iloc[0]
    runner_up = ranked.iloc[1] if len(ranked) > 1 else None
    decided_by, margin = _compare(pick, runner_up, objectives)
    kept = _draw_holding(pick, conditions, frame)
    prices: list[Held] = []
    for number, part in enumerate(conditions):
        others = _all_of([*holding[:number], *holding[number + 1 :]], len(usable))
        best = order_cells(usable[others], objectives).iloc[0]
        cost = abs(float(best[objectives[0].name] - pick[objectives[0].name]))
        known = _is_doubt_known(pick, part.columns(), frame)
        prices.append(Held(part, float(kept[number].mean()) if known else nan, best, cost))
    sure = float(_all_of(kept, DRAWS).mean())
    if any(isnan(one.probability) for one in prices):
        sure = nan
    ahead = _ahead(ranked.iloc[:2], objectives, frame, noise) if len(ranked) > 1 else nan
    return Recommendation(
        key, len(usable), len(ranked), pick, runner_up, decided_by, margin, sure, ahead,
        tuple(prices), None, 0.0, unknown,
    )  # fmt: skip


def _compare(
    pick: pd.Series, other: pd.Series | None, objectives: Sequence[Objective]
) -> tuple[str, float]:
    """Return the first objective that tells two cells apart, and by how much."""
    if other is not None:
        for objective in objectives:
            if pick[objective.name] != other[objective.name]:
                return objective.name, abs(float(pick[objective.name] - other[objective.name]))
    return objectives[0].name, 0.0 if other is not None else nan


def _all_of(masks: Sequence[Mask], rows: int) -> Mask:
    """Return where all masks are true; everywhere where there is none."""
    return np.logical_and.reduce(masks, axis=0) if masks else np.ones(rows, dtype=bool)


def _is_doubt_known(pick: pd.Series, columns: Sequence[str], frame: Frame) -> bool:
    """Tell whether every metric among the columns that can be in doubt has its interval."""
    metrics = [frame.metrics[name] for name in columns if name in frame.metrics]
    return all(pd.notna(pick[f"{one.name}_low"]) for one in metrics if one.interval)


def _draw_holding(pick: pd.Series, conditions: Sequence[Condition], frame: Frame) -> list[Mask]:
    """Return for each condition in which draws the pick keeps it.

    Each metric is drawn from its own 95 % interval, whatever the other cells do.
    """
    row = pick.to_frame().T.infer_objects()
    table: dict[str, object] = {}
    for column in {name for part in conditions for name in part.columns()}:
        metric = frame.metrics.get(column)
        if metric is None or pd.isna(pick[column]):
            table[column] = np.repeat(pick[column], DRAWS)
        else:
            generator = np.random.default_rng(list(column.encode()))
            table[column] = draw_within_intervals(row, metric, generator, DRAWS)[0]
    return [part.holds(table) for part in conditions]


def _ahead(two: pd.DataFrame, objectives: Sequence[Objective], frame: Frame, noise: Noise) -> float:
    """Return how often the first of two cells is the better one; NaN where doubt is not known."""
    drawn = draw_objectives(two, frame, objectives, noise)
    uncertain = frame.metric(objectives[0].name).interval
    if uncertain and not np.ptp(drawn[:, 0], axis=1).any():
        return nan
    return tell_ahead(drawn[0], drawn[1], objectives)


def _find_nearest(
    cells: pd.DataFrame, conditions: Sequence[Condition], objectives: Sequence[Objective]
) -> tuple[pd.Series | None, float]:
    """Return the cell whose worst miss of a condition is the least, and that share of the bound."""
    found = [part.violation(cells) for part in conditions]
    missed = np.maximum.reduce(found, axis=0) if found else np.zeros(0)
    if not np.isfinite(missed).any():
        return None, nan
    least = float(missed.min())
    return order_cells(cells[missed == least], objectives).iloc[0], least
