"""The crew of a heat: a worker for each cell and one for the control, and what they are asked."""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import replace

from harness.errors import WorkerFailure, WorkerRefusal
from harness.grid import Budget, Cell
from harness.measure.disturbance import read_stall_s
from harness.stats import LEAST_FOR_INTERVAL
from harness.sweep.answers import KnownAnswers
from harness.sweep.conclude import judge_seats, own_mistake
from harness.sweep.grouping import FEWEST, choose_processes, group_seats
from harness.sweep.guest import ADJACENT_BLOCK_S
from harness.sweep.heat import (
    CONTROL,
    INTERRUPTION,
    Member,
    Stop,
    run_heat,
)
from harness.sweep.journal import Journal
from harness.sweep.loader import Loader
from harness.sweep.look import Looks, look_at
from harness.sweep.recover import note_seats
from harness.sweep.remote import Worker
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
        self._loader = Loader(shop, known_answers)
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
        self._loader.order.seed(seed)

        def tell_loaded() -> None:
            self.shop.progress.standings(name, find_standings(seats))

        with ExitStack() as stack:
            begin = time.monotonic()
            self._loader.load_all(seats, stack, processes, tell_loaded)
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
        self._loader.forget_answers()

    def _control(self, cell: Cell, stack: ExitStack, processes: int) -> Member:
        """Return the control workload as a member that stays as long as any other."""
        workers: list[Worker] = []
        blocks = self._loader.blocks_of(workers)
        control = Member(CONTROL, blocks, follows=True, stopped_by="the others")
        try:
            for _ in range(max(1, processes)):
                self._loader.load_control(workers, stack, cell.device, cell.threads)
        except (WorkerFailure, WorkerRefusal) as problem:  # a heat goes on without it
            control.problem = problem
        return control


def find_whole_s(budget: Budget) -> float:
    """Return how long a cell may be timed in all: where the grid has a time, that is shared."""
    return budget.max_seconds_per_cell if budget.max_seconds is None else float("inf")


def find_spent_s(seats: Sequence[Seat]) -> float:
    """Return how long each cell of a heat was timed in earlier sessions: the least of those kept.

    A baseline that is there for another's sake alone has spent its budget.
    """
    kept = [seat.member for seat in seats if seat.kept and seat.member and not seat.failure]
    return min((member.spent_s for member in kept), default=0.0)


def _forgive(members: Sequence[Member]) -> None:
    """Take what the end of a run did to its workers for an interruption.

    Batch systems and service managers signal every process of a run, not the runner alone.
    """
    for member in members:
        if isinstance(member.problem, WorkerFailure) and member.problem.kind == "killed":
            member.problem, member.stopped_by = None, INTERRUPTION
