"""The loader: the cells of a heat are loaded, one process of each in turns, and are asked."""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack, nullcontext
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from harness.errors import WorkerFailure, WorkerRefusal
from harness.grid import BASELINE
from harness.sweep.answers import Answers, KnownAnswers
from harness.sweep.guest import Guest
from harness.sweep.heat import DECISION, Member, Samples, never
from harness.sweep.remote import Worker, alternate
from harness.sweep.seat import Seat
from harness.sweep.shop import Shop


@dataclass
class Arrival:
    """A seat whose cell is being loaded: its workers so far, alive as long as its `visit`."""

    seat: Seat
    visit: ExitStack
    workers: list[Worker] = field(default_factory=list)
    first: dict[str, Any] = field(default_factory=dict)
    """What the first of them told when it had loaded the cell."""
    took_s: float = 0.0


class Loader:
    """Loads cells in processes of a shop's, and asks each for its answers once."""

    def __init__(self, shop: Shop, known_answers: KnownAnswers) -> None:
        self.order = random.Random()
        """The order of the loads, and of the processes that a cell's blocks are taken from."""
        self._shop = shop
        self._known_answers = known_answers

    def load_all(
        self, seats: Sequence[Seat], stack: ExitStack, processes: int, tell: Callable[[], None]
    ) -> None:
        """Load the seats' cells and make them members; without processes they load for each block.

        The first load tells pace and answers in either case, after which `tell` is called. Who is
        loaded first is slower (by 0.1 to 0.3 % of a small model's latency), so cells load one
        process each in turns, and in another order every time.
        """
        for seat in seats:
            seat.member = _absent(seat) if seat.judged else None
        there = [seat for seat in seats if seat.problem is None and not seat.concluded]
        arrivals = [Arrival(seat, stack.enter_context(ExitStack())) for seat in there]
        for turn in range(max(1, processes)):
            for arrival in self.order.sample(arrivals, len(arrivals)):
                if arrival.seat.problem is not None:
                    continue
                self._load_next(arrival)
                if not processes:
                    arrival.visit.close()
                if turn == 0:
                    tell()
        for arrival in arrivals:
            if arrival.seat.problem is None:
                self._make_member(arrival, processes)

    def load(
        self, seat: Seat, stack: ExitStack, cold: bool = False
    ) -> tuple[Worker, dict[str, Any]]:
        """Load a seat's cell in a process that ends with the stack; return it and what it told."""
        measure, timeout_s = self._shop.grid.measure, self._shop.grid.budget.timeout_s
        worker = self._shop.hire(stack, seat.cell.device, seat.cell)
        loaded = worker.call(
            "load", timeout_s, **seat.request, pin=measure.pin, wait_policy=measure.wait_policy,
            flush_cache=measure.flush_cache, cold=cold,
            near=self._shop.hardware.node(seat.cell.device),
        )  # fmt: skip
        worker.pause()
        return worker, loaded

    def _load_next(self, arrival: Arrival) -> None:
        """Load a seat's cell in one more process; a seat whose cell cannot be has the problem."""
        seat, judge = arrival.seat, not arrival.workers and not arrival.seat.judged
        begin = time.monotonic()
        try:
            worker, loaded = self.load(seat, arrival.visit, cold=judge)
            arrival.took_s += time.monotonic() - begin
            if judge:
                seat.answers = self._ask_answers(seat, worker)
                worker.pause()
        except (WorkerFailure, WorkerRefusal) as problem:
            seat.problem = problem
            seat.member = _absent(seat) if seat.judged else None
            arrival.visit.close()
            return
        if not arrival.workers:
            arrival.first, seat.pace_s = loaded, loaded["pace_s"]
        arrival.workers.append(worker)

    def _make_member(self, arrival: Arrival, processes: int) -> None:
        seat, workers, first = arrival.seat, arrival.workers, arrival.first
        seat.load_s = arrival.took_s / len(workers)
        if not seat.judged:
            seat.traffic = first["traffic"]
            seat.record = seat.record.measured(**first["metrics"]).under(**first["conditions"])
        guest = Guest(partial(self.load, seat), self._shop.grid.budget.timeout_s)
        seat.member = Member(
            seat.cell.id,
            self.blocks_of(workers) if processes else guest.time_block,
            family=seat.cell.model,
            follows=seat.cell.technique == BASELINE,
            present=nullcontext if processes else guest.present,
        )

    def load_control(
        self, workers: list[Worker], stack: ExitStack, device: str, threads: int
    ) -> None:
        """Load the control workload in one more worker."""
        worker = self._shop.hire(stack, device)
        workers.append(worker)
        worker.call(
            "load_control", self._shop.grid.budget.timeout_s, device=device, threads=threads,
            pin=self._shop.grid.measure.pin, near=self._shop.hardware.node(device),
        )  # fmt: skip
        worker.pause()

    def blocks_of(self, workers: Sequence[Worker]) -> Callable[[], Samples]:
        """Return what gives a block of one of the workers, which have loaded the same."""
        budget, measure = self._shop.grid.budget, self._shop.grid.measure
        return alternate(workers, budget.timeout_s, measure.block_s, self.order)

    def forget_answers(self) -> None:
        """Let go of known answers: all seats have been judged."""
        self._known_answers = KnownAnswers()

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
                "answers", self._shop.grid.budget.timeout_s, variant=seat.variant, batch=cell.batch,
                known=None if other is None else other["outputs"],
            )  # fmt: skip
            answers = found if found is not None else other or {}
            known.keep(place, cell.batch, answers)
        return answers


def _absent(seat: Seat) -> Member:
    """Return the member of a seat that takes no part in this session.

    What it was timed in earlier ones counts for the others, too.
    """
    why = DECISION if seat.problem is None else "failure"
    return Member(seat.cell.id, never, seat.cell.model, stopped_by=why)
