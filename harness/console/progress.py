"""Progress: a bar on a terminal, plain lines elsewhere; and how a run ended."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from harness.console.streams import err, out
from harness.decide.frame import Frame
from harness.record import TIMED, Record
from harness.report import text
from harness.store import Run
from harness.sweep import runner


@contextmanager
def show_progress() -> Iterator[runner.Progress]:
    """Yield what the runner reports to: a bar on a terminal, plain lines elsewhere."""
    if not err.is_terminal:
        count = {"cells": 0, "done": 0}

        def note(record: Record) -> None:
            count["done"] += 1
            place = f"[{count['done']}/{count['cells']}]"
            err.print(f"{place} {_describe(record)}")

        yield runner.Progress(
            begin=lambda cells: count.update(cells=cells),
            phase=lambda text: err.print(f"  {text}"),
            done=note,
        )
        return
    columns = (
        BarColumn(), MofNCompleteColumn(), TimeRemainingColumn(),
        TextColumn("{task.description}", markup=False),
    )  # fmt: skip
    with Progress(*columns, console=err) as bar:
        task = bar.add_task("starting", total=None)

        def tell(record: Record) -> None:
            bar.advance(task)
            if record.status not in TIMED:
                bar.console.print(_describe(record))

        yield runner.Progress(
            begin=lambda cells: bar.update(task, total=cells),
            phase=lambda text: bar.update(task, description=text),
            done=tell,
        )


def _describe(record: Record) -> str:
    if record.status in TIMED:
        latency = text.format_value(record.metrics["latency_s"], "s")
        return f"{record.cell}: {latency}{' so far' * (record.status == 'partial')}"
    kind = f" ({record.failure_kind})" if record.failure_kind else ""
    return f"Cell {record.cell} {record.status}{kind}: {record.message}"


def print_outcome(frame: Frame, made: Run, page: Path) -> None:
    """Print how many cells were measured, why others were not, and where everything is."""
    counts = frame.cells["status"].value_counts()
    told = ", ".join(f"{count} {status}" for status, count in counts.items())
    out.print(f"{len(frame.cells)} cells: {told}")
    for kind in ("failed", "skipped"):
        reasons = frame.cells[frame.cells["status"] == kind].groupby("message", sort=False).size()
        for message, count in reasons.items():
            out.print(f"  {kind} ({count}): {message}")
    out.print(f"Results: {made.folder / 'cells.parquet'}")
    out.print(f"Report:  {page}")
