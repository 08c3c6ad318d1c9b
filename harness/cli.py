"""The command: arguments, exit codes, printing; nothing else."""

from __future__ import annotations

import json
import os
import shlex
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import pandas as pd
import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table

from harness import store
from harness.decide.answer import Answer, answer
from harness.decide.frame import Frame, load_frame
from harness.decide.frontier import choose_objectives
from harness.errors import ExitCode, UserError, WorkerFailure
from harness.grid import Grid, built_in_grids, parse_grid, read_grid
from harness.measure.machine import describe_machine
from harness.record import METRICS, Record
from harness.report import text
from harness.sweep import runner
from harness.sweep.launcher import Launcher
from harness.sweep.plan import Plan, resolve

app = typer.Typer(
    help="Benchmarks of smaller and faster models, with numbers that hold on a noisy machine.",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
)
# A file or pipe has no width: nothing is cut there.
out = Console(highlight=False, width=None if sys.stdout.isatty() else 1_000)
err = Console(highlight=False, stderr=True, soft_wrap=True)

ResultsOption = Annotated[
    str | None, typer.Option("--results", help="The store (PARETOGRID_RESULTS, or ./results).")
]
ReportsOption = Annotated[str, typer.Option("--reports", help="Where reports go.")]
RunArgument = Annotated[str | None, typer.Argument(help="A run; the latest if left out.")]
JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON, for programs.")]


@app.command()
def run(
    grid: Annotated[str | None, typer.Argument(help="A grid file, or a built-in grid.")] = None,
    model: Annotated[list[str] | None, typer.Option(help="A model, or file.py:function.")] = None,
    technique: Annotated[list[str] | None, typer.Option(help="A technique or a + b.")] = None,
    device: Annotated[list[str] | None, typer.Option(help="cpu, cuda, cuda:1...")] = None,
    threads: Annotated[list[int] | None, typer.Option(help="Threads of a cell.")] = None,
    batch: Annotated[list[int] | None, typer.Option(help="Examples in a call.")] = None,
    seed: Annotated[list[int] | None, typer.Option(help="Seed of training.")] = None,
    plugin: Annotated[list[str] | None, typer.Option(help="A Python file to load.")] = None,
    max_seconds_per_cell: Annotated[float | None, typer.Option(help="Budget of a cell.")] = None,
    results: ResultsOption = None,
    reports: ReportsOption = "reports",
) -> None:
    """Measure a grid and write its report. Options replace what the grid says."""
    axes = {
        "models": model, "techniques": technique, "devices": device, "threads": threads,
        "batch": batch, "seeds": seed, "plugins": plugin,
    }  # fmt: skip
    budget = {"max_seconds_per_cell": max_seconds_per_cell}
    wanted, where, name = _read_wanted(grid, {"grid": axes, "budget": budget})
    with Launcher(wanted.measure.wait_policy) as launcher:
        plan = resolve(wanted, launcher, where)
        facts = {
            "plan": plan.to_json(),
            "machine": describe_machine(),
            "command": shlex.join(["paretogrid", *sys.argv[1:]]),
            "cwd": str(Path.cwd()),
            "exclusions": [{"rule": r, "cells": n} for r, n in plan.grid.exclusions()],
        }
        made = store.Run.create(store.results_folder(results), name, facts)
        _sweep(plan, made, launcher, Path(reports))


@app.command()
def resume(
    run_id: RunArgument = None, results: ResultsOption = None, reports: ReportsOption = "reports"
) -> None:
    """Measure what an interrupted run has left."""
    found = store.open_run(store.results_folder(results), run_id)
    facts = found.facts()
    if "plan" not in facts:
        raise UserError(f"The run {found.run_id} was imported; there is nothing to resume.")
    plan = Plan.from_json(facts["plan"])
    folder = Path(reports).resolve()
    found = store.Run(found.folder.resolve())
    os.chdir(facts["cwd"])  # the grid's own paths are relative to where the run began
    with Launcher(plan.grid.measure.wait_policy) as launcher:
        _sweep(plan, found, launcher, folder)


class Kind(StrEnum):
    """What can be listed."""

    MODELS = "models"
    TECHNIQUES = "techniques"
    DATASETS = "datasets"
    GRIDS = "grids"
    METRICS = "metrics"
    RUNS = "runs"


@app.command("list")
def list_(
    kind: Annotated[Kind, typer.Argument(help="What to list.")],
    plugin: Annotated[list[str] | None, typer.Option(help="A Python file to load.")] = None,
    results: ResultsOption = None,
    as_json: JsonOption = False,
) -> None:
    """List what there is."""
    if kind is Kind.GRIDS:
        rows: list[dict[str, Any]] = [{"name": name} for name in built_in_grids()]
    elif kind is Kind.METRICS:
        rows = [{k: getattr(m, k) for k in ("name", "unit", "direction", "label")} for m in METRICS]
    elif kind is Kind.RUNS:
        folder = store.results_folder(results)
        names = store.list_runs(folder)
        rows = [_run_row(store.open_run(folder, name)) for name in names]
    else:
        try:
            with Launcher() as launcher, launcher.worker() as worker:
                catalog = worker.call("catalog", 300, plugins=plugin or [])
        except WorkerFailure as failure:  # a plugin that crashes or exits
            raise UserError(f"Cannot list {kind.value}: {failure.message.strip()}") from None
        rows = [entry for entry in catalog if f"{entry['kind']}s" == kind.value]
    if as_json:
        _print_json("list", {"kind": kind.value, "rows": rows})
    else:
        _print_rows(kind, rows)


