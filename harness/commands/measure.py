"""Measure: run a grid, or go on with a run that was interrupted."""

from __future__ import annotations

import os
import re
import shlex
import sys
from collections.abc import Callable, Sequence
from contextlib import ExitStack, suppress
from enum import StrEnum
from functools import partial
from pathlib import Path
from typing import Annotated, Any, NoReturn

import pandas as pd
import typer

from bench.cache import cache_folder
from bench.errors import SpecError
from harness import store
from harness.commands.decide import write_report
from harness.commands.options import (
    REPORTS,
    EventsOption,
    NoWaitOption,
    ReportsOption,
    ResultsOption,
    RunArgument,
    how_to,
)
from harness.console.decisions import print_answers
from harness.console.events import print_event
from harness.console.outcome import print_outcome
from harness.console.progress import show_progress
from harness.console.streams import err
from harness.decide.answer import answer
from harness.decide.sources import Source, load_source
from harness.decide.units import SCALES
from harness.errors import ExitCode, UserError
from harness.grid import LONGEST_S, Grid
from harness.grid_file import parse_grid, read_grid
from harness.measure.machine import describe_machine, find_differences
from harness.measure.speed import CONTROL_VERSION
from harness.paths import read_path, require_writable
from harness.prepare.evict import LIMIT, read_limit, trim_cache
from harness.record import TIMED
from harness.sweep import runner
from harness.sweep.interruption import Interruption
from harness.sweep.launcher import Launcher
from harness.sweep.plan import Plan, resolve, user_files
from harness.sweep.recover import find_notes
from harness.sweep.turn import hold_machine

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
    store_folder = store.results_folder(results)
    _check_folders(store_folder, reports)
    with ExitStack() as stack:
        launcher = stack.enter_context(Launcher(wanted.measure.wait_policy))
        plan = resolve(wanted, launcher, where)
        stack.enter_context(
            hold_machine(plan.grid.used_devices(), launcher, err.print, wait=not no_wait)
        )
        facts = {
            "plan": plan.to_json(),
            "machine": describe_machine(),
            "control_version": CONTROL_VERSION,
            "command": shlex.join(["paretogrid", *sys.argv[1:]]),
            "cwd": str(Path.cwd()),
            "exclusions": [{"rule": r, "cells": n} for r, n in plan.grid.exclusions()],
        }
        interruption = Interruption(err.print)
        stack.enter_context(interruption.heard())
        interruption.hold()
        made = store.Run.create(store_folder, name, facts)
        how = partial(how_to, made=made, results=results, reports=reports)
        _sweep(plan, made, launcher, reports, how, as_json, interruption)


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
) -> None:
    """Measure what an interrupted run has left, and what failed or was skipped, if asked."""
    found = store.open_run(store.results_folder(results), run_id)
    facts = found.facts()
    if "plan" not in facts:
        raise UserError(f"The run {found.run_id} was imported; there is nothing to resume.")
    plan = Plan.from_json(facts["plan"])
    if not mixed:
        _require_same_machine(facts.get("machine", {}))
    how = partial(how_to, made=found, results=results, reports=reports)
    folder = reports.resolve()
    found = store.Run(found.folder.resolve())
    _check_folders(found.folder, folder)
    _return_to(Path(facts["cwd"]), plan.grid)
    with (
        Launcher(plan.grid.measure.wait_policy) as launcher,
        hold_machine(plan.grid.used_devices(), launcher, err.print, wait=not no_wait),
    ):
        interruption = Interruption(err.print)
        with interruption.heard():
            _sweep(plan, found, launcher, folder, how, as_json, interruption, tuple(retry or ()))


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

    Where that folder is gone (the project was moved), the present one takes its place if the
    grid's files are there; UserError otherwise.
    """
    if folder.is_dir():
        os.chdir(folder)
        return
    missing = [file for file in user_files(grid) if not read_path(file).is_file()]
    if missing:
        raise UserError(
            f"The run began in {folder}, which is gone, and {missing[0]} is not here. Resume in "
            "the folder where its files are now."
        )
    err.print(f"The run began in {folder}, which is gone; it goes on here, in {Path.cwd()}.")


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


def _sweep(
    plan: Plan, made: store.Run, launcher: Launcher, reports: Path, how: Callable[[str], str],
    as_json: bool, interruption: Interruption, retry: Sequence[Retried] = (),
) -> None:  # fmt: skip
    """Measure what is left of a plan, write the report, and end with the exit code."""

    def tell(phase: str) -> None:
        if as_json:
            print_event("phase", phase=phase)
        else:
            err.print(f"  {phase}")

    if as_json:
        print_event("run", run_id=made.run_id, results=str(made.folder))
    with made.lock():
        state, failures = "finished", 0
        try:
            interruption.release()
            made.write_facts({**made.facts(), "state": "running"})
            with show_progress(as_json) as progress:
                sweep = runner.Sweep(plan, made, launcher, progress, retry, interruption)
                failures = sweep.measure()
        except KeyboardInterrupt:
            state = "interrupted"
            err.print(f"Interrupted. Go on with: {how('resume')}")
        made.write_facts({**made.facts(), "state": state})
        try:
            tell("joining what was measured")
            made.compact()
        except KeyboardInterrupt:
            _leave(how, state)
    freed = trim_cache(cache_folder(), read_limit())
    if freed:
        err.print(f"The cache was full: {freed / 1e9:.1f} GB that were used longest ago are gone "
                  f"({LIMIT} sets its size).")  # fmt: skip
    try:
        source, page = _write_page(made, reports, how, state, tell)
    except KeyboardInterrupt:
        _leave(how, state)
    if source is not None and page is not None and not as_json:
        with suppress(OSError, SystemExit):  # as rich ends where nobody reads
            print_answers(source.frame, answer(source.frame, noise=source.noise))
            print_outcome(source.frame, made, page)
    statuses = pd.Series(dtype=str) if source is None else source.frame.cells["status"]
    code = _exit_code(state, statuses, failures)
    if as_json:
        counts = statuses.value_counts().to_dict()
        print_event("end", state=state, cells=counts, report=page, exit_code=int(code))
    if code == ExitCode.SOME_FAILED:
        err.print(f"What failed is measured again by: {how('resume')} --retry failed")
    if code != ExitCode.FINE:
        sys.exit(code)


def _leave(how: Callable[[str], str], state: str) -> NoReturn:
    """Say that all results are kept though no report was written, and end."""
    err.print(f"{'Everything is measured' if state == 'finished' else 'What was timed is kept'}; "
              f"the report is not written. Write it with: {how('report')}")  # fmt: skip
    sys.exit(ExitCode.INTERRUPTED)


def _write_page(
    made: store.Run,
    reports: Path,
    how: Callable[[str], str],
    state: str,
    tell: Callable[[str], None],
) -> tuple[Source | None, Path | None]:
    """Write the report, unless nothing was timed; return what it is of and where it is."""
    if not made.finished() and state != "finished":
        if find_notes(made):
            err.print(f"What was timed becomes results with: {how('report')}")
        return None, None
    tell("writing the report")
    source = load_source([made])
    return source, write_report(source, reports)


def _exit_code(state: str, statuses: pd.Series, failures: int) -> ExitCode:
    """Return how it went; a failure may have left no row, where there was a partial one."""
    if state == "interrupted":
        return ExitCode.INTERRUPTED
    if not statuses.isin(TIMED).any():
        return ExitCode.NOTHING_MEASURED
    failed = failures or (statuses == "failed").any()
    return ExitCode.SOME_FAILED if failed else ExitCode.FINE
