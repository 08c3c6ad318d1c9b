"""Measure: run a grid, or go on with a run that was interrupted."""

from __future__ import annotations

import os
import re
import shlex
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from enum import StrEnum
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import typer

from bench.cache import cache_folder
from bench.errors import SpecError
from harness.commands.carry_out import carry_out
from harness.commands.options import (
    REPORTS,
    EventsOption,
    NoWaitOption,
    ReportOption,
    ReportsOption,
    ResultsOption,
    RunArgument,
    how_to,
    name_run,
)
from harness.console.streams import err
from harness.decide.units import SCALES
from harness.errors import UserError
from harness.grid import LONGEST_S, Grid
from harness.grid_file import parse_grid, read_grid
from harness.measure.machine import describe_machine, find_differences
from harness.measure.speed import CONTROL_VERSION
from harness.paths import is_there, read_path, require_writable
from harness.prepare.evict import read_limit
from harness.runs import open_run, results_folder
from harness.stats import prepare_tests
from harness.store import Run
from harness.sweep.interruption import Interruption
from harness.sweep.launcher import Launcher
from harness.sweep.plan import Plan, resolve, user_files
from harness.sweep.recover import recover
from harness.sweep.turn import hold_machine

OPTIONS = {"models": "--model", "techniques": "--technique", "devices": "--device",
           "threads": "--threads", "batch": "--batch", "seeds": "--seed",
           "plugins": "--plugin"}  # fmt: skip
"""What replaces an axis of a grid file."""
TIME_UNITS = SCALES["s"] | {"m": 60}


class Retried(StrEnum):
    """Statuses of rows that may be had again."""

    FAILED = "failed"
    SKIPPED = "skipped"


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
    whole_time: Annotated[
        str | None,
        typer.Option("--time", metavar="TIME", help="For the whole grid: 90s, 10m, 1.5h."),
    ] = None,
    no_wait: NoWaitOption = False,
    as_json: EventsOption = False,
    results: ResultsOption = None,
    reports: ReportsOption = REPORTS,
    report: ReportOption = True,
) -> None:
    """Measure a grid and write its report. Options replace what the grid says."""
    axes = {
        "models": model, "techniques": technique, "devices": device, "threads": threads,
        "batch": batch, "seeds": seed, "plugins": plugin,
    }  # fmt: skip
    budget = {
        "max_seconds_per_cell": max_seconds_per_cell,
        "max_seconds": None if whole_time is None else read_time_s(whole_time),
    }
    wanted, where, name = _read_wanted(grid, {"grid": axes, "budget": budget})
    store_folder = results_folder(results)
    _check_folders(store_folder, reports)
    with _start_launcher(wanted) as launcher:
        plan = resolve(wanted, launcher, where)
        with _take_machine(plan.grid, launcher, no_wait) as interruption:
            facts = {
                "plan": plan.to_json(),
                "machine": describe_machine(),
                "control_version": CONTROL_VERSION,
                "command": shlex.join(["paretogrid", *sys.argv[1:]]),
                "cwd": str(Path.cwd()),
                "exclusions": [{"rule": r, "cells": n} for r, n in plan.grid.exclusions()],
            }
            interruption.hold()
            made = Run.create(store_folder, name, facts)
            how = partial(how_to, run=made.run_id, results=results, reports=reports)
            carry_out(plan, made, launcher, reports if report else None, how, as_json, interruption)


def read_time_s(text: str) -> float:
    """Return the seconds of "90s", "10m", "1.5h" or "90"; raise UserError for anything else."""
    found = re.fullmatch(r"(\d+(?:\.\d+)?|\.\d+) ?(s|m|min|h)?", text.strip())
    seconds = 0.0 if found is None else float(found[1]) * TIME_UNITS[found[2] or "s"]
    if not 0 < seconds <= LONGEST_S:
        raise UserError(f"--time: {text!r} is no time. Write 90s, 10m or 1.5h.")
    return seconds


