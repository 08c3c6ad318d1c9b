"""Decisions: frontiers and recommendations, for people and for programs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import isfinite
from typing import Any

import pandas as pd
from rich.table import Table
from rich.text import Text

from harness.console.streams import out
from harness.decide.answer import Answer
from harness.decide.frame import Frame
from harness.decide.frontier import Objective, name_group
from harness.decide.prices import COST
from harness.decide.recommend import Recommendation
from harness.record import METRICS
from harness.report import text
from harness.report.advice import describe, describe_hypervolume
from harness.wording import counted

NAMED = 3
"""Incomplete cells that are named in a line."""


def print_answers(frame: Frame, answers: Sequence[Answer]) -> None:
    """Print the frontier of every group as a table."""
    for one in answers:
        out.print(_answer_table(one))
        near = len(one.near)
        beside = f"; {near} more within the noise of the frontier" if near else ""
        out.print(f"  {len(one.choices)} of {counted(one.considered, 'variant')}{beside}")
        if one.group.hypervolume is not None:
            out.print(f"  {describe_hypervolume(one.group, frame)}")
        for names in _name_incomplete(one):
            out.print(f"  {names}")
        out.print()
    if not answers:
        out.print(f"No cell of {frame.run_id} was measured.")


def _answer_table(one: Answer) -> Table:
    title = Text(f"Frontier: {one.group.name}")
    table = Table(title=title, title_justify="left", box=None)
    table.add_column("variant", overflow="fold")
    headings = ["latency", "faster", one.quality, "points", "weights", "peak memory", "on it"]
    extra = [
        objective.name
        for objective in one.objectives
        if objective.name not in ("latency_s", one.quality, "weight_bytes", "peak_memory_bytes")
    ]
    units = {metric.name: metric.unit for metric in METRICS}
    for heading in (*headings, *extra):
        table.add_column(heading, justify="right", overflow="fold")
    for choice in one.choices:
        cell = choice.cell
        bounds = (cell["latency_s"], cell["latency_s_low"], cell["latency_s_high"])
        table.add_row(
            Text(choice.name),
            text.format_interval(*bounds, "s"),
            "" if choice.is_baseline else text.format_ratio(choice.latency_ratio),
            text.format_value(cell[one.quality], "1"),
            "" if choice.is_baseline else text.format_points(choice.quality_change),
            text.format_value(cell["weight_bytes"], "B"),
            text.format_value(cell["peak_memory_bytes"], "B"),
            text.format_probability(choice.membership),
            *(text.format_value(cell[name], units.get(name, "1")) for name in extra),
        )
    return table


def _name_incomplete(one: Answer) -> list[str]:
    """Say which cells were left out, by what they lack."""
    names = [objective.name for objective in one.objectives]
    rows = one.group.incomplete
    if rows.empty:
        return []
    lacking = rows[names].isna().apply(lambda row: " and ".join(row.index[row]), axis=1)
    told = []
    for missing, part in rows.groupby(lacking, sort=False):
        shown = [f"{row['model']} · {row['technique']}" for _, row in part.head(NAMED).iterrows()]
        rest = len(part) - len(shown)
        more = f" and {rest} more" if rest else ""
        told.append(f"{len(part)} left out, without {missing}: {'; '.join(shown)}{more}")
    return told


def print_recommendations(
    frame: Frame, picks: Sequence[Recommendation], objectives: Sequence[Objective]
) -> None:
    """Print for each group what to take, what comes next, and what each condition costs."""
    for one in picks:
        out.print(name_group(one.key))
        for line in describe(one, frame, objectives):
            out.print(f"  {line}")
        out.print()


def answer_json(one: Answer) -> dict[str, Any]:
    """Return a group's frontier as plain data."""
    group = one.group
    parts = {
        "members": group.members, "near": one.near, "dominated": group.dominated,
        "incomplete": group.incomplete,
    }  # fmt: skip
    head = {"group": _plain(group.key), "objectives": [vars(each) for each in one.objectives],
            "hypervolume": vars(group.hypervolume) if group.hypervolume else None}  # fmt: skip
    return head | {name: _rows_json(rows) for name, rows in parts.items()}


def _rows_json(rows: pd.DataFrame) -> list[dict[str, Any]]:
    columns = [name for name in (*(metric.name for metric in METRICS), COST) if name in rows]
    judged = [name for name in ("membership", "standing", "dominated_by") if name in rows]
    kept = rows[["cell_id", "model", "technique", *judged, *columns]].astype(object)
    found: list[dict[str, Any]] = kept.where(kept.notna(), None).to_dict("records")  # type: ignore[assignment]  # the columns are text
    return found


def recommendation_json(one: Recommendation, objectives: Sequence[Objective]) -> dict[str, Any]:
    """Return a recommendation as plain data."""
    held = [
        {
            "condition": each.condition.text,
            "probability": _number(each.probability),
            "cost": _number(each.cost),
            "best_without": _cell_json(each.best_without),
        }
        for each in one.held
    ]
    return {
        "group": _plain(one.key),
        "objectives": [vars(each) for each in objectives],
        "considered": one.considered,
        "feasible": one.feasible,
        "pick": _cell_json(one.pick),
        "runner_up": _cell_json(one.runner_up),
        "decided_by": one.decided_by,
        "margin": _number(one.margin),
        "probability": _number(one.probability),
        "ahead": _number(one.ahead),
        "conditions": held,
        "nearest": _cell_json(one.nearest),
        "missed_by": _number(one.missed_by),
        "unknown": _rows_json(one.unknown),
    }


def _cell_json(row: pd.Series | None) -> dict[str, Any] | None:
    return None if row is None else _rows_json(row.to_frame().T)[0]


def _number(value: float) -> float | None:
    return float(value) if isfinite(value) else None


def _plain(key: Mapping[str, object]) -> dict[str, object]:
    """Return a group's key with nothing where there is no value."""
    return {name: None if pd.isna(value) else value for name, value in key.items()}  # type: ignore[call-overload]  # any scalar
