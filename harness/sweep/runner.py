"""The runner: takes a plan's cells through prepare, memory, quality and heats; keeps records.

It never imports torch and never spins: while a cell is timed, it sleeps on the worker's pipe.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Collection, Iterable, Sequence
from contextlib import ExitStack, suppress
from dataclasses import replace
from datetime import UTC, datetime
from functools import partial
from pathlib import Path

import pyarrow as pa

from harness.errors import UserError, WorkerFailure, WorkerRefusal
from harness.grid import Cell
from harness.measure.machine import (
    available_memory_bytes,
    fingerprint,
    git_commit,
)
from harness.measure.roofline import Roofs
from harness.record import Record
from harness.store import Run, control_id
from harness.sweep.allowance import Allowance
from harness.sweep.answers import KnownAnswers
from harness.sweep.conclude import conclude_kept, own_mistake, with_problem
from harness.sweep.crew import Crew
from harness.sweep.hardware import Hardware
from harness.sweep.interruption import Interruption
from harness.sweep.journal import FOLDER
from harness.sweep.launcher import Launcher
from harness.sweep.outcomes import Outcomes
from harness.sweep.plan import Lineup, Plan, has_built_ins, heat_name, plan_lineups, shuffle_seed
from harness.sweep.progress import Progress, without_fail
from harness.sweep.reach import Reach
from harness.sweep.recover import recover_heats
from harness.sweep.seat import Seat, TimedHeat
from harness.sweep.shop import Shop
from harness.sweep.tables import samples_table
from harness.sweep.variants import (
    Prepared,
    Variant,
    count_variant,
    describe_variant,
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
            self.interruption, without_fail(progress),
        )  # fmt: skip
        self.reach = Reach(self.shop, run)
        self.progress = self.shop.progress
        self.commit = git_commit(Path.cwd())
        self.outcomes = Outcomes(run, retry)
        self._told = False

    def measure(self) -> int:
        """Measure every cell that has no result yet, heat by heat; return how many failed.

        Each is kept at once.
        """
        if has_built_ins(self.plan.grid):
            self.launcher.preload_training()
        tasks = list(plan_lineups(self.plan, self.outcomes.done))
        cells = sum(len(heat.cells) for heats in tasks for heat in heats)
        self.progress.begin(cells)
        variants = {variant_of(cell) for heats in tasks for heat in heats for cell in heat.cells}
        self.allowance = Allowance(self.plan.grid.budget.max_seconds, cells, len(variants))
        try:
            for heats in tasks:
                self._measure_task(heats)
            if not self.run.ended_as(["partial"]):
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
            try:
                with self.allowance.once():
                    self.reach.roofs(cells[0].device, cells[0].threads)
                self._prepare_missing([*heat.references, *cells], prepared)
                self._measure_heat(replace(heat, cells=tuple(cells)), prepared, known_answers)
            except UserError:  # what was measured cannot be written: there is no going on
                raise
            except Exception as mistake:
                with suppress(Exception):  # the mistake may stand in the way of this, too
                    self.outcomes.partial |= recover_heats(self.run)  # what was timed until then
                self._give_up(cells, own_mistake(mistake))
                self.interruption.release()

    def _give_up(self, cells: Sequence[Cell], problem: WorkerFailure) -> None:
        """Keep the cells of a heat that have no record as failed, and go on with the next heat."""
        for cell in cells:
            if cell.id not in self.outcomes.done:
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
            token = str(self.run.folder.resolve())
            facts = prepare_variant(worker, self.plan, cell, token)
            if facts["trained"]:
                self.launcher.preload_training()  # for techniques that train further
            return count_variant(worker, self.plan, cell, facts)

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
        self.progress.phase(f"{place}: memory of {counted(len(heat.cells), 'cell')}")
        crew.measure_memory()
        for seat in seats:
            if seat.problem is not None and seat.kept:
                self._keep(with_problem(seat.record, seat.problem))
        for group, processes in crew.groups():
            self.progress.phase(f"{place}: timing {counted(len(group), 'cell')}")
            wanted = sum(seat.kept for seat in group)
            if not wanted:  # baselines alone, whose cells have all failed
                continue
            allow = partial(self._allow, wanted, len(group) + 1)
            name = heat_name(heat.place, self.outcomes.heats)
            seed = shuffle_seed(self.run.run_id, name)
            timed = crew.run(name, group, processes, seed, allow)
            self.outcomes.heats.add(timed.name)
            self.allowance.note_timed(timed.took_s)
            timed = replace(timed, machine_speed=self.hardware.speed_in(timed, first))
            concluded = self._keep_heat(timed, roofs)
            for seat in group:
                seat.let_go()
            self.interruption.release()
            source = self.hardware.facts_of(first.device).get("energy")
            if source is not None:
                self._measure_energy(crew, concluded, source, place)

    def _allow(self, cells: int, members: int, loading: float) -> float:
        """Return how long each cell of a heat may be timed; say so where the time is too short."""
        own_s = self.plan.grid.budget.max_seconds_per_cell
        seconds = self.allowance.seconds_per_cell(cells, members, own_s, loading)
        if self.allowance.overrun_s > 1 and not self._told:
            self._told = True
            self.progress.phase(
                f"the time is too short for this grid by {self.allowance.overrun_s:.0f} s or more: "
                "each cell has its first rounds only"
            )
        return seconds

    def _measure_energy(self, crew: Crew, seats: Sequence[Seat], source: str, place: str) -> None:
        """Add their energy to rows that are kept already: it takes long, and may lose nothing."""
        timed = [seat for seat in seats if seat.record.status == "measured"]
        for number, seat in enumerate(timed, 1):
            self.progress.phase(f"{place}: energy of {number} of {counted(len(timed), 'cell')}")
            crew.measure_energy(seat, source)
            self.run.add_row(seat.record)

    def _keep_heat(self, timed: TimedHeat, roofs: Roofs | None) -> list[Seat]:
        """Keep what a heat found, and return whose; a baseline of several heats has one row."""
        concluded = []
        control = control_id(timed.name)
        self.run.add_control(control, samples_table(control, timed.name, timed.control))
        budget = self.plan.grid.budget
        earlier = self.outcomes.of_heat(timed.name)
        known = (timed, budget, roofs, self.shop.processors, earlier)
        for seat, record, examples in conclude_kept(*known):
            self.outcomes.failures += record.status == "partial" and not timed.interrupted
            samples = samples_table(seat.cell.id, timed.name, seat.member)
            keep = self._keep if seat.kept else self.outcomes.keep
            keep(record, samples, examples)
            seat.record, seat.kept = record, False
            concluded.append(seat)
        journal = timed.journal
        if (
            journal is not None
            and not timed.interrupted
            and not journal.holds & self.outcomes.partial.keys()
        ):
            journal.remove()
        return concluded

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

    def _keep(
        self, record: Record, samples: pa.Table | None = None, examples: pa.Table | None = None
    ) -> None:
        self.outcomes.keep(record, samples, examples)
        self.allowance.note_done()
        self.progress.done(record)
