"""Write a run's report: one page, one Markdown file, and every picture as PNG and SVG."""

from __future__ import annotations

import base64
import hashlib
import json
from importlib import resources
from pathlib import Path
from typing import Any

import jinja2
import pandas as pd

from harness.decide.answer import Answer, answer
from harness.decide.frame import Frame
from harness.decide.sources import Source
from harness.errors import UserError
from harness.record import METRICS, TIMED, Metric
from harness.report import text
from harness.report.advice import describe_hypervolume, name_cell, tell_verdicts
from harness.report.claims import find_claims
from harness.report.doubts import find_doubts
from harness.report.duels import THREADS_RULE, tell_duels, tell_scalings
from harness.report.payload import make_payload, tell_target, write_payload
from harness.report.pictures import Picture, draw_pictures
from harness.wording import counted

TABLE = (
    "latency_s", "latency_ratio", "latency_p99_s", "throughput_per_s", "accuracy", "macro_f1",
    "r2", "fidelity", "params", "nonzero_params", "weight_bytes", "disk_bytes", "peak_memory_bytes",
    "macs", "time_to_target_s", "epochs_to_target", "prepare_s",
)  # fmt: skip


BOUND_COLUMNS = ("model", "technique", "device", "threads", "batch", "type", "FLOP/byte",
                 "of the roof", "bound", "disturbed", "headline from")  # fmt: skip
DUEL_COLUMNS = ("variant", "devices", "batch: ratio, smallest", "batch: ratio, largest",
                "overtakes at batch", "best throughput", "memory", "energy of an inference",
                "cost of a million")  # fmt: skip
SCRIPTS = ("data", "chart", "table", "start")
ROOF_COLUMNS = ("device", "matrix products", "copies", "an operator")


def write_report(source: Source, reports: Path) -> Path:
    """Write reports/<run_id>/ and return the path of its index.html."""
    frame = source.frame
    folder = reports / source.name
    try:
        folder.mkdir(parents=True, exist_ok=True)
        pictures = draw_pictures(frame, source.facts, folder)
        answers = answer(frame, noise=source.noise)
        facts = gather(source, answers, pictures)
        shown = {"payload": "", "scripts": ()}
        if len(frame.measured):
            shown = {
                "payload": write_payload(make_payload(frame, source.noise, answers)),
                "scripts": read_scripts(),
            }
        page = _render("page.html.j2", facts | shown)
        (folder / "index.html").write_text(page, encoding="utf-8")
        (folder / "report.md").write_text(_render("report.md.j2", facts), encoding="utf-8")
    except OSError as error:
        raise UserError(
            f"Cannot write the report to {folder}: {error.strerror}. "
            "Name another folder with --reports."
        ) from None
    return folder / "index.html"


def read_scripts() -> tuple[str, str]:
    """Return the programs of the page: the chart library, and the page's own."""
    from plotly.offline import get_plotlyjs  # late: it takes long to import

    folder = resources.files("harness.report") / "page"
    own = "\n".join((folder / f"{name}.js").read_text("utf-8") for name in SCRIPTS)
    return get_plotlyjs(), own


def gather(source: Source, answers: list[Answer], pictures: list[Picture]) -> dict[str, Any]:
    """Return what the templates show."""
    frame, facts, noise = source.frame, source.facts, source.noise
    columns = [frame.metrics[name] for name in TABLE if frame.has(name)]
    unmeasured = frame.cells[~frame.cells["status"].isin(TIMED)]
    machine = describe(facts.get("machine", {}))
    return {
        "run_id": frame.run_id,
        "facts": facts,
        "machine": machine,
        "libraries": machine.get("libraries", {}),
        "answers": [
            _answer_rows(one) | {"volume": describe_hypervolume(one.group, frame)}
            for one in answers
        ],
        "sentences": [summarize(one) for one in answers],
        "verdicts": [
            row for part in frame.by_task().values() for row in tell_verdicts(part, noise)
        ],
        "pictures": pictures,
        "columns": columns,
        "cells": [_cell_row(row, columns) for _, row in frame.measured.iterrows()],
        "doubts": find_doubts(frame.measured),
        "claims": find_claims(frame),
        "duels": tell_duels(frame),
        "scalings": list(tell_scalings(frame)),
        "threads_rule": THREADS_RULE,
        "bounds": [_bound_row(row) for _, row in explained(frame).iterrows()],
        "bound_columns": BOUND_COLUMNS,
        "duel_columns": DUEL_COLUMNS,
        "roof_columns": ROOF_COLUMNS,
        "roofs": [_roof_row(name, roofs) for name, roofs in facts.get("roofs", {}).items()],
        "counts": frame.cells["status"].value_counts().to_dict(),
        "unmeasured": _reasons(unmeasured),
        "warnings": _warnings(frame.measured),
        "exclusions": facts.get("exclusions", []),
        "metrics": METRICS,
    }


def explained(frame: Frame) -> pd.DataFrame:
    """Return the measured cells of which it is known what bounds them."""
    return (
        frame.measured[frame.measured["bound"].notna()] if frame.has("bound") else frame.cells[:0]
    )


def describe(machine: dict[str, Any]) -> dict[str, Any]:
    """Return the machine's facts with caches and limits as people write them."""
    caches = [
        f"L{cache['level']} {cache['type'].lower()} {text.format_value(cache['size_bytes'], 'B')}"
        for cache in machine.get("caches", [])
    ]
    limits = [f"{name} {value}" for name, value in machine.get("container", {}).items() if value]
    shown = {"caches": ", ".join(caches), "container": ", ".join(limits) or "no limits"}
    return machine | {name: value for name, value in shown.items() if name in machine}


