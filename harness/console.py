"""What the command prints: progress, tables for people, JSON for programs."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pandas as pd
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table

from harness.decide.answer import Answer
from harness.decide.frame import Frame
from harness.layer import Layer
from harness.measure.roofline import Roofs
from harness.record import METRICS, Record
from harness.report import text
from harness.store import Run
from harness.sweep import runner
from harness.sweep.doctor import Examination
from harness.sweep.self_test import SelfTest

# A file or pipe has no width: nothing is cut there.
out = Console(highlight=False, width=None if sys.stdout.isatty() else 1_000)
err = Console(highlight=False, stderr=True, soft_wrap=True)


@contextmanager
def show_progress() -> Iterator[runner.Progress]:
    """Yield what the runner reports to: a bar on a terminal, plain lines elsewhere."""
    if not err.is_terminal:
        count = {"cells": 0, "done": 0}

        def note(record: Record) -> None:
            count["done"] += 1
            place = f"[{count['done']}/{count['cells']}]"
            err.print(f"{place} {_describe(record)}", markup=False)

        yield runner.Progress(
            begin=lambda cells: count.update(cells=cells),
            phase=lambda text: err.print(f"  {text}", markup=False),
            done=note,
        )
        return
    columns = (
        BarColumn(), MofNCompleteColumn(), TimeRemainingColumn(), TextColumn("{task.description}"),
    )  # fmt: skip
    with Progress(*columns, console=err) as bar:
        task = bar.add_task("starting", total=None)

        def tell(record: Record) -> None:
            bar.advance(task)
            if record.status != "measured":
                bar.console.print(_describe(record), markup=False)

        yield runner.Progress(
            begin=lambda cells: bar.update(task, total=cells),
            phase=lambda text: bar.update(task, description=text),
            done=tell,
        )


def _describe(record: Record) -> str:
    if record.status == "measured":
        latency = text.format_value(record.metrics["latency_s"], "s")
        return f"{record.cell}: {latency}"
    kind = f" ({record.failure_kind})" if record.failure_kind else ""
    return f"Cell {record.cell} {record.status}{kind}: {record.message}"


def print_answers(frame: Frame, answers: Sequence[Answer]) -> None:
    """Print the frontier of every group as a table."""
    for one in answers:
        table = Table(title=f"Frontier: {one.group.name}", title_justify="left", box=None)
        table.add_column("variant", overflow="fold")
        for heading in ("latency", "faster", one.quality, "points", "weights", "peak memory"):
            table.add_column(heading, justify="right", overflow="fold")
        for choice in one.choices:
            cell = choice.cell
            bounds = (cell["latency_s"], cell["latency_s_low"], cell["latency_s_high"])
            table.add_row(
                choice.name,
                text.format_interval(*bounds, "s"),
                "" if choice.is_baseline else text.format_ratio(choice.latency_ratio),
                text.format_value(cell[one.quality], "1"),
                "" if choice.is_baseline else text.format_points(choice.quality_change),
                text.format_value(cell["weight_bytes"], "B"),
                text.format_value(cell["peak_memory_bytes"], "B"),
            )
        out.print(table)
        out.print(f"  {len(one.choices)} of {one.considered} variants\n", markup=False)
    if not answers:
        out.print(f"No cell of {frame.run_id} was measured.", markup=False)


def print_outcome(frame: Frame, made: Run, page: Path) -> None:
    """Print how many cells were measured, why others were not, and where everything is."""
    counts = frame.cells["status"].value_counts()
    told = ", ".join(f"{count} {status}" for status, count in counts.items())
    out.print(f"{len(frame.cells)} cells: {told}", markup=False)
    for kind in ("failed", "skipped"):
        reasons = frame.cells[frame.cells["status"] == kind].groupby("message", sort=False).size()
        for message, count in reasons.items():
            out.print(f"  {kind} ({count}): {message}", markup=False)
    out.print(f"Results: {made.folder / 'cells.parquet'}", markup=False)
    out.print(f"Report:  {page}", markup=False)


def print_examination(found: Examination) -> None:
    """Print machine, roofs, what can be told apart, and what to mend."""
    machine = found.machine
    memory = text.format_value(machine["memory_bytes"], "B")
    out.print(f"{machine['cpu_model']}: {machine['cores']} cores, {machine['processors']} usable "
              f"processors, {memory}, {machine['system']}", markup=False)  # fmt: skip
    out.print(f"Low precision: {', '.join(machine['cpu_flags']) or 'no instructions'}. "
              f"Fingerprint {found.fingerprint}.", markup=False)  # fmt: skip
    for device, facts in found.devices.items():
        about = facts if isinstance(facts, str) else facts.get("gpu_name", "ready")
        out.print(f"{device}: {about}\n", markup=False)
    out.print(_roofs_table(found.roofs))
    out.print(_self_tests_table(found.tests))
    for advice in found.advice or ("Nothing to mend.",):
        out.print(f"* {advice}", markup=False)


def _roofs_table(roofs: Mapping[str, Roofs]) -> Table:
    table = Table(title="What it can reach", title_justify="left", box=None)
    table.add_column("device")
    types = list(dict.fromkeys(name for one in roofs.values() for name in one.flops_per_s))
    for heading in (*types, "copy in cache", "copy in memory", "an operator"):
        table.add_column(heading, justify="right")
    for name, one in roofs.items():
        rates = [one.flops_per_s.get(kind) for kind in types]
        copies = (one.bytes_per_s[0][1], one.bytes_per_s[-1][1])
        table.add_row(
            name,
            *(text.format_value(rate, "FLOP/s") for rate in rates),
            *(text.format_value(rate, "B/s") for rate in copies),
            text.format_value(one.dispatch_s, "s"),
        )
    return table


def _self_tests_table(tests: Sequence[SelfTest]) -> Table:
    table = Table(title="The same work compared with itself", title_justify="left", box=None)
    for heading in ("threads", "false alarms (p < 0.01)", "noise of a round",
                    "smallest difference seen", "disturbed blocks", "stolen",
                    "machine's speed"):  # fmt: skip
        table.add_column(heading, justify="right")
    for test in tests:
        table.add_row(
            str(test.threads),
            f"{test.false_flags} of {test.comparisons}",
            f"{test.noise:.1%}",
            f"{test.smallest_difference:.1%} in {test.rounds} rounds",
            f"{sum(test.disturbed.values()):.0%}",
            f"{test.stolen_share:.1%}",
            f"{test.machine_speed:.0%}",
        )
    return table


def print_layers(layers: Sequence[Layer]) -> None:
    """Print a model's layers as a table with their sums."""
    table = Table(box=None, show_footer=True)
    sums = [sum(getattr(layer, name) for layer in layers)
            for name in ("params", "macs", "weight_bytes")]  # fmt: skip
    counts = [text.format_count(value) for value in sums[:2]]
    footers = ("all", "", "", *counts, text.format_value(sums[2], "B"), "", "")
    headings = ("layer", "kind", "output", "parameters", "MACs", "stored", "zero", "bits")
    for heading, footer in zip(headings, footers, strict=True):
        justify: Any = "left" if heading in ("layer", "kind", "output") else "right"
        table.add_column(heading, footer, justify=justify, overflow="fold")
    for layer in layers:
        table.add_row(
            layer.name,
            layer.kind,
            "×".join(map(str, layer.shape)),
            text.format_count(layer.params),
            text.format_count(layer.macs),
            text.format_value(layer.weight_bytes, "B") if layer.weight_bytes else "–",
            f"{layer.sparsity:.1%}" if layer.params else "–",
            text.format_value(layer.bits, "") if layer.params else "–",
        )
    out.print(table)


