"""Pictures: which ones a run's data allow, drawn and kept as PNG and SVG."""

from __future__ import annotations

import base64
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
from markupsafe import Markup
from matplotlib.figure import Figure

from harness.decide.frame import Frame, average_seeds
from harness.decide.frontier import quality_metric
from harness.report import batches, figures, gains, learning, roofline, strengths
from harness.report.style import Style

TRADE_OFFS = (
    ("latency", "latency_s", ("device", "threads", "batch")),
    ("size", "weight_bytes", ()),
    ("memory", "peak_memory_bytes", ("batch",)),
    ("training", "time_to_target_s", ("device", "threads", "batch")),
)
MOST_CHARACTERS = 500_000
"""Of a vector picture in the page; a longer one is there in pixels."""
Drawn = tuple[str, str, str, Figure]
"""Kind, task, title and figure."""


@dataclass(frozen=True)
class Picture:
    """A figure in the report folder, and what it shows."""

    name: str
    title: str
    svg: Markup


def draw_pictures(frame: Frame, facts: dict[str, Any], folder: Path) -> list[Picture]:
    """Draw every picture that the data allow; return them in the order of the report."""
    if not frame.has("latency_s"):
        return []
    style = Style.of(average_seeds(frame))
    parts = {task: part for task, part in frame.by_task().items() if part.has("latency_s")}
    drawn = [
        *_draw_trade_offs(parts, style),
        *_draw_strengths(parts, facts.get("plan", {})),
        *_draw_learning(parts, facts.get("plan", {})),
        *_draw_scaling(parts, style),
        *_draw_found(parts, "batches", "By batch", batches.find_batch_series, batches.draw_batches),
        *_draw_found(
            parts, "gains", "Less work promised, time measured", gains.find_gains, gains.draw_gains
        ),
        *_draw_rooflines(parts, facts.get("roofs", {})),
    ]
    return [
        _keep(figure, folder, _file_name(kind, task, list(parts)), title)
        for kind, task, title, figure in drawn
    ]


def _draw_trade_offs(parts: dict[str, Frame], style: Style) -> Iterator[Drawn]:
    for name, metric, by in TRADE_OFFS:
        for task, part in parts.items():
            quality = part.metric(quality_metric(part))
            if not part.has(metric):
                continue
            x = part.metric(metric)
            panels = figures.trade_off_panels(part, x, quality, by)
            if panels:
                title = f"{x.label.capitalize()} against {quality.label}: {task}"
                yield name, task, title, figures.draw_trade_off(panels, x, quality, title, style)


def _draw_strengths(parts: dict[str, Frame], plan: dict[str, Any]) -> Iterator[Drawn]:
    techniques = plan.get("techniques", {})
    spelled = {name: known.get("spelled", "") for name, known in techniques.items()}
    for task, part in parts.items():
        quality = part.metric(quality_metric(part))
        curves = strengths.find_curves(part.measured, quality.name, spelled)
        if curves:
            title = f"{quality.label.capitalize()} by strength: {task}"
            yield "strengths", task, title, strengths.draw_strengths(curves, quality, title)


def _draw_learning(parts: dict[str, Frame], plan: dict[str, Any]) -> Iterator[Drawn]:
    target = plan.get("grid", {}).get("training", {}).get("target")
    for task, part in parts.items():
        if learning.has_curves(part.measured):
            title = f"The way to quality: {task}"
            yield "learning", task, title, learning.draw_learning(part.measured, target, title)


def _draw_scaling(parts: dict[str, Frame], style: Style) -> Iterator[Drawn]:
    for task, part in parts.items():
        if part.measured["threads"].nunique() < 2:
            continue
        title = f"Thread scaling: {task}"
        yield "threads", task, title, figures.draw_scaling(average_seeds(part), title, style)


def _draw_found(
    parts: dict[str, Frame],
    kind: str,
    words: str,
    find: Callable[[Frame], pd.DataFrame],
    draw: Callable[[pd.DataFrame, str], Figure],
) -> Iterator[Drawn]:
    """Yield a picture for each task in which there are cells for it."""
    for task, part in parts.items():
        found = find(part)
        if len(found):
            title = f"{words}: {task}"
            yield kind, task, title, draw(found, title)


def _draw_rooflines(parts: dict[str, Frame], roofs: dict[str, Any]) -> Iterator[Drawn]:
    for task, part in parts.items():
        title = f"What the machine can reach: {task}"
        figure = roofline.draw_rooflines(part.measured, roofs, title)
        if figure is not None:
            yield "roofline", task, title, figure


def _keep(figure: Figure, folder: Path, name: str, title: str) -> Picture:
    figures.save(figure, folder, name)
    svg = (folder / f"{name}.svg").read_text(encoding="utf-8")
    if len(svg) > MOST_CHARACTERS:
        pixels = base64.b64encode((folder / f"{name}.png").read_bytes()).decode()
        return Picture(name, title, Markup(f'<img alt="" src="data:image/png;base64,{pixels}">'))
    return Picture(name, title, Markup(svg[svg.index("<svg") :]))


def _file_name(kind: str, task: str, tasks: list[str]) -> str:
    if len(tasks) == 1:
        return kind
    safe = "".join(character if character.isalnum() else "-" for character in task)
    return f"{kind}-{tasks.index(task) + 1}-{safe[:40]}"
