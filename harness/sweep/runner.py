"""The runner: takes a plan's cells through prepare, memory, quality and heats; keeps records.

It never imports torch and never spins: while a cell is timed, it sleeps on the worker's pipe.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Collection, Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

from harness.errors import UserError, WorkerFailure, WorkerRefusal
from harness.grid import Cell
from harness.measure.machine import (
    available_memory_bytes,
    fingerprint,
    git_commit,
)
from harness.record import Record
from harness.store import Run
from harness.sweep.allowance import Allowance
from harness.sweep.alone import measure_memory
from harness.sweep.answers import KnownAnswers
from harness.sweep.conclude import own_mistake, with_problem
from harness.sweep.crew import Crew
from harness.sweep.hardware import Hardware
from harness.sweep.interruption import Interruption
from harness.sweep.journal import FOLDER
from harness.sweep.launcher import Launcher
from harness.sweep.look import Decide
from harness.sweep.outcomes import Outcomes
from harness.sweep.plan import Lineup, Plan, has_built_ins, heat_name, plan_lineups
from harness.sweep.progress import Progress, without_fail
from harness.sweep.reach import Reach
from harness.sweep.recover import recover_heats
from harness.sweep.seat import Seat
from harness.sweep.sessions import LEAST_S as SESSION_S
from harness.sweep.sessions import Sessions, count_sessions
from harness.sweep.shop import Shop
from harness.sweep.variants import (
    Prepared,
    Variant,
    count_variant,
    describe_variant,
    find_key,
    prepare_variant,
    variant_of,
)
from harness.wording import counted

MEMORY_SHARE = 0.8
"""Share of the available memory that one worker may take unless the grid says otherwise."""


class Sweep:
    """One pass over the cells of a plan that have no result yet, or one to be had again.

    retry: statuses of rows that do not count as results. Such a row is replaced, not taken away.
    """

    def __init__(
        self, plan: Plan, run: Run, launcher: Launcher, progress: Progress,
        retry: Collection[str] = (), interruption: Interruption | None = None,
        decide: Decide | None = None,
    ) -> None:  # fmt: skip
        limit = plan.grid.budget.max_memory_bytes
        memory_bytes = limit or int(MEMORY_SHARE * available_memory_bytes())
        self.plan = plan
        self.run = run
        self.launcher = launcher
        self.hardware = Hardware(launcher, plan.grid)
        self._journals = run.folder / FOLDER
        self.interruption = interruption or Interruption()
        self.shop = Shop(
            launcher, plan.grid, memory_bytes, self.hardware,
            self._journals / fingerprint(self.hardware.machine),  # another's blocks are others
            self.interruption, without_fail(progress), decide,
        )  # fmt: skip
        self.reach = Reach(self.shop, run)
        self.progress = self.shop.progress
        self.commit = git_commit(Path.cwd())
        self.outcomes = Outcomes(run, retry)

    def measure(self) -> int:
        """Measure every cell that has no result yet, heat by heat; return how many failed.

        Each is kept at once. Once all heats have been timed, all are again, in further sessions.
        """
        if has_built_ins(self.plan.grid):
            self.launcher.preload_training()
        tasks = list(plan_lineups(self.plan, self.outcomes.done))
        cells = sum(len(heat.cells) for heats in tasks for heat in heats)
        self.progress.begin(cells)
        variants = {variant_of(cell) for heats in tasks for heat in heats for cell in heat.cells}
        count = count_sessions(self.plan.grid, cells)
        if cells and count < (asked := self.plan.grid.measure.sessions):
            told = f"there is time for {counted(count, 'session')} of {asked}"
            self.progress.phase(f"{told}: each takes {SESSION_S:g} s a cell, at least")
        self.allowance = Allowance(self.plan.grid.budget.max_seconds, cells * count, len(variants))
        self.sessions = Sessions(
            count, self.shop, self.run, self.outcomes, self.allowance, self._find_key
        )  # fmt: skip
        try:
            for heats in tasks:
                self._measure_task(heats)
            while self.sessions.open:
                self._measure_again()
            if not self.outcomes.partial:
                shutil.rmtree(self._journals, ignore_errors=True)  # also of what has changed since
        finally:
            self.launcher.close_templates()
        return self.outcomes.failures

    def _measure_task(self, heats: Sequence[Lineup]) -> None:
        """Measure the heats of a task, whose variants and answers they share."""
        known_answers = KnownAnswers()
        prepared: dict[Variant, Prepared] = {}
        for heat in heats:
            cells = self._skip_impossible(heat.cells)
            if not cells:
                continue
            with self._surviving(cells):
                with self.allowance.once():
                    self.reach.roofs(cells[0].device, cells[0].threads)
                self._prepare_missing([*heat.references, *cells], prepared)
                self._measure_heat(replace(heat, cells=tuple(cells)), prepared, known_answers)

    def _measure_again(self) -> None:
        """Time each heat that has sessions left once more, in processes of a new server."""
        for heat in self.sessions.renew():
            with self._surviving([seat.cell for seat in heat.seats if seat.kept]):
                self.sessions.go_on(heat)

    @contextmanager
    def _surviving(self, cells: Sequence[Cell]) -> Iterator[None]:
        """Take a mistake of ours in a `with` block for these cells' failure: the others go on."""
        try:
            yield
        except UserError:  # what was measured cannot be written: there is no going on
            raise
        except Exception as mistake:
            with suppress(Exception):  # the mistake may stand in the way of this, too
                self.outcomes.partial |= recover_heats(self.run)  # what was timed until then
            self._give_up(cells, own_mistake(mistake))
            self.interruption.release()

    def _give_up(self, cells: Sequence[Cell], problem: WorkerFailure) -> None:
        """Keep the cells of a heat that have no record, or a part of one, as failed."""
        for cell in cells:
            if cell.id not in self.outcomes.done or cell.id in self.outcomes.partial:
                self._keep(with_problem(self._start(cell), problem))

    def _skip_impossible(self, cells: Sequence[Cell]) -> list[Cell]:
        """Keep a record for each cell that its device or technique rules out; return the others."""
        possible = []
        for cell in cells:
            problem = self._find_problem(cell)
            if problem is not None:
                self._keep(with_problem(self._start(cell), problem))
            else:
                possible.append(cell)
        return possible

    def _find_problem(self, cell: Cell) -> WorkerRefusal | WorkerFailure | None:
        """Return why a cell cannot be measured, as far as that is known before it is prepared."""
        probed = self.hardware.probe(cell.device)
        if not isinstance(probed, dict):
            return probed
        kernels = self.plan.techniques[cell.technique].devices
        if kernels and cell.device.partition(":")[0] not in kernels:
            only = " and ".join(kernels).upper()
            return WorkerRefusal(
                f'{cell.technique} has {only} kernels only. Use device "{kernels[0]}" '
                "or exclude the pair."
            )
        reason = self.plan.refusals.get(cell.model, {}).get(cell.technique)
        return WorkerRefusal(reason) if reason else None

    def _prepare_missing(self, cells: Iterable[Cell], prepared: dict[Variant, Prepared]) -> None:
        """Prepare and count each variant that the cells need and that is not there yet."""
        for cell in cells:
            variant = variant_of(cell)
            if variant in prepared:
                continue
            self.progress.phase(f"preparing {cell.model}: {cell.technique}")
            try:
                with self.allowance.preparing():
                    prepared[variant] = self._prepare(cell)
            except (WorkerFailure, WorkerRefusal) as problem:
                prepared[variant] = Prepared(problem=problem)

    def _prepare(self, cell: Cell) -> Prepared:
        device = self.plan.grid.prepare.device
        probed = self.hardware.probe(device)
        if not isinstance(probed, dict):
            raise probed
        with ExitStack() as stack:
            worker = self.shop.hire(stack, device, cell)
            facts = prepare_variant(worker, self.plan, cell, self._token)
            if facts["trained"]:
                self.launcher.preload_training()  # for techniques that train further
            return count_variant(worker, self.plan, cell, facts)

    def _find_key(self, cell: Cell) -> str:
        """Return the key of a cell's variant as it would be prepared now."""
        with ExitStack() as stack:
            worker = self.shop.hire(stack, self.plan.grid.prepare.device, cell)
            return find_key(worker, self.plan, cell, self._token)

    @property
    def _token(self) -> str:
        """What stands for all that cannot be told by its content, in this run alone."""
        return str(self.run.folder.resolve())

    def _measure_heat(
        self,
        heat: Lineup,
        prepared: dict[Variant, Prepared],
        known_answers: KnownAnswers,
    ) -> None:
        first = heat.cells[0]
        no_energy = self.hardware.facts_of(first.device).get("no_energy", "not measured")
        place = f"{heat.task} on {first.device}, threads {first.threads}, batch {first.batch}"
        seats = []
        for cell in (*heat.references, *heat.cells):
            found, kept = prepared[variant_of(cell)], cell not in heat.references
            record = self._describe(self._start(cell), found)
            if found.problem is None:
                record = record.under(energy_source=f"none: {no_energy}")
                seats.append(Seat(cell, found.variant, record, kept, found.mapped_bytes))
            elif kept:
                self._keep(with_problem(record, found.problem))
        roofs = self.reach.roofs(first.device, first.threads)
        self.allowance.note_begun(len(heat.cells))
        crew = Crew(self.shop, heat.place, known_answers, seats)
        wanted = sum(seat.kept for seat in seats)
        if not wanted:
            return
        self.progress.phase(f"{place}: memory of {counted(wanted, 'cell')}")
        measure_memory(self.shop, seats)
        for seat in seats:
            if seat.problem is not None and seat.kept:
                self._keep(with_problem(seat.record, seat.problem))
        for group, processes in crew.groups():
            name = heat_name(heat.place, self.outcomes.heats)
            self.sessions.begin(name, place, crew, group, processes, roofs)
        crew.forget_answers()

    def _start(self, cell: Cell) -> Record:
        now = datetime.now(UTC).isoformat(timespec="microseconds")
        environment = self.hardware.environment(cell.device)
        return Record(
            self.run.run_id,
            cell,
            "measured",
            task=self.plan.tasks.get(cell.model, cell.model),
            realization=self.plan.techniques[cell.technique].realization,
            git_commit=self.commit,
            started_at=now,
        ).under(environment=json.dumps(environment, sort_keys=True))

    def _describe(self, record: Record, found: Prepared) -> Record:
        described = replace(record, task=found.task or record.task)
        return describe_variant(described, found, self.plan.grid.training.target)

    def _keep(self, record: Record) -> None:
        """Keep the record of a cell that is not timed, or not further."""
        self.outcomes.keep(record)
        self.allowance.note_done(self.sessions.count)
        self.progress.done(record)
