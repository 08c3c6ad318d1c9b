"""Live: on a terminal, a bar for the run and a table of the cells that are being timed.

Drawn when the runner has something to tell, and by no thread of its own: while a cell is timed,
nothing here takes a processor.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

from rich.console import Group, RenderableType
from rich.live import Live
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.progress import Progress as Bar
from rich.table import Table
from rich.text import Text

from harness.console.streams import err
from harness.record import TIMED, Record
from harness.report import text
from harness.sweep.progress import Progress
from harness.sweep.standing import Standing

BESIDE = 6
"""Lines of a terminal that the table leaves for bar, headings and prompt."""


@contextmanager
def show_live(describe: Callable[[Record], str]) -> Iterator[Progress]:
    """Yield what the runner reports to; `describe` says how a cell ended that was not timed."""
    columns = (
        BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(), TimeRemainingColumn(),
        TextColumn("{task.description}", markup=False),
    )  # fmt: skip
    bar = Bar(*columns, console=err, auto_refresh=False)
    task = bar.add_task("starting", total=None)
    with Live(bar, console=err, auto_refresh=False, transient=True) as live:

        def draw(*below: RenderableType) -> None:
            live.update(Group(bar, *below), refresh=True)

        def begin(cells: int) -> None:
            bar.update(task, total=cells)
            draw()

        def change(phase: str) -> None:
            bar.update(task, description=phase)
            draw()

        def stand(_heat: str, standings: Sequence[Standing]) -> None:
            draw(standings_table(standings, err.height - BESIDE))

        def end(record: Record) -> None:
            bar.advance(task)
            if record.status not in TIMED:
                live.console.print(describe(record))
            draw()

        yield Progress(begin, change, stand, end)


def standings_table(standings: Sequence[Standing], most: int) -> Table:
    """Return a table with a row for each cell of a heat, at most so many."""
    table = Table(box=None, header_style="bold")
    table.add_column("cell", overflow="fold")
    for heading in ("latency", "±", "expected", "faster", "rounds"):
        table.add_column(heading, justify="right")
    table.add_column("standing", overflow="fold")
    several = len({one.cell.model for one in standings}) > 1
    shown = standings if len(standings) <= max(1, most) else standings[: max(1, most - 1)]
    for one in shown:
        name = f"{one.cell.model} · {one.cell.technique}" if several else one.cell.technique
        ratio = one.ratio
        faster = text.format_speedup(ratio.value, ratio.low, ratio.high)
        table.add_row(
            Text(name),
            text.format_value(one.latency.value, "s"),
            text.format_width(one.latency.relative_half_width),
            "" if one.stopped_by else text.format_width(one.expected),
            faster if ratio.value > 0 else "",
            text.format_count(one.rounds),
            Text(describe_standing(one)),
        )
    if len(shown) < len(standings):
        table.add_row(f"and {len(standings) - len(shown)} more")
    return table


def describe_standing(one: Standing) -> str:
    """Return in words how a cell compares so far, and whether it is still timed."""
    if one.problem:
        return f"failed: {one.problem}"
    words = {"decision": "its place is known", "interval": "precise enough",
             "budget": "its time is spent"}  # fmt: skip
    ended = words.get(one.stopped_by, "")
    return ", ".join(filter(None, (one.verdict, ended)))
