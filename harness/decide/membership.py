"""Membership: how sure it is that a cell is on the frontier, and which cell beats it if not."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from itertools import pairwise

import moocore
import numpy as np
import pandas as pd
from numpy.typing import NDArray

from harness.decide.frame import Frame, seed_rows
from harness.decide.frontier import Group, Hypervolume, Objective, mark_frontier
from harness.decide.noise import Noise, average_draws
from harness.stats import Floats

NEAR = 0.05
"""A cell that is on the frontier in this share of the draws is within the noise of it."""
MOST_CELLS = 20_000


def judge(group: Group, frame: Frame, objectives: Sequence[Objective], noise: Noise) -> Group:
    """Return the group with `membership`, `standing`, `dominated_by` and hypervolume.

    A group whose values are not known to be in doubt comes back as it is.

    membership: the share of the draws in which the cell is on the frontier. standing: "member" of
    the frontier of the measured values, "near" (no member, but in NEAR of the draws), "dominated".
    dominated_by: the cell_id of the member that beats it in most draws; empty for members.
    """
    cells = pd.concat([group.members, group.dominated])
    if cells.empty or len(cells) > MOST_CELLS:
        return group
    drawn = draw_objectives(cells, frame, objectives, noise)
    # As in published tables, or after a single round: nothing tells of doubt, or how much.
    if np.isnan(drawn).any() or not np.ptp(drawn, axis=2).any():
        return group
    maximise = [objective.direction == "higher" for objective in objectives]
    on_it = np.array([mark_frontier(drawn[:, :, n], maximise) for n in range(drawn.shape[2])])
    membership = on_it.mean(0)
    count = len(group.members)
    beaten_by = _find_dominating(drawn, count, maximise)
    ids = cells["cell_id"].to_numpy()
    standing = np.where(membership >= NEAR, "near", "dominated").astype(object)
    standing[:count] = "member"
    told = {
        "membership": membership,
        "standing": standing,
        "dominated_by": [""] * count + [str(ids[number]) for number in beaten_by],
    }
    judged = pd.concat([cells, pd.DataFrame(told, index=cells.index)], axis=1)
    members, dominated = judged.iloc[:count], judged.iloc[count:]
    volume = measure_hypervolume(cells, drawn, objectives, maximise)
    return replace(group, members=members, dominated=dominated, hypervolume=volume)


def draw_objectives(
    cells: pd.DataFrame, frame: Frame, objectives: Sequence[Objective], noise: Noise
) -> Floats:
    """Return cells × objectives × draws for variants, rows of `average_seeds`."""
    rows = seed_rows(frame, cells)
    flat = np.concatenate(rows)
    measured = frame.measured.iloc[flat]
    starts = np.cumsum([0, *(len(one) for one in rows)])
    groups = [np.arange(start, end) for start, end in pairwise(starts)]
    seeds = measured["seed"].tolist()
    drawn = [
        average_draws(noise.draw(measured, frame.metric(one.name)), groups, seeds)
        for one in objectives
    ]
    return np.stack(drawn, axis=1)


def tell_ahead(first: Floats, second: Floats, objectives: Sequence[Objective]) -> float:
    """Return how often the first of two variants is the better one, ties by the next objective.

    Both are arrays of objectives × draws; what is tied in all of them counts half. NaN where a
    draw that decides is unknown.
    """
    ahead, tied = np.zeros(first.shape[1]), np.ones(first.shape[1], dtype=bool)
    for number, objective in enumerate(objectives):
        sign = -1 if objective.direction == "higher" else 1
        difference = sign * (second[number] - first[number])
        if np.isnan(difference[tied]).any():
            return float("nan")
        ahead[tied & (difference > 0)] = 1
        tied &= difference == 0
    return float((ahead + tied / 2).mean())


def measure_hypervolume(
    cells: pd.DataFrame, drawn: Floats, objectives: Sequence[Objective], maximise: Sequence[bool]
) -> Hypervolume:
    """Return the share of the box between worst and best values that the frontier dominates.

    What is drawn beyond the box counts as its edge, and the interval contains the share.
    Source: Zitzler and Thiele, IEEE Transactions on Evolutionary Computation 1999 (moocore).
    """
    names = [objective.name for objective in objectives]
    points = cells[names].to_numpy(float)
    signs = np.where(maximise, -1.0, 1.0)
    worst, best = (points * signs).max(0), (points * signs).min(0)
    span = np.where(worst > best, worst - best, 1.0)

    def share(values: Floats) -> float:
        scaled = np.ascontiguousarray(np.clip((values * signs - best) / span, 0.0, None))
        return float(moocore.hypervolume(scaled, ref=np.ones(len(names))))

    volumes = [share(drawn[:, :, n]) for n in range(drawn.shape[2])]
    low, high = np.quantile(volumes, [0.025, 0.975])
    reference = dict(zip(names, (worst * signs).tolist(), strict=True))
    measured = share(points)
    return Hypervolume(measured, min(float(low), measured), max(float(high), measured), reference)


def _find_dominating(drawn: Floats, members: int, maximise: Sequence[bool]) -> NDArray[np.int64]:
    """Return for each cell behind the first `members` which of these beats it in most draws."""
    signs = np.where(maximise, -1.0, 1.0)[None, :, None]
    costs = drawn * signs
    shares = []
    for member in costs[:members]:
        no_worse = (member <= costs[members:]).all(1)
        better = (member < costs[members:]).any(1)
        shares.append((no_worse & better).mean(1))
    return np.argmax(shares, axis=0) if shares else np.zeros(0, dtype=np.int64)
