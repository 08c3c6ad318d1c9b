"""The crew of a heat: a worker for each cell and one for the control, and what they are asked."""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import ExitStack, nullcontext
from dataclasses import replace
from functools import partial
from typing import Any

from harness.errors import WorkerFailure, WorkerRefusal
from harness.grid import BASELINE, Budget, Cell
from harness.measure.disturbance import read_stall_s
from harness.stats import LEAST_FOR_INTERVAL
from harness.sweep.answers import Answers, KnownAnswers
from harness.sweep.conclude import judge_seats, own_mistake
from harness.sweep.grouping import FEWEST, choose_processes, group_seats
from harness.sweep.guest import ADJACENT_BLOCK_S, Guest
from harness.sweep.heat import (
    CONTROL,
    DECISION,
    INTERRUPTION,
    Member,
    Samples,
    Stop,
    never,
    run_heat,
)
from harness.sweep.journal import Journal
from harness.sweep.look import Looks, look_at
from harness.sweep.recover import note_seats
from harness.sweep.remote import Worker, alternate
from harness.sweep.seat import Seat, TimedHeat
from harness.sweep.shop import Shop
from harness.sweep.standing import Lookout, find_standings


class Crew:
    """The cells of one task, device, threads and batch; timed in as few heats as memory allows.

    `place` is what they share, as text.
    """

    def __init__(
        self, shop: Shop, place: str, known_answers: KnownAnswers, seats: Sequence[Seat]
    ) -> None:
        self.shop = shop
        self.place = place
        self.seats = seats
        self._known_answers = known_answers
        self._order = random.Random()
        self._told = False

    def groups(self) -> list[tuple[list[Seat], int]]:
        """Return the seats of each heat and how many processes each has; baselines in each heat."""
        ready = [seat for seat in self.seats if seat.problem is None]
        wanted = self.shop.grid.measure.processes or FEWEST
        return group_seats(ready, wanted, self.shop.hardware.room(self.seats[0].cell.device))

    def choose_processes(self, seats: Sequence[Seat], before: int, session_s: float) -> int:
        """Return in how many processes seats are timed in a further session of so many seconds."""
        if self.shop.grid.measure.processes is not None or before < FEWEST or not seats:
            return before
        room = self.shop.hardware.room(seats[0].cell.device)
        return choose_processes(seats, before, room, session_s)

    def run(
        self, name: str, seats: Sequence[Seat], processes: int, seed: int,
        allow: Callable[[float, float], float], others: Collection[str] | None = (),
        enough_rounds: int = LEAST_FOR_INTERVAL,
    ) -> TimedHeat:  # fmt: skip
        """Time the seats in a heat, or in another session of it, in fresh processes.

        A seat that cannot be loaded has the problem then, and takes no part.
        `allow` tells how long each may be timed, once they are loaded, by how long each was before,
        and by what a block takes beside its timing, as a multiple of it. `others`: as a journal has
        it; `enough_rounds`: as a stop has it.
        """
        budget, measure = self.shop.grid.budget, self.shop.grid.measure
        self._order.seed(seed)
        with ExitStack() as stack:
            begin = time.monotonic()
            for seat in seats:
                self._seat(seat, stack, processes)
                self.shop.progress.standings(name, find_standings(seats))
            load_s = (time.monotonic() - begin) / len(seats)
            judge_seats(seats)
            control = self._control(seats[0].cell, stack, processes)
            members = [seat.member for seat in seats if seat.member]
            variants = {seat.member.name: seat.variant for seat in seats if seat.member}
            journal = Journal(
                self.shop.journal, self.place, name, [*members, control], variants, others=others
            )
            stack.enter_context(journal)
            spent_s = find_spent_s(seats)
            allowed_s = allow(spent_s, 0.0 if processes else load_s / ADJACENT_BLOCK_S)
            seconds_per_cell = min(find_whole_s(budget), spent_s + allowed_s)
            relative_ci = 0.0 if budget.stop == "budget" else budget.relative_ci
            stop = Stop(
                relative_ci, seconds_per_cell, measure.least_rounds, enough_rounds=enough_rounds
            )
            for seat in seats:
                if seat.cell.id in journal.changed:
                    self.shop.progress.phase(f"{seat.cell} has changed: it is timed anew")
            between = self.shop.hardware.between(seats)
            note_seats(journal, self.place, seats, processes, self.shop.processors, between)

            def tell() -> None:
                standings = find_standings(seats, control, seconds_per_cell, between)
                self.shop.progress.standings(name, standings)

            known = (journal.name, seats, control, processes)
            begun = TimedHeat(*known, took_s=0.0, stalled_share=0.0, between=between)
            looks = self._look(begun, members)
            took_s, share = self._run_rounds([*members, control], stop, seed, journal, tell, looks)
        interrupted = any(member.stopped_by == INTERRUPTION for member in members)
        return TimedHeat(*known, took_s, share, between, interrupted=interrupted, journal=journal)

    def _look(self, timed: TimedHeat, members: Sequence[Member]) -> Looks | None:
        """Return what looks at a heat that is about to be timed, if it may end by its answer."""
        decide, grid = self.shop.decide, self.shop.grid
        if decide is None or grid.budget.stop != "decision":
            return None

        def find_places() -> Mapping[str, str]:
            try:
                # As it is in this moment: what is reckoned of a heat is kept with it.
                return decide(look_at(replace(timed)), grid.budget.smallest_effect)
            except Exception as mistake:  # ours: the heat goes on to the end of its budget
                if not self._told:
                    self._told = True
                    self.shop.progress.phase(f"no heat ends early: {own_mistake(mistake).message}")
                return {}

        return Looks(members, find_places, grid.measure.least_rounds)

    def _run_rounds(
        self, members: Sequence[Member], stop: Stop, seed: int, journal: Journal,
        tell: Callable[[], None], looks: Looks | None,
    ) -> tuple[float, float]:  # fmt: skip
        """Time the members, and `tell` now and then; return for how long, and its stalled share."""
        lookout = Lookout(tell)

        def after_round() -> bool:
            journal.keep()
            lookout.look()
            if looks is not None:
                looks.after_round()
            return self.shop.interruption.asked

        stalled_s, began_s = read_stall_s(), time.monotonic()
        with self.shop.interruption.after_the_round():
            run_heat(
                members, stop, seed, journal.left, after_round=after_round, session=journal.session
            )
        took_s = time.monotonic() - began_s
        if self.shop.interruption.asked:
            _forgive(members)
        elif looks is not None:
            looks.look()
        return took_s, (read_stall_s() - stalled_s) / took_s if took_s else float("nan")

    def forget_answers(self) -> None:
        """Let go of known answers: all seats have been judged."""
        self._known_answers = KnownAnswers()

    def _seat(self, seat: Seat, stack: ExitStack, processes: int) -> None:
        """Load a seat's cell and make it a member; without processes it loads for each block.

        The first load tells pace and answers in either case.
        """
        seat.member = _absent(seat) if seat.judged else None
        if seat.problem is not None or seat.concluded:
            return
        begin = time.monotonic()
        with ExitStack() as visit:
            try:
                loads = [
                    self._load(seat, visit, cold=number == 0 and not seat.judged)
                    for number in range(max(1, processes))
                ]
                seat.load_s = (time.monotonic() - begin) / len(loads)
                first, loaded = loads[0]
                if not seat.judged:
                    seat.answers = self._ask_answers(seat, first)
                first.pause()
            except (WorkerFailure, WorkerRefusal) as problem:
                seat.problem = problem
                seat.member = _absent(seat) if seat.judged else None
                return
            seat.pace_s = loaded["pace_s"]
            if not seat.judged:
                seat.traffic = loaded["traffic"]
                found = seat.record.measured(**loaded["metrics"])
                seat.record = found.under(**loaded["conditions"])
            if processes:
                stack.push(visit.pop_all())
        guest = Guest(partial(self._load, seat), self.shop.grid.budget.timeout_s)
        workers = [worker for worker, _ in loads]
        seat.member = Member(
            seat.cell.id,
            self._blocks_of(workers) if processes else guest.time_block,
            family=seat.cell.model,
            follows=seat.cell.technique == BASELINE,
            present=nullcontext if processes else guest.present,
        )

    def _load(
        self, seat: Seat, stack: ExitStack, cold: bool = False
    ) -> tuple[Worker, dict[str, Any]]:
        measure = self.shop.grid.measure
        worker = self.shop.hire(stack, seat.cell.device, seat.cell)
        loaded = worker.call(
            "load", self.shop.grid.budget.timeout_s, **seat.request, pin=measure.pin,
            wait_policy=measure.wait_policy, flush_cache=measure.flush_cache,
            cold=cold, near=self.shop.hardware.node(seat.cell.device),
        )  # fmt: skip
        worker.pause()
        return worker, loaded

    def _control(self, cell: Cell, stack: ExitStack, processes: int) -> Member:
        """Return the control workload as a member that stays as long as any other."""
        workers: list[Worker] = []
        control = Member(CONTROL, self._blocks_of(workers), follows=True, stopped_by="the others")
        try:
            for _ in range(max(1, processes)):
                worker = self.shop.hire(stack, cell.device)
                workers.append(worker)
                worker.call(
                    "load_control", self.shop.grid.budget.timeout_s,
                    device=cell.device, threads=cell.threads, pin=self.shop.grid.measure.pin,
                    near=self.shop.hardware.node(cell.device),
                )  # fmt: skip
                worker.pause()
        except (WorkerFailure, WorkerRefusal) as problem:  # a heat goes on without it
            control.problem = problem
        return control

    def _blocks_of(self, workers: Sequence[Worker]) -> Callable[[], Samples]:
        measure, timeout_s = self.shop.grid.measure, self.shop.grid.budget.timeout_s
        return alternate(workers, timeout_s, measure.block_s, self._order)

    def _ask_answers(self, seat: Seat, worker: Worker) -> Answers:
        """Ask once for each variant, device, runtime and batch: threads do not change answers.

        Nor do most batches; the worker checks that before it repeats the whole test split.
        """
        cell, known = seat.cell, self._known_answers
        place = (seat.variant, cell.device, cell.runtime)
        answers = known.find(place, cell.batch)
        if answers is None:
            other = known.find_other(place)
            found: Answers | None = worker.call(
                "answers", self.shop.grid.budget.timeout_s, variant=seat.variant, batch=cell.batch,
                known=None if other is None else other["outputs"],
            )  # fmt: skip
            answers = found if found is not None else other or {}
            known.keep(place, cell.batch, answers)
        return answers


def find_whole_s(budget: Budget) -> float:
    """Return how long a cell may be timed in all: where the grid has a time, that is shared."""
    return budget.max_seconds_per_cell if budget.max_seconds is None else float("inf")


def find_spent_s(seats: Sequence[Seat]) -> float:
    """Return how long each cell of a heat was timed in earlier sessions: the least of those kept.

    A baseline that is there for another's sake alone has spent its budget.
    """
    kept = [seat.member for seat in seats if seat.kept and seat.member and not seat.failure]
    return min((member.spent_s for member in kept), default=0.0)


def _absent(seat: Seat) -> Member:
    """Return the member of a seat that takes no part in this session.

    What it was timed in earlier ones counts for the others, too.
    """
    why = DECISION if seat.problem is None else "failure"
    return Member(seat.cell.id, never, seat.cell.model, stopped_by=why)


def _forgive(members: Sequence[Member]) -> None:
    """Take what the end of a run did to its workers for an interruption.

    Batch systems and service managers signal every process of a run, not the runner alone.
    """
    for member in members:
        if isinstance(member.problem, WorkerFailure) and member.problem.kind == "killed":
            member.problem, member.stopped_by = None, INTERRUPTION
