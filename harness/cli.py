"""The command: arguments, exit codes, printing; nothing else."""

from __future__ import annotations

import os
import shlex
import sys
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer

from harness import store
from harness.console import (
    err,
    group_json,
    out,
    print_answers,
    print_examination,
    print_json,
    print_layers,
    print_outcome,
    print_rows,
    show_progress,
)
from harness.decide.answer import answer
from harness.decide.frame import load_frame
from harness.decide.frontier import choose_objectives
from harness.errors import ExitCode, UserError, WorkerFailure
from harness.grid import BASELINE, Grid
from harness.grid_file import built_in_grids, parse_grid, read_grid
from harness.measure.machine import describe_machine
from harness.measure.speed import CONTROL_VERSION
from harness.record import METRICS
from harness.sweep import runner
from harness.sweep.doctor import examine
from harness.sweep.launcher import Launcher
from harness.sweep.plan import Plan, resolve
from harness.sweep.variants import list_variant

app = typer.Typer(
    help="Benchmarks of smaller and faster models, with numbers that hold on a noisy machine.",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
)
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
            "control_version": CONTROL_VERSION,
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
            mistake = failure.message.strip()
            wrong = mistake if failure.kind == "usage" else f"Cannot list {kind.value}: {mistake}"
            raise UserError(wrong) from None
        rows = [entry for entry in catalog if f"{entry['kind']}s" == kind.value]
    if as_json:
        print_json("list", {"kind": kind.value, "rows": rows})
    else:
        print_rows(kind.value, rows)


@app.command()
def inspect(
    model: Annotated[str, typer.Argument(help="A model, or file.py:function.")],
    technique: Annotated[str, typer.Option(help="A technique or a + b.")] = BASELINE,
    seed: Annotated[int, typer.Option(help="Seed of training.")] = 0,
    plugin: Annotated[list[str] | None, typer.Option(help="A Python file to load.")] = None,
    as_json: JsonOption = False,
) -> None:
    """Print the layers of a model, prepared as a run would: shapes, parameters, bytes, bits."""
    axes = {"models": [model], "techniques": [technique], "seeds": [seed], "plugins": plugin or []}
    wanted = parse_grid({"grid": axes}, "the command line")
    with Launcher() as launcher:
        layers = list_variant(resolve(wanted, launcher, "the command line"), launcher)
    if as_json:
        rows = [layer.to_json() for layer in layers]
        print_json("inspect", {"model": model, "technique": technique, "layers": rows})
    else:
        print_layers(layers)


@app.command()
def doctor(
    threads: Annotated[list[int] | None, typer.Option(help="Threads to try; 1 and all.")] = None,
    as_json: JsonOption = False,
) -> None:
    """Say what this machine can measure right now, and what to mend."""
    processors = len(os.sched_getaffinity(0))
    counts = sorted(set(threads or (1, processors)))
    if counts[0] < 1:
        raise UserError(f"--threads must be 1 or more, got {counts[0]}.")
    with Launcher() as launcher:
        found = examine(launcher, counts, lambda text: err.print(f"  {text}", markup=False))
    if as_json:
        print_json("doctor", found.to_json())
    else:
        print_examination(found)


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
    asked = minimize or maximize
    objectives = choose_objectives(frame, minimize or (), maximize or ()) if asked else None
    answers = answer(frame, objectives)
    if as_json:
        groups = [group_json(one) for one in answers]
        print_json("frontier", {"run_id": frame.run_id, "groups": groups})
    else:
        print_answers(frame, answers)


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


def _read_wanted(name: str | None, options: dict[str, dict[str, Any]]) -> tuple[Grid, str, str]:
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
    wanted = parse_grid(data, "the command line")  # the file alone was right
    return wanted, name, Path(name).stem


def _sweep(plan: Plan, made: store.Run, launcher: Launcher, reports: Path) -> None:
    """Measure what is left of a plan, write the report, and end with the exit code."""
    with made.lock():
        made.write_facts({**made.facts(), "state": "running"})
        try:
            with show_progress() as progress:
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
    print_answers(frame, answer(frame))
    print_outcome(frame, made, page)
    statuses = frame.cells["status"]
    if not (statuses == "measured").any():
        sys.exit(ExitCode.NOTHING_MEASURED)
    if (statuses == "failed").any():
        sys.exit(ExitCode.SOME_FAILED)


def _write_report(made: store.Run, reports: Path) -> Path:
    from harness.report.write import write_report  # late: drawing takes a second to import

    return write_report(made, reports)


def _run_row(found: store.Run) -> dict[str, Any]:
    facts = found.facts()
    return {
        "name": found.run_id,
        "state": facts.get("state", ""),
        "cells": len(found.finished()),
        "created_at": facts.get("created_at", ""),
    }
