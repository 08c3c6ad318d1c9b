"""The plan: names resolved by a worker, the order of the cells, and who shares a heat."""

from __future__ import annotations

import hashlib
import itertools
import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from bench import registry
from bench.spec import find_files, split_pipeline
from harness.errors import UserError, WorkerFailure
from harness.grid import BASELINE, TRAINING, Cell, Grid, is_pattern
from harness.grid_file import check_exclusions
from harness.paths import read_path
from harness.sweep.imports import Imports
from harness.sweep.launcher import Launcher
from harness.sweep.remote import Worker

RESOLVE_TIMEOUT_S = 600.0


@dataclass(frozen=True)
class Technique:
    """What is known of a pipeline before it is applied.

    spelled: its text with first parameters written where they are left out.
    """

    devices: tuple[str, ...]
    realization: str
    recipes: int
    spelled: str = ""


@dataclass(frozen=True)
class Plan:
    """A grid whose names all exist, in canonical form, and the facts of its techniques.

    `tasks` names each model's data; a model without any is a task of its own. `refusals` says by
    model and technique what will not be prepared, and why.
    """

    grid: Grid
    techniques: dict[str, Technique]
    tasks: dict[str, str] = field(default_factory=dict)
    refusals: dict[str, dict[str, str]] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        """Return the plan as plain data."""
        techniques = {name: vars(technique) for name, technique in self.techniques.items()}
        grid = self.grid.model_dump(mode="json")
        return {"grid": grid, "techniques": techniques, "tasks": self.tasks,
                "refusals": self.refusals}  # fmt: skip

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> Plan:
        """Return the plan that `to_json` gave."""
        techniques = {name: _technique(facts) for name, facts in data["techniques"].items()}
        grid = Grid.model_validate(data["grid"])
        return cls(grid, techniques, data.get("tasks", {}), data.get("refusals", {}))


@dataclass(frozen=True)
class Lineup:
    """Cells of a task to be timed together: those that a frontier compares.

    `references` are their baselines that have their results already.
    """

    task: str
    cells: tuple[Cell, ...]
    references: tuple[Cell, ...] = ()

    @property
    def place(self) -> str:
        """What the cells share: task, device, seed, threads, batch."""
        _, *shared = self.cells[0].place
        return "/".join([self.task, *map(str, shared)])


def heat_name(place: str, used: Collection[str]) -> str:
    """Return a name for the next heat at a place: no two heats have the same rounds."""
    names = (place if number == 1 else f"{place}/heat-{number}" for number in itertools.count(1))
    return next(name for name in names if name not in used)


def shuffle_seed(run_id: str, heat: str) -> int:
    """Return the seed of a heat's order: a hash of run and heat, so it can be had again."""
    return int.from_bytes(hashlib.sha256(f"{run_id} {heat}".encode()).digest()[:4], "big")


def resolve(grid: Grid, launcher: Launcher, where: str) -> Plan:
    """Return the plan of a grid; raise UserError for a name or parameter that does not exist."""
    axes = grid.grid
    plugins = list(axes.plugins)
    with launcher.worker() as worker:
        if has_built_ins(grid):
            launcher.preload_training()  # the server does that while its worker answers
        worker.call("bring_in", RESOLVE_TIMEOUT_S, folders=[str(Path.cwd())], plugins=[], files=[])
        for number, file in enumerate(plugins):  # before all else: their mistakes are theirs
            place = f"plugins[{number}]"
            _call(worker, "resolve_technique", where, place, text=BASELINE, plugins=[file])

        def ask(kind: str, text: str, place: str, **more: Any) -> dict[str, Any]:
            operation = f"resolve_{kind}"
            facts: dict[str, Any] = _call(
                worker, operation, where, place, text=text, plugins=plugins, **more
            )
            return facts

        found = {
            text: ask("technique", text, f"techniques[{number}]")
            for number, text in enumerate(axes.techniques)
        }
        found[BASELINE] = ask("technique", BASELINE, "techniques")
        names = [found[text]["text"] for text in axes.techniques]
        models = {
            text: ask("model", text, f"models[{number}]", techniques=names)
            for number, text in enumerate(axes.models)
        }
        _check_models({text: facts["wrong"] for text, facts in models.items()}, where)
        rules = [rule.rule() for rule in grid.exclude]
        for number, rule in enumerate(rules):
            for kind in ("model", "technique"):
                if kind in rule and not is_pattern(rule[kind]):
                    asked = ask(kind, str(rule[kind]), f"exclude[{number}].{kind}")
                    rule[kind] = asked["text"]
    data = grid.model_dump(mode="json")
    tasks = {facts["text"]: facts["task"] for facts in models.values()}
    data["grid"]["models"] = list(dict.fromkeys(models[text]["text"] for text in axes.models))
    data["grid"]["techniques"] = list(dict.fromkeys([BASELINE, *names]))
    data["exclude"] = rules
    techniques = {facts["text"]: _technique(facts) for facts in found.values()}
    resolved = Grid.model_validate(data)
    check_exclusions(resolved, where)
    if grid.task == TRAINING:
        _check_recipes(names, techniques, where)
    right = [facts["mistakes"] for facts in models.values() if not facts["wrong"]]
    _check_mistakes(names, right, where)
    refusals = {facts["text"]: facts["refusals"] | facts["mistakes"] for facts in models.values()}
    return Plan(resolved, techniques, tasks, refusals)


