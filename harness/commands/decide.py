"""Decide: frontiers, recommendations, reports and questions, from what is in the store."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from harness.commands.options import (
    FILE,
    REPORTS,
    JsonOption,
    ReportsOption,
    ResultsOption,
    RunsArgument,
    how_to,
    name_run,
)
from harness.console.decisions import (
    answer_json,
    print_answers,
    print_recommendations,
    recommendation_json,
)
from harness.console.streams import err, out, print_json, print_rows
from harness.decide.answer import answer
from harness.decide.condition import read_condition
from harness.decide.frame import GROUP, Frame
from harness.decide.frontier import Objective, find_objective
from harness.decide.recommend import recommend as choose
from harness.decide.sources import Source, load_source
from harness.errors import ExitCode, UserError
from harness.runs import open_run, results_folder
from harness.sweep.recover import recover
from harness.wording import counted


def _note_order(context: typer.Context, parameter: typer.CallbackParam, names: Any) -> Any:
    """Remember which of the options came first; they are handled in the order they were given."""
    if names:
        context.meta.setdefault("objectives", []).extend(
            (name, "lower" if parameter.name == "minimize" else "higher") for name in names
        )
    return names


ObjectiveOption = Annotated[
    list[str] | None, typer.Option(help="A metric; the first counts most.", callback=_note_order)
]
WhereOption = Annotated[
    list[str] | None, typer.Option(help="A condition, as in: latency_s < 5ms and params < 1M.")
]
PricesOption = Annotated[
    Path | None,
    typer.Option(help="A price table (TOML): adds the metric cost_per_million.", **FILE),
]
AcrossOption = Annotated[
    bool, typer.Option("--across", help="All devices, threads and batches of a task together.")
]


def frontier(
    context: typer.Context,
    runs: RunsArgument = None,
    minimize: ObjectiveOption = None,
    maximize: ObjectiveOption = None,
    across: AcrossOption = False,
    prices: PricesOption = None,
    results: ResultsOption = None,
    as_json: JsonOption = False,
) -> None:
    """Print the variants that no other beats, for each task, device, threads and batch."""
    source = _open(runs, results, prices)
    frame = source.frame
    answers = answer(frame, _objectives(context, frame) or None, source.noise, _grouping(across))
    if as_json:
        groups = [answer_json(one) for one in answers]
        print_json("frontier", {"run_id": frame.run_id, "groups": groups})
    else:
        print_answers(frame, answers)


def recommend(
    context: typer.Context,
    runs: RunsArgument = None,
    where: WhereOption = None,
    minimize: ObjectiveOption = None,
    maximize: ObjectiveOption = None,
    across: AcrossOption = False,
    prices: PricesOption = None,
    results: ResultsOption = None,
    as_json: JsonOption = False,
) -> None:
    """Say which variant to take under conditions, what they cost, and how sure that is."""
    source = _open(runs, results, prices)
    frame = source.frame
    objectives = _objectives(context, frame)
    if not objectives:
        raise UserError("Say what is to be best: --maximize accuracy, or --minimize latency_s.")
    conditions = [read_condition(text, frame) for text in where or ()]
    picks = choose(frame, conditions, objectives, source.noise, _grouping(across))
    if not picks:
        raise UserError(f"No measured cell of {frame.run_id} is where the conditions ask for one.")
    if as_json:
        groups = [recommendation_json(one, objectives) for one in picks]
        print_json("recommend", {"run_id": frame.run_id, "groups": groups})
    else:
        print_recommendations(frame, picks, objectives)
    if all(one.pick is None for one in picks):
        raise typer.Exit(ExitCode.NOTHING_MEASURED)


def report(
    runs: RunsArgument = None,
    prices: PricesOption = None,
    results: ResultsOption = None,
    reports: ReportsOption = REPORTS,
) -> None:
    """Write a run's report again; of several runs, one report of all their machines."""
    out.print(str(write_report(_open(runs, results, prices, reports), reports)))


def query(
    sql: Annotated[str, typer.Argument(help="A SELECT over cells, samples and runs.")],
    results: ResultsOption = None,
    as_json: JsonOption = False,
) -> None:
    """Ask the whole store in SQL; it is only read."""
    from harness.query import query as ask  # late: duckdb takes long to import

    rows = ask(results_folder(results), sql)
    kept = rows.astype(object).where(rows.notna(), None).to_dict("records")
    found = [{str(name): value for name, value in row.items()} for row in kept]
    if as_json:
        print_json("query", {"columns": [str(name) for name in rows.columns], "rows": found})
    else:
        print_rows("rows", found)


def write_report(source: Source, reports: Path) -> Path:
    """Write a report and return its page."""
    from harness.report.write import write_report as write  # late: drawing takes a second to import

    return write(source, reports)


def _open(
    names: list[str] | None, results: str | None, prices: Path | None, reports: Path = REPORTS
) -> Source:
    root = results_folder(results)
    wanted: list[str | None] = [*names] if names else [None]
    runs = [open_run(root, name) for name in wanted]
    for run in runs:
        try:
            found = recover(run)
        except UserError as mistake:  # what was there before can be shown
            err.print(f"What {run.run_id} had timed when it was killed is left out: {mistake}")
            continue
        if found:
            how = how_to("resume", name_run(run, results), results, reports)
            err.print(
                f"{run.run_id} was ended while cells were timed: {counted(found, 'cell')} with "
                f"results of what was timed until then. `{how}` goes on."
            )
    return load_source(runs, prices)


def _objectives(context: typer.Context, frame: Frame) -> list[Objective]:
    """Return the objectives that were asked for, in their order."""
    return [find_objective(frame, *one) for one in context.meta.get("objectives", ())]


def _grouping(across: bool) -> tuple[str, ...]:
    return ("task",) if across else GROUP
