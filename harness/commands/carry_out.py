"""Carry out: measure what is left of a plan, write its report, and end with the exit code."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import NoReturn

import pandas as pd

from bench.cache import cache_folder
from harness.commands.decide import write_report
from harness.console.decisions import print_answers
from harness.console.events import print_event
from harness.console.outcome import print_outcome
from harness.console.progress import show_progress
from harness.console.streams import drop_undelivered, err, out
from harness.decide.answer import answer
from harness.decide.early import decide_cells
from harness.decide.noise import Noise
from harness.decide.sources import Source, load_source
from harness.errors import ExitCode, UserError
from harness.prepare.evict import LIMIT, read_limit, trim_cache
from harness.record import TIMED
from harness.store import Run
from harness.sweep import runner
from harness.sweep.interruption import Interruption
from harness.sweep.launcher import Launcher
from harness.sweep.look import Look
from harness.sweep.outcomes import Outcomes
from harness.sweep.plan import Plan
from harness.sweep.recover import find_notes
from harness.wording import counted


def carry_out(
    plan: Plan, made: Run, launcher: Launcher, reports: Path | None, how: Callable[[str], str],
    as_json: bool, interruption: Interruption, retry: Sequence[str] = (),
) -> None:  # fmt: skip
    """Measure what is left of a plan, write the report, and end with the exit code.

    Without `reports` it is left to the command `report`.
    """

    def tell(phase: str) -> None:
        if as_json:
            print_event("phase", phase=phase)
        else:
            err.print(f"  {phase}")

    if as_json:
        print_event("run", run_id=made.run_id, results=str(made.folder))
    with made.lock():
        state, failures, sweep = "finished", 0, None
        try:
            interruption.release()
            made.write_facts({**made.facts(), "state": "running"})
            with show_progress(as_json) as progress:
                known = (plan, made, launcher, progress, retry, interruption)
                sweep = runner.Sweep(*known, decide_look)
                failures = sweep.measure()
        except KeyboardInterrupt:
            state = "interrupted"
            outcomes = Outcomes(made, retry) if sweep is None else sweep.outcomes
            left = outcomes.count_left(plan)
            again = "".join(f" --retry {status}" for status in retry)
            err.print(
                f"Interrupted with {counted(left, 'cell')} left. Go on with: {how('resume')}{again}"
            )
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
    if source is not None and not as_json:
        _print_results(source, made, f"`{how('report')}` writes it" if page is None else str(page))
    statuses = pd.Series(dtype=str) if source is None else source.frame.cells["status"]
    code = _exit_code(state, statuses, failures)
    if as_json:
        counts = statuses.value_counts().to_dict()
        print_event("end", state=state, cells=counts, report=page, exit_code=int(code))
    if code == ExitCode.SOME_FAILED:
        err.print(f"What failed is measured again by: {how('resume')} --retry failed")
    if code != ExitCode.FINE:
        sys.exit(code)


def decide_look(look: Look, smallest_effect: float) -> Mapping[str, str]:
    """Return what is known of the frontier of a heat that is being timed."""
    noise = Noise(look.rounds, look.answers)
    return decide_cells(look.cells, noise, smallest_effect, left=look.left)


def _leave(how: Callable[[str], str], state: str) -> NoReturn:
    """Say that all results are kept though no report was written, and end."""
    err.print(f"{'Everything is measured' if state == 'finished' else 'What was timed is kept'}; "
              f"the report is not written. Write it with: {how('report')}")  # fmt: skip
    sys.exit(ExitCode.INTERRUPTED)


def _write_page(
    made: Run,
    reports: Path | None,
    how: Callable[[str], str],
    state: str,
    tell: Callable[[str], None],
) -> tuple[Source | None, Path | None]:
    """Write the report, if it is wanted and anything was timed; return what it is of, and it."""
    if not made.finished() and state != "finished":
        if find_notes(made):
            err.print(f"What was timed becomes results with: {how('report')}")
        return None, None
    source = load_source([made])
    if reports is None:
        return source, None
    tell("writing the report")
    return source, write_report(source, reports)


def _print_results(source: Source, made: Run, page: str) -> None:
    """Print what was found, and where it is; if that cannot be done, it costs the run nothing."""
    try:
        with suppress(BrokenPipeError, SystemExit):  # rich ends where nobody reads
            print_answers(source.frame, answer(source.frame, noise=source.noise))
            print_outcome(source.frame, made, page)
            out.file.flush()
    except UserError as mistake:
        err.print(f"{mistake} The report: {page}")
    drop_undelivered(sys.stdout)


def _exit_code(state: str, statuses: pd.Series, failures: int) -> ExitCode:
    """Return how it went; a failure may have left no row, where there was a partial one."""
    if state == "interrupted":
        return ExitCode.INTERRUPTED
    if not statuses.isin(TIMED).any():
        return ExitCode.NOTHING_MEASURED
    failed = failures or (statuses == "failed").any()
    return ExitCode.SOME_FAILED if failed else ExitCode.FINE
