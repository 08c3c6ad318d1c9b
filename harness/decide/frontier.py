"""The Pareto frontier of each group of cells, with declared directions."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import moocore
import numpy as np
import pandas as pd
from numpy.typing import NDArray

from harness.decide.frame import GROUP, Frame, average_seeds
from harness.errors import UserError
from harness.record import Direction


@dataclass(frozen=True)
class Objective:
    """A metric and whether lower or higher is better."""

    name: str
    direction: Direction


@dataclass(frozen=True)
class Hypervolume:
    """The volume that a frontier dominates up to a reference point, and its 95 % interval.

    reference: the worst value of each objective among the group's complete cells. share: the
    volume over that of the box from the reference to the best value of each objective.
    """

    share: float
    low: float
    high: float
    reference: dict[str, float]


@dataclass(frozen=True)
class Group:
    """Cells that are compared: members of the frontier, dominated ones, incomplete ones."""

    key: dict[str, object]
    members: pd.DataFrame
    dominated: pd.DataFrame
    incomplete: pd.DataFrame
    hypervolume: Hypervolume | None = None

    @property
    def name(self) -> str:
        """The group for people."""
        return name_group(self.key)


def name_group(key: Mapping[str, object]) -> str:
    """Return a group's key for people: "mnist1d, cpu, threads 1, batch 64"."""
    words = {"task": "", "device": "", "model": ""}
    known = {name: value for name, value in key.items() if value is not None and value == value}  # noqa: PLR0124  # NaN is not itself
    return ", ".join(f"{words.get(name, name + ' ')}{value}" for name, value in known.items())


def mark_frontier(points: NDArray[np.float64], maximise: Sequence[bool]) -> NDArray[np.bool_]:
    """Tell for each row whether no other row dominates it.

    A row dominates another if it is at least as good in every column and better in one; equal rows
    do not dominate each other. NaN is not allowed. Source: moocore (Kung et al., JACM 1975).
    """
    if len(points) == 0:
        return np.zeros(0, dtype=bool)
    marked = moocore.is_nondominated(
        np.ascontiguousarray(points, float), maximise=list(maximise), keep_weakly=True
    )
    return np.asarray(marked, dtype=bool)


def find_frontiers(
    frame: Frame, objectives: Sequence[Objective], by: Sequence[str] = GROUP
) -> Iterator[Group]:
    """Yield each group of cells with its frontier, sorted by the group's key."""
    cells = average_seeds(frame)
    unknown = [column for column in by if column not in cells]
    if unknown:
        raise UserError(f"Cannot group by {unknown[0]!r}: there is no such column.")
    names = [objective.name for objective in objectives]
    maximise = [objective.direction == "higher" for objective in objectives]
    for key, group in cells.groupby(list(by), dropna=False):
        complete = group[names].notna().all(axis=1)
        usable = group[complete]
        marked = mark_frontier(usable[names].to_numpy(float), maximise)
        yield Group(
            dict(zip(by, key, strict=True)),
            usable[marked].sort_values(names[0]),
            usable[~marked],
            group[~complete],
        )


def find_objective(frame: Frame, name: str, direction: Direction) -> Objective:
    """Return an objective; raise UserError with the nearest name for an unknown metric."""
    return Objective(frame.metric(name).name, direction)


def choose_objectives(frame: Frame) -> list[Objective]:
    """Return latency against accuracy, or against R² or fidelity where there is no accuracy."""
    return [Objective("latency_s", "lower"), Objective(quality_metric(frame), "higher")]


def quality_metric(frame: Frame) -> str:
    """Return `accuracy` where any cell has it, else `r2`, else `fidelity`."""
    return next((name for name in ("accuracy", "r2") if frame.has(name)), "fidelity")