def resume(
    run_id: RunArgument = None,
    retry: Annotated[
        list[Retried] | None, typer.Option(help="Measure these again: failed, skipped.")
    ] = None,
    mixed: Annotated[
        bool, typer.Option("--mixed", help="Also on another machine than it began on.")
    ] = False,
    no_wait: NoWaitOption = False,
    as_json: EventsOption = False,
    results: ResultsOption = None,
    reports: ReportsOption = REPORTS,
    report: ReportOption = True,
) -> None:
    """Measure what an interrupted run has left, and what failed or was skipped, if asked."""
    found = open_run(results_folder(results), run_id)
    facts = found.facts()
    if "plan" not in facts:
        raise UserError(f"The run {found.run_id} was imported; there is nothing to resume.")
    plan = Plan.from_json(facts["plan"])
    if not mixed:
        _require_same_machine(facts.get("machine", {}))
    named = name_run(found, results)
    how = partial(how_to, run=named, results=results, reports=reports, mixed=mixed)
    folder = reports.resolve()
    found = Run(found.folder.resolve())
    _check_folders(found.folder, folder)
    _return_to(Path(facts["cwd"]), plan.grid)
    recover(found)  # what a killed run had timed is a cell's result until there is a better one
    with (
        _start_launcher(plan.grid) as launcher,
        _take_machine(plan.grid, launcher, no_wait) as interruption,
    ):
        page = folder if report else None
        carry_out(plan, found, launcher, page, how, as_json, interruption, tuple(retry or ()))


@contextmanager
def _start_launcher(grid: Grid) -> Iterator[Launcher]:
    with Launcher(grid.measure.wait_policy) as launcher:
        prepare_tests()  # while the server starts; an import that is interrupted cannot be repeated
        yield launcher


@contextmanager
def _take_machine(grid: Grid, launcher: Launcher, no_wait: bool) -> Iterator[Interruption]:
    """Hold what the grid needs of this machine, and hear signals as long as it is held."""
    with hold_machine(grid.used_devices(), launcher, err.print, wait=not no_wait):
        interruption = Interruption(err.print)
        with interruption.heard():
            yield interruption


def _require_same_machine(known: dict[str, Any]) -> None:
    """Raise UserError where this is not the machine that a run began on."""
    differences = find_differences(known, describe_machine())
    if known and differences:
        raise UserError(
            f"The run began on another machine: {'; '.join(differences)}. Its other cells would "
            "not compare with those measured here. Begin a new run, or resume with --mixed."
        )


def _check_folders(results: Path, reports: Path) -> None:
    """Raise UserError before anything is measured where something could not be kept."""
    try:
        cache = cache_folder()
    except SpecError as error:
        raise UserError(str(error)) from None
    read_limit()  # a mistake in it is told before anything is measured
    remedy = "Name another folder in the environment variable PARETOGRID_CACHE."
    require_writable(cache, "prepared variants", remedy)
    require_writable(results, "results", "Name another folder with --results.")
    require_writable(reports, "reports", "Name another folder with --reports.")


def _return_to(folder: Path, grid: Grid) -> None:
    """Go to where a run began: the grid's own paths are relative to it.

    Where that folder is gone (the project was moved) or another user's, the present one takes its
    place if the grid's files are there; UserError otherwise.
    """
    if is_there(folder, Path.is_dir) and os.access(folder, os.X_OK):
        if not folder.samefile("."):
            err.print(f"It goes on in {folder}, where it began.")
        os.chdir(folder)
        return
    gone = "which is gone" if _is_gone(folder) else "which cannot be entered"
    missing = [file for file in user_files(grid) if not is_there(read_path(file), Path.is_file)]
    if missing:
        raise UserError(
            f"The run began in {folder}, {gone}, and {missing[0]} is not here. Resume in the "
            "folder where its files are now."
        )
    err.print(f"The run began in {folder}, {gone}; it goes on here, in {Path.cwd()}.")


def _is_gone(folder: Path) -> bool:
    try:
        folder.stat()
    except (FileNotFoundError, NotADirectoryError):
        return True
    except OSError:
        pass
    return False


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
    changed = [OPTIONS[axis] for axis in given["grid"]]
    where = f"{name}, changed by {' and '.join(changed)}" if changed else name
    return wanted, where, Path(name).stem