def summarize(one: Answer) -> str:
    """Return a group's answer in a sentence: the best on its frontier, and the fastest."""
    if not one.choices:
        return "No complete cell."
    fastest, best = one.choices[0], one.choices[-1]
    quality = one.quality
    parts = [f"Best {quality}: {best.name} ({text.format_value(best.cell[quality], '1')})"]
    if fastest is not best:
        words = f"fastest: {fastest.name}"
        if not fastest.is_baseline:
            faster = text.format_ratio(fastest.latency_ratio)
            points = text.format_points(fastest.quality_change)
            words += f", {faster} as fast as its baseline, {points} points"
        parts.append(words)
    return "; ".join(parts) + "."


def _answer_rows(one: Answer) -> dict[str, Any]:
    rows = []
    for choice in one.choices:
        cell = choice.cell
        rows.append(
            {
                "name": choice.name,
                "realization": cell["realization"] or "–",
                "latency": _with_interval(cell, "latency_s", "s"),
                "faster": "baseline"
                if choice.is_baseline
                else text.format_speedup(
                    choice.latency_ratio, choice.latency_ratio_low, choice.latency_ratio_high
                ),
                "quality": _with_interval(cell, one.quality, "1"),
                "change": "" if choice.is_baseline else text.format_points(choice.quality_change),
                "weights": text.format_value(cell["weight_bytes"], "B"),
                "smaller": "" if choice.is_baseline else text.format_ratio(choice.weight_ratio),
                "memory": text.format_value(cell["peak_memory_bytes"], "B"),
                "membership": text.format_probability(choice.membership),
            }
        )
    return {"name": one.group.name, "quality": one.quality, "rows": rows,
            "considered": one.considered, "incomplete": len(one.group.incomplete),
            "near": [_near(row) for _, row in one.near.iterrows()]}  # fmt: skip


def _near(row: pd.Series) -> str:
    return f"{name_cell(row)} ({text.format_probability(row['membership'])})"


def _with_interval(cell: pd.Series, name: str, unit: str) -> str:
    low, high = cell.get(f"{name}_low", float("nan")), cell.get(f"{name}_high", float("nan"))
    return text.format_interval(cell[name], low, high, unit)


def _cell_row(row: pd.Series, columns: list[Metric]) -> dict[str, Any]:
    values = [
        _with_interval(row, metric.name, metric.unit)
        if metric.interval and metric.name != "throughput_per_s"
        else text.format_value(row[metric.name], metric.unit)
        for metric in columns
    ]
    axes = [row[name] for name in ("model", "technique", "device", "threads", "batch", "seed")]
    reached = tell_target(row) or "–"
    return {"axes": axes, "values": values, "reached": reached, "realization": row["realization"]}


def _reasons(cells: pd.DataFrame) -> list[dict[str, Any]]:
    keys = ["status", "failure_kind", "message"]
    return [
        dict(zip(keys, key, strict=True))
        | {"cells": [_name_cell(row) for _, row in part.iterrows()]}
        for key, part in cells.groupby(keys, sort=False)
    ]


def _name_cell(row: pd.Series) -> str:
    place = f"threads {row['threads']}, batch {row['batch']}"
    return f"{row['model']}, {row['technique']}, {row['device']}, {place}"


def _warnings(cells: pd.DataFrame) -> dict[str, int]:
    counted: dict[str, int] = {}
    for warnings in cells["warnings"]:
        for warning in warnings if warnings is not None else ():
            counted[warning] = counted.get(warning, 0) + 1
    return counted


def _bound_row(row: pd.Series) -> list[str]:
    """What bounds a cell, and how near it comes: the words of the table."""
    return [
        *(str(row[name]) for name in ("model", "technique", "device", "threads", "batch")),
        str(row["dtype_in_effect"]),
        text.format_value(row["arithmetic_intensity"], ""),
        f"{row['fraction_of_roof']:.1%}",
        str(row["bound"]),
        f"{row['disturbed_share']:.0%}",
        str(row["headline_blocks"]),
    ]


def _roof_row(name: str, roofs: dict[str, Any]) -> list[str]:
    """What a device can reach: products by type, copies by working set, an operator."""
    copies = [
        f"{text.format_value(rate, 'B/s')} at {text.format_value(size, 'B')}"
        for size, rate in roofs["bytes_per_s"]
    ]
    rates = [
        f"{kind} {text.format_value(rate, 'FLOP/s')}" for kind, rate in roofs["flops_per_s"].items()
    ]
    operator = text.format_value(roofs["dispatch_s"], "s")
    return [name, ", ".join(rates), ", ".join(copies), operator]


def _escape_markdown(value: object) -> str:
    """A table's cell ends at a pipe or a line's end; a tag would be a tag."""
    return " ".join(str(value).split()).replace("|", "\\|").replace("<", "&lt;")


def _hash_script(script: str) -> str:
    """What a content-security policy names a script by."""
    digest = hashlib.sha256(script.encode()).digest()
    return f"'sha256-{base64.b64encode(digest).decode()}'"


def _render(template: str, facts: dict[str, Any]) -> str:
    folder = resources.files("harness.report")
    environment = jinja2.Environment(
        autoescape=template.endswith(".html.j2"), trim_blocks=True, lstrip_blocks=True,
        undefined=jinja2.StrictUndefined,
    )  # fmt: skip
    environment.filters["json"] = json.dumps
    environment.filters["counted"] = counted
    environment.filters["csphash"] = _hash_script
    environment.filters["cellsafe"] = _escape_markdown
    return environment.from_string((folder / template).read_text(encoding="utf-8")).render(facts)
