"""Look: what there is, what a model is made of, what this machine can do."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer

from harness.commands.options import JsonOption, NoWaitOption, ResultsOption
from harness.console.machine import describe_entry, print_examination, print_layers
from harness.console.streams import err, print_json, print_rows
from harness.errors import UserError, WorkerFailure
from harness.grid import BASELINE
from harness.grid_file import built_in_grids, parse_grid
from harness.measure.processor import usable_processors
from harness.record import METRICS
from harness.runs import list_runs, open_run, results_folder
from harness.store import Run
from harness.sweep.doctor import examine
from harness.sweep.launcher import Launcher
from harness.sweep.plan import resolve
from harness.sweep.turn import hold_machine
from harness.sweep.variants import list_variant


class Kind(StrEnum):
    """What can be listed."""

    MODELS = "models"
    TECHNIQUES = "techniques"
    DATASETS = "datasets"
    GRIDS = "grids"
    METRICS = "metrics"
    RUNS = "runs"


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
        folder = results_folder(results)
        names = list_runs(folder)
        rows = [_run_row(open_run(folder, name)) for name in names]
    else:
        try:
            with Launcher() as launcher, launcher.worker() as worker:
                worker.call("bring_in", 300, folders=[str(Path.cwd())], plugins=[], files=[])
                catalog = worker.call("catalog", 300, plugins=plugin or [])
        except WorkerFailure as failure:  # a plugin that crashes or exits
            mistake = failure.message.strip()
            wrong = mistake if failure.kind == "usage" else f"Cannot list {kind.value}: {mistake}"
            raise UserError(wrong) from None
        rows = [entry for entry in catalog if f"{entry['kind']}s" == kind.value]
    if as_json:
        print_json("list", {"kind": kind.value, "rows": rows})
    else:
        registered = kind in (Kind.MODELS, Kind.TECHNIQUES, Kind.DATASETS)
        print_rows(kind.value, [describe_entry(row) for row in rows] if registered else rows)


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


def doctor(
    threads: Annotated[list[int] | None, typer.Option(help="Threads to try; 1 and all.")] = None,
    no_wait: NoWaitOption = False,
    as_json: JsonOption = False,
) -> None:
    """Say what this machine can measure right now, and what to mend."""
    processors = max(1, int(usable_processors()))
    counts = sorted(set(threads or (1, processors)))
    if counts[0] < 1:
        raise UserError(f"--threads must be 1 or more, got {counts[0]}.")
    with (
        Launcher() as launcher,
        hold_machine(("cpu", "cuda"), launcher, err.print, wait=not no_wait),
    ):
        found = examine(launcher, counts, lambda text: err.print(f"  {text}"))
    if as_json:
        print_json("doctor", found.to_json())
    else:
        print_examination(found)


def _run_row(found: Run) -> dict[str, Any]:
    facts = found.facts()
    return {
        "name": found.run_id,
        "state": found.state(),
        "cells": len(found.finished()),
        "created_at": facts.get("created_at", ""),
    }
