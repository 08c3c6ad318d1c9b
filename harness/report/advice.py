"""Advice: a recommendation in sentences."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from math import isfinite

import pandas as pd

from harness.decide.frame import Frame
from harness.decide.frontier import Group, Objective, name_group, quality_metric
from harness.decide.noise import Noise
from harness.decide.recommend import Held, Recommendation
from harness.decide.verdict import Verdict, find_verdicts
from harness.record import Metric
from harness.report import text
from harness.wording import counted

TIE = 0.15
"""A variant that is ahead in 35 to 65 % of the draws is not told apart from the next."""


def describe(one: Recommendation, frame: Frame, objectives: Sequence[Objective]) -> Iterator[str]:
    """Yield what to take and how sure that is, what comes next, and what conditions cost."""
    if one.pick is None:
        yield from _describe_nothing(one, frame)
        return
    yield f"Take {name_cell(one.pick)}: {_values(one.pick, frame, objectives)}."
    keep = "keeps" if one.feasible == 1 else "keep"
    yield f"{one.feasible} of {counted(one.considered, 'variant')} {keep} all conditions."
    if one.held and isfinite(one.probability):
        sure = text.format_probability(one.probability)
        yield f"That it really keeps them all: {sure}."
    elif one.held:
        yield "The values came without intervals: how sure they are is not known."
    if one.runner_up is not None:
        metric = frame.metric(one.decided_by)
        sure = f"; that it is behind: {text.format_probability(one.ahead)}"
        ahead = sure if isfinite(one.ahead) else ""
        yield (
            f"Next: {name_cell(one.runner_up)}, "
            f"{text.format_value(one.margin, metric.unit)} worse in {metric.label}{ahead}."
        )
    for held in one.held:
        yield _describe_cost(held, frame, objectives[0])
    if len(one.unknown):
        yield f"{counted(len(one.unknown), 'variant')} without a value that is asked about."


def tell_verdicts(frame: Frame, noise: Noise) -> Iterator[dict[str, str]]:
    """Yield a row for each verdict: where, under which size, what to ship, how sure that is."""
    if not (frame.has("latency_s") and frame.has("weight_bytes")):
        return
    quality = frame.metric(quality_metric(frame))
    for one in find_verdicts(frame, noise):
        sizes = [text.format_bytes(limit) for limit in (one.limits[0], one.limits[-1])]
        yield {
            "where": name_group(one.key),
            "under": sizes[0] if len(one.limits) == 1 else f"{sizes[0]} to {sizes[1]}",
            "ship": name_cell(one.pick),
            "latency": text.format_value(one.pick["latency_s"], "s"),
            "quality": f"{quality.label} {text.format_value(one.pick[quality.name], quality.unit)}",
            "size": text.format_bytes(one.pick["weight_bytes"]),
            "sure": "; ".join(_tell_doubt(one, quality)),
        }


def _tell_doubt(one: Verdict, quality: Metric) -> Iterator[str]:
    """Yield how sure it is that the pick is good enough, and that no other is as fast."""
    known = isfinite(one.good_enough)
    worth = text.format_value(one.best[quality.name], quality.unit)
    if one.pick.equals(one.best):
        yield f"the best {quality.label} of all that fit"
    else:
        sure = f"{text.format_probability(one.good_enough)}: " if known else ""
        yield f"{sure}at most a point below the best that fits, {name_cell(one.best)} ({worth})"
    if one.next is None:
        yield "no other that fits is within a point of it"
    else:
        sure = f"{text.format_probability(one.ahead)}: " if isfinite(one.ahead) else ""
        tie = ", a tie" if abs(one.ahead - 0.5) < TIE else ""
        latency = text.format_value(one.next["latency_s"], "s")
        yield f"{sure}faster than the next within a point, {name_cell(one.next)} ({latency}){tie}"
    if not known:
        yield "how sure is not known"


def describe_hypervolume(group: Group, frame: Frame) -> str:
    """Return how much of the box from the worst to the best values the frontier dominates."""
    volume = group.hypervolume
    if volume is None:
        return ""
    worst = ", ".join(
        f"{frame.metric(name).label} {text.format_value(value, frame.metric(name).unit)}"
        for name, value in volume.reference.items()
    )
    return (
        f"It dominates {volume.share:.1%} ({volume.low:.1%}–{volume.high:.1%}) of the box between "
        f"the best values and the worst ({worst})."
    )


def name_cell(row: pd.Series) -> str:
    """Return a cell's model, technique and runtime where that is not plain."""
    runtime = "" if row["runtime"] in ("eager", "training") else f" ({row['runtime']})"
    return f"{row['model']} · {row['technique']}{runtime}"


def _values(row: pd.Series, frame: Frame, objectives: Sequence[Objective]) -> str:
    shown = dict.fromkeys([*(one.name for one in objectives), "latency_s", "accuracy"])
    parts = []
    for name in shown:
        if name in row and pd.notna(row[name]):
            metric = frame.metric(name)
            low, high = (_float(row.get(f"{name}_{side}")) for side in ("low", "high"))
            value = text.format_interval(float(row[name]), low, high, metric.unit)
            parts.append(f"{metric.label} {value}")
    return ", ".join(parts)


def _float(value: object) -> float:
    return float("nan") if value is None else float(value)  # type: ignore[arg-type]  # a number of a table


def _describe_nothing(one: Recommendation, frame: Frame) -> Iterator[str]:
    yield f"None of {counted(one.considered, 'variant')} keeps all conditions."
    if one.nearest is None:
        return
    missing = [
        f"{name} is {text.format_value(_float(one.nearest[name]), _unit(frame, name))}"
        for held in one.held
        for name in held.condition.columns()
        if not held.condition.holds(one.nearest.to_frame().T.infer_objects())[0]
    ]
    yield (
        f"Nearest: {name_cell(one.nearest)}, which misses by {one.missed_by:.1%} of a bound "
        f"({', '.join(dict.fromkeys(missing))})."
    )


def _describe_cost(held: Held, frame: Frame, objective: Objective) -> str:
    sure = f" with {text.format_probability(held.probability)}"
    words = f"{held.condition.text}: kept{sure if isfinite(held.probability) else ''}"
    if held.best_without is None or held.cost == 0:
        return f"{words}, costs nothing."
    metric = frame.metric(objective.name)
    cost = text.format_value(held.cost, metric.unit)
    return f"{words}; without it {name_cell(held.best_without)} is {cost} better in {metric.label}."


def _unit(frame: Frame, name: str) -> str:
    return frame.metrics[name].unit if name in frame.metrics else ""
