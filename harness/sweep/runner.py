"""The runner: takes a plan's cells through prepare, memory, quality and heats; keeps records.

It never imports torch and never spins: while a cell is timed, it sleeps on the worker's pipe.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pyarrow as pa

from bench.spec import split_pipeline
from harness.errors import WorkerFailure, WorkerRefusal
from harness.grid import BASELINE, Cell
from harness.measure.machine import available_memory_bytes, describe_machine, git_commit
from harness.record import EXAMPLES_SCHEMA, SAMPLES_SCHEMA, Record
from harness.store import Run
from harness.sweep.crew import Crew, KnownAnswers, Shop, with_problem
from harness.sweep.launcher import Launcher
from harness.sweep.plan import Heat, Plan, plan_heats

PREPARE_THREADS = 1
"""One thread trains small models fastest, and makes training the same on every machine."""
MEMORY_SHARE = 0.8
"""Share of the available memory that one worker may take unless the grid says otherwise."""


@dataclass(frozen=True)
class Progress:
    """What the runner tells the one who waits; the command prints it."""

    begin: Callable[[int], None] = lambda cells: None
    phase: Callable[[str], None] = lambda text: None
    done: Callable[[Record], None] = lambda record: None


@dataclass(frozen=True)
class Prepared:
    """A variant in the cache with what was counted of it, or why there is none."""

    variant: str = ""
    task: str = ""
    metrics: dict[str, float] = field(default_factory=dict)
    uncounted_ops: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    problem: WorkerFailure | WorkerRefusal | None = None


class Sweep:
    """One pass over the cells of a plan that have no result yet."""

    def __init__(self, plan: Plan, run: Run, launcher: Launcher, progress: Progress) -> None:
        limit = plan.grid.budget.max_memory_bytes
        memory_bytes = limit or int(MEMORY_SHARE * available_memory_bytes())
        self.plan = plan
        self.run = run
        self.launcher = launcher
        self.shop = Shop(launcher, plan.grid, memory_bytes)
        self.progress = progress
        self.machine = describe_machine()
        self.commit = git_commit(Path.cwd())
        self._devices: dict[str, dict[str, Any] | WorkerRefusal] = {}

    def measure(self) -> None:
        """Measure every cell that has no result yet, heat by heat; keep each at once."""
        self.launcher.preload_training()
        owners = list(plan_heats(self.plan.grid, self.run.finished()))
        self.progress.begin(sum(len(heat.cells) for _, heats in owners for heat in heats))
        for (model, seed), heats in owners:
            known_answers: KnownAnswers = {}
            prepared: dict[str, Prepared] = {}
            for heat in heats:
                cells = self._skip_impossible(heat.cells)
                if not cells:
                    continue
                wanted = [*([heat.reference] if heat.reference else []), *cells]
                self._prepare_missing(model, seed, wanted, prepared)
                self._measure_heat(replace(heat, cells=tuple(cells)), prepared, known_answers)

    def _skip_impossible(self, cells: Sequence[Cell]) -> list[Cell]:
        """Keep a record for each cell that its device or technique rules out; return the others."""
        possible = []
        for cell in cells:
            reason = self._impossible(cell)
            if reason:
                self._keep(replace(self._start(cell), status="skipped", message=reason))
            else:
                possible.append(cell)
        return possible

    def _impossible(self, cell: Cell) -> str:
        probed = self._probe(cell.device)
        if isinstance(probed, WorkerRefusal):
            return str(probed)
        kernels = self.plan.techniques[cell.technique].devices
        if kernels and cell.device.partition(":")[0] not in kernels:
            only = " and ".join(kernels).upper()
            return (
                f'{cell.technique} has {only} kernels only. Use device "{kernels[0]}" '
                "or exclude the pair."
            )
        return ""

    def _probe(self, device: str) -> dict[str, Any] | WorkerRefusal:
        if device not in self._devices:
            timeout_s = self.plan.grid.budget.timeout_s
            with self.launcher.worker() as worker:
                try:
                    self._devices[device] = worker.call("probe_device", timeout_s, device=device)
                except WorkerRefusal as refusal:
                    self._devices[device] = refusal
        return self._devices[device]

    def _prepare_missing(
        self, model: str, seed: int, cells: Iterable[Cell], prepared: dict[str, Prepared]
    ) -> None:
        """Prepare and count each technique that the cells need and that is not there yet."""
        for technique in dict.fromkeys(cell.technique for cell in cells):
            if technique in prepared:
                continue
            self.progress.phase(f"preparing {model}: {technique}")
            try:
                prepared[technique] = self._prepare(model, seed, technique)
            except (WorkerFailure, WorkerRefusal) as problem:
                prepared[technique] = Prepared(problem=problem)

    def _prepare(self, model: str, seed: int, technique: str) -> Prepared:
        steps = [] if technique == BASELINE else list(split_pipeline(technique))
        recipes = steps[: self.plan.techniques[technique].recipes]
        plugins = list(self.plan.grid.grid.plugins)
        common = {"seed": seed, "plugins": plugins, "threads": PREPARE_THREADS}
        timeout_s = self.plan.grid.budget.prepare_timeout_s
        with ExitStack() as stack:
            worker = self.shop.hire(stack)
            facts = worker.call("prepare_base", timeout_s, model=model, recipes=recipes, **common)
            for step in steps[len(recipes) :]:
                base = facts["variant"]
                facts = worker.call("prepare_step", timeout_s, base=base, step=step, **common)
            counted = worker.call(
                "count", self.plan.grid.budget.timeout_s, variant=facts["variant"]
            )
        return Prepared(
            variant=facts["variant"],
            task=facts["task"],
            metrics={**counted["metrics"], "prepare_s": facts["prepare_s"]},
            uncounted_ops=tuple(counted["uncounted_ops"]),
            notes=tuple(facts["notes"]),
        )

    def _measure_heat(
        self,
        heat: Heat,
        prepared: dict[str, Prepared],
        known_answers: KnownAnswers,
    ) -> None:
        first = heat.cells[0]
        self.progress.phase(
            f"{first.model} on {first.device}, threads {first.threads}, batch {first.batch}"
        )
        with ExitStack() as stack:
            crew = Crew(self.shop, heat.name, known_answers, stack)
            for cell in (*([heat.reference] if heat.reference else []), *heat.cells):
                found = prepared[cell.technique]
                record = self._describe(self._start(cell), found)
                if found.problem is None:
                    crew.admit(cell, found.variant, record, kept=cell is not heat.reference)
                elif cell is not heat.reference:
                    self._keep(with_problem(record, found.problem))
            crew.run(shuffle_seed(self.run.run_id, heat.name))
            for record, samples, examples in crew.results():
                self._keep(record, samples, examples)

    def _start(self, cell: Cell) -> Record:
        now = datetime.now(UTC).isoformat(timespec="milliseconds")
        probed = self._devices.get(cell.device)
        environment = {**self.machine, **(probed if isinstance(probed, dict) else {})}
        return Record(
            self.run.run_id,
            cell,
            "measured",
            realization=self.plan.techniques[cell.technique].realization,
            git_commit=self.commit,
            started_at=now,
        ).under(environment=json.dumps(environment, sort_keys=True))

    def _describe(self, record: Record, found: Prepared) -> Record:
        described = replace(record, task=found.task or record.cell.model)
        return described.measured(**found.metrics).under(
            uncounted_ops=list(found.uncounted_ops), notes=list(found.notes)
        )

    def _keep(
        self, record: Record, samples: pa.Table | None = None, examples: pa.Table | None = None
    ) -> None:
        self.run.add(
            record,
            SAMPLES_SCHEMA.empty_table() if samples is None else samples,
            EXAMPLES_SCHEMA.empty_table() if examples is None else examples,
        )
        self.progress.done(record)


def shuffle_seed(run_id: str, heat: str) -> int:
    """Return the seed of a heat's order: a hash of run and heat, so it can be had again."""
    return int.from_bytes(hashlib.sha256(f"{run_id} {heat}".encode()).digest()[:4], "big")