def print_json(name: str, data: dict[str, Any]) -> None:
    """Print a versioned document for programs."""
    document = {"schema": f"paretogrid.{name}/1", **data}
    sys.stdout.write(json.dumps(document, indent=2, default=str, allow_nan=False) + "\n")


def group_json(one: Answer) -> dict[str, Any]:
    """Return a group's frontier as plain data."""
    group = one.group
    parts = {
        "members": group.members, "dominated": group.dominated, "incomplete": group.incomplete,
    }  # fmt: skip
    head = {"group": group.key, "objectives": [vars(objective) for objective in one.objectives]}
    return head | {name: _rows_json(rows) for name, rows in parts.items()}


def _rows_json(rows: pd.DataFrame) -> list[dict[str, Any]]:
    columns = [metric.name for metric in METRICS if metric.name in rows]
    kept = rows[["cell_id", "model", "technique", *columns]].astype(object)
    found: list[dict[str, Any]] = kept.where(kept.notna(), None).to_dict("records")  # type: ignore[assignment]  # the columns are text
    return found


def print_rows(kind: str, rows: list[dict[str, Any]]) -> None:
    """Print what was listed as a table; registered things with their parameters."""
    if not rows:
        out.print(f"No {kind}.", markup=False)
        return
    if "parameters" in rows[0]:
        rows = [_entry_row(entry) for entry in rows]
    table = Table(box=None, header_style="bold")
    for column in rows[0]:
        table.add_column(column, overflow="fold")
    for row in rows:
        table.add_row(*(str(value) for value in row.values()))
    out.print(table)


def _entry_row(entry: dict[str, Any]) -> dict[str, str]:
    parameters = ", ".join(
        p["name"] if p["default"] == "<required>" else f"{p['name']}={p['default']!r}"
        for p in entry["parameters"]
    )
    row = {"name": f"{entry['name']}({parameters})" if parameters else entry["name"]}
    if entry["kind"] == "technique":
        row |= {
            "stage": entry["stage"],
            "realization": entry["realization"] or "–",
            "needs": ", ".join(entry["needs"]) or "–",
        }
    return row | {"what it does": entry["summary"]}