def _technique(facts: dict[str, Any]) -> Technique:
    spelled = facts.get("spelled", "")  # plans of earlier versions have none
    return Technique(tuple(facts["devices"]), facts["realization"], facts["recipes"], spelled)


def _check_recipes(names: Sequence[str], techniques: dict[str, Technique], where: str) -> None:
    """Raise UserError for a technique that is more than a recipe where training is measured."""
    for number, name in enumerate(names):
        steps = split_pipeline(name)
        if name != BASELINE and techniques[name].recipes < len(steps):
            step = steps[techniques[name].recipes]
            raise UserError(
                f"techniques[{number}] in {where}: {step} changes a trained model, and "
                'task = "training" measures how models are trained. Name recipes, such as '
                "optimizer('sgd'), or leave the task out."
            )


def _check_models(wrong: Mapping[str, str], where: str) -> None:
    """Raise UserError where no model is one; beside others, one that is none has failed cells."""
    if all(wrong.values()):
        text, why = next(iter(wrong.items()))
        why = why if text in why else f"{text}: {why}"
        raise UserError(_with_place(why, where, "models[0]"))


def _check_mistakes(
    techniques: Sequence[str], mistakes: Sequence[dict[str, str]], where: str
) -> None:
    """Raise UserError for a technique that is a mistake for every model; for one it is skipped."""
    for number, technique in enumerate(techniques):
        if all(technique in found for found in mistakes):
            why = mistakes[0][technique]
            raise UserError(_with_place(why, where, f"techniques[{number}]"))


def _call(worker: Worker, operation: str, where: str, place: str, **arguments: Any) -> Any:
    """Ask the worker; a mistake, or an end of the worker, becomes a message with its place."""
    try:
        return worker.call(operation, RESOLVE_TIMEOUT_S, **arguments)
    except WorkerFailure as failure:
        if failure.kind == "usage":
            raise UserError(_with_place(failure.message, where, place)) from None
        ended = f"it ended its worker ({failure.kind})"
        why = failure.message if failure.kind == "exception" else ended
        raise UserError(
            f"{place} in {where} cannot be loaded: {why}. Import the file in Python to see more."
        ) from None


def _with_place(message: str, where: str, place: str) -> str:
    """Return "Unknown model 'x' in mine.toml (models[0]). ..." or "models[0] in mine.toml: ..."."""
    message = " ".join(message.split())  # a user's exception may have many lines
    unknown = re.match(r"Unknown \w+ '[^']*'(?=\.)", message)
    if unknown:
        return f"{unknown[0]} in {where} ({place}){message[unknown.end() :]}"
    return f"{place} in {where}: {message}{'' if message[-1] in '.?!' else '.'}"


def imports_of(grid: Grid, cell: Cell) -> Imports:
    """Return what is imported in a cell's workers: plugins, and files that its names are in.

    No other model's file: what that sets or patches when it is imported is not this cell's.
    """
    steps = () if cell.technique == BASELINE else split_pipeline(cell.technique)
    files = [file for text in (cell.model, *steps) for file in find_files(text)]
    plugins = grid.grid.plugins
    parents = (str(read_path(file).resolve().parent) for file in (*files, *plugins))
    folders = dict.fromkeys((*parents, str(Path.cwd())))
    installed = registry.list_installed()
    return Imports(tuple(folders), plugins, tuple(dict.fromkeys(files)), installed)


def has_built_ins(grid: Grid) -> bool:
    """Tell whether a model is from no file: those that are built in are trained."""
    return not all(map(find_files, grid.grid.models))


def user_files(grid: Grid) -> list[str]:
    """Return the Python files that a grid names, each once, as they are written."""
    axes = grid.grid
    texts = [*axes.models, *(step for text in axes.techniques for step in split_pipeline(text))]
    return list(
        dict.fromkeys([*axes.plugins, *itertools.chain.from_iterable(map(find_files, texts))])
    )


def plan_lineups(plan: Plan, finished: Collection[str]) -> Iterator[list[Lineup]]:
    """Yield the heats of each task and seed, for all cells that are not finished."""
    axes = plan.grid.grid
    tasks = list(dict.fromkeys(_task_of(model, plan) for model in axes.models))

    def owner(cell: Cell) -> tuple[int, ...]:
        return (tasks.index(_task_of(cell.model, plan)), axes.seeds.index(cell.seed))

    def place(cell: Cell) -> tuple[int, ...]:
        return (
            axes.devices.index(cell.device),
            -cell.batch,  # large first: answers known there are only checked in small batches
            axes.threads.index(cell.threads),
        )

    def order(cell: Cell) -> tuple[int, ...]:
        return (*owner(cell), *place(cell), axes.models.index(cell.model))

    everything = sorted(plan.grid.expand(), key=order)
    for (task, _), group in itertools.groupby(everything, key=owner):
        heats = [
            heat
            for _, members in itertools.groupby(group, key=place)
            if (heat := _make_lineup(tasks[task], list(members), finished)) is not None
        ]
        if heats:
            yield heats


def _task_of(model: str, plan: Plan) -> str:
    return plan.tasks.get(model, model)


def _make_lineup(task: str, cells: Sequence[Cell], finished: Collection[str]) -> Lineup | None:
    todo = tuple(cell for cell in cells if cell.id not in finished)
    if not todo:
        return None
    models = {cell.model for cell in todo}
    references = tuple(
        cell
        for cell in cells
        if cell.technique == BASELINE and cell.model in models and cell.id in finished
    )
    return Lineup(task, todo, references)