@app.command()
def frontier(
    run_id: RunArgument = None,
    minimize: Annotated[list[str] | None, typer.Option(help="A metric.")] = None,
    maximize: Annotated[list[str] | None, typer.Option(help="A metric.")] = None,
    results: ResultsOption = None,
    as_json: JsonOption = False,
) -> None:
    """Print the variants that no other beats, for each task, device, threads and batch."""
    found = store.open_run(store.results_folder(results), run_id)
    frame = load_frame(found)
    objectives = choose_objectives(frame, minimize or (), maximize or ())
    answers = answer(frame, objectives)
    if as_json:
        data = {"run_id": frame.run_id, "objectives": [vars(o) for o in objectives]}
        _print_json("frontier", data | {"groups": [_group_json(one) for one in answers]})
    else:
        _print_answers(frame, answers)


@app.command("report")
def report_(
    run_id: RunArgument = None, results: ResultsOption = None, reports: ReportsOption = "reports"
) -> None:
    """Write a run's report again."""
    found = store.open_run(store.results_folder(results), run_id)
    out.print(str(_write_report(found, Path(reports))), markup=False)


def main() -> None:
    """Run the command; a user's mistake is one message and exit code 2."""
    try:
        app(standalone_mode=True)
    except UserError as mistake:
        err.print(f"paretogrid: {mistake}", markup=False)
        sys.exit(ExitCode.USAGE)


# Running


def _read_wanted(
    name: str | None, options: dict[str, dict[str, Any]]
) -> tuple[Grid, str, str]:
    """Return the grid asked for, where its mistakes are, and the run's name."""
    given = {
        table: {key: value for key, value in keys.items() if value not in (None, [])}
        for table, keys in options.items()
    }
    if name is None:
        if "models" not in given["grid"]:
            raise UserError("Give a grid (`paretogrid run demo`) or a model (`--model my.py:net`).")
        return parse_grid(given, "the command line"), "the command line", "run"
    data = read_grid(name).model_dump(mode="json")
    for table, keys in given.items():
        data[table] |= keys
    return parse_grid(data, name), name, Path(name).stem


def _sweep(plan: Plan, made: store.Run, launcher: Launcher, reports: Path) -> None:
    """Measure what is left of a plan, write the report, and end with the exit code."""
    with made.lock():
        made.write_facts({**made.facts(), "state": "running"})
        try:
            with _show_progress() as progress:
                runner.Sweep(plan, made, launcher, progress).measure()
        except KeyboardInterrupt:
            made.compact()
            made.write_facts({**made.facts(), "state": "interrupted"})
            err.print(f"Interrupted. Go on with: paretogrid resume {made.run_id}", markup=False)
            sys.exit(ExitCode.INTERRUPTED)
        made.compact()
        made.write_facts({**made.facts(), "state": "finished"})
    page = _write_report(made, reports)
    frame = load_frame(made)
    _print_answers(frame, answer(frame))
    _print_outcome(frame, made, page)
    statuses = frame.cells["status"]
    if not (statuses == "measured").any():
        sys.exit(ExitCode.NOTHING_MEASURED)
    if (statuses == "failed").any():
        sys.exit(ExitCode.SOME_FAILED)


def _write_report(made: store.Run, reports: Path) -> Path:
    from harness.report.write import write_report  # late: drawing takes a second to import

    return write_report(made, reports)


@contextmanager
def _show_progress() -> Iterator[runner.Progress]:
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


# Printing


def _print_answers(frame: Frame, answers: Sequence[Answer]) -> None:
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


def _print_outcome(frame: Frame, made: store.Run, page: Path) -> None:
    counts = frame.cells["status"].value_counts()
    told = ", ".join(f"{count} {status}" for status, count in counts.items())
    out.print(f"{len(frame.cells)} cells: {told}", markup=False)
    for kind in ("failed", "skipped"):
        reasons = frame.cells[frame.cells["status"] == kind].groupby("message", sort=False).size()
        for message, count in reasons.items():
            out.print(f"  {kind} ({count}): {message}", markup=False)
    out.print(f"Results: {made.folder / 'cells.parquet'}", markup=False)
    out.print(f"Report:  {page}", markup=False)


def _print_json(name: str, data: dict[str, Any]) -> None:
    document = {"schema": f"paretogrid.{name}/1", **data}
    sys.stdout.write(json.dumps(document, indent=2, default=str, allow_nan=False) + "\n")


def _group_json(one: Answer) -> dict[str, Any]:
    group = one.group
    parts = {
        "members": group.members, "dominated": group.dominated, "incomplete": group.incomplete,
    }  # fmt: skip
    return {"group": group.key} | {name: _rows_json(rows) for name, rows in parts.items()}


def _rows_json(rows: pd.DataFrame) -> list[dict[str, Any]]:
    columns = [metric.name for metric in METRICS if metric.name in rows]
    kept = rows[["cell_id", "model", "technique", *columns]].astype(object)
    found: list[dict[str, Any]] = kept.where(kept.notna(), None).to_dict("records")  # type: ignore[assignment]  # the columns are text
    return found


def _run_row(found: store.Run) -> dict[str, Any]:
    facts = found.facts()
    return {
        "name": found.run_id,
        "state": facts.get("state", ""),
        "cells": len(found.finished()),
        "created_at": facts.get("created_at", ""),
    }


def _print_rows(kind: Kind, rows: list[dict[str, Any]]) -> None:
    if not rows:
        out.print(f"No {kind.value}.", markup=False)
        return
    if kind in (Kind.MODELS, Kind.TECHNIQUES, Kind.DATASETS):
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
