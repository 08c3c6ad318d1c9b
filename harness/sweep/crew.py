"""The crew of a heat: a worker for each cell, what each was asked, and the records they earn."""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import pyarrow as pa

from harness import stats
from harness.errors import WorkerFailure, WorkerRefusal
from harness.grid import BASELINE, Cell, Grid
from harness.record import EXAMPLES_SCHEMA, SAMPLES_SCHEMA, Record
from harness.sweep.heat import Member, Stop, run_heat
from harness.sweep.launcher import Launcher, Worker
from harness.sweep.plan import import_folders

Answers = dict[str, np.ndarray]
KnownAnswers = dict[tuple[str, str, str], dict[int, Answers]]
"""Answers by (variant, device, runtime), then by batch."""


@dataclass(frozen=True)
class Shop:
    """Where workers come from and under which limits they work."""

    launcher: Launcher
    grid: Grid
    memory_bytes: int

    def hire(self, stack: ExitStack, device: str = "cpu") -> Worker:
        """Return a worker that ends with the stack, limited in memory on the host.

        CUDA reserves far more address space than it uses, so its workers have no such limit.
        """
        worker = stack.enter_context(self.launcher.worker())
        worker.call(
            "set_up",
            self.grid.budget.timeout_s,
            limit_bytes=self.memory_bytes if device == "cpu" else 0,
            folders=import_folders(self.grid),
        )
        return worker


@dataclass
class Seat:
    """A cell in the heat, and what is known of it so far."""

    cell: Cell
    variant: str
    record: Record
    kept: bool
    member: Member | None = None
    answers: Answers = field(default_factory=dict)


class Crew:
    """The seats of one heat; their workers end with the stack."""

    def __init__(
        self, shop: Shop, name: str, known_answers: KnownAnswers, stack: ExitStack
    ) -> None:
        self.shop = shop
        self.name = name
        self.seats: list[Seat] = []
        self._known_answers = known_answers
        self._stack = stack

    def admit(self, cell: Cell, variant: str, record: Record, kept: bool = True) -> Seat:
        """Measure a cell's memory in a process of its own, then load it in the one that is timed.

        A seat without a member has a record that says why.
        """
        seat = Seat(cell, variant, record, kept)
        self.seats.append(seat)
        try:
            if kept:
                seat.record = seat.record.measured(**self._measure_memory(seat))
            self._load(seat)
        except (WorkerFailure, WorkerRefusal) as problem:
            seat.record = with_problem(seat.record, problem)
        return seat

    def run(self, seed: int) -> None:
        """Time all loaded seats in a heat."""
        budget, measure = self.shop.grid.budget, self.shop.grid.measure
        stop = Stop(budget.relative_ci, budget.max_seconds_per_cell, measure.least_rounds)
        run_heat([seat.member for seat in self.seats if seat.member], stop, seed)

    def results(self) -> list[tuple[Record, pa.Table, pa.Table]]:
        """Return (record, samples, examples) of every seat that is kept."""
        return [
            (self._conclude(seat), _samples_table(seat, self.name), _examples_table(seat))
            for seat in self.seats
            if seat.kept
        ]

    def _measure_memory(self, seat: Seat) -> dict[str, float]:
        cell = seat.cell
        with ExitStack() as stack:
            worker = self.shop.hire(stack, cell.device)
            found: dict[str, float] = worker.call(
                "measure_memory", self.shop.grid.budget.timeout_s, variant=seat.variant,
                device=cell.device, runtime=cell.runtime, threads=cell.threads, batch=cell.batch,
            )  # fmt: skip
        return found

    def _load(self, seat: Seat) -> None:
        cell, timeout_s = seat.cell, self.shop.grid.budget.timeout_s
        measure = self.shop.grid.measure
        worker = self.shop.hire(self._stack, cell.device)
        loaded = worker.call(
            "load", timeout_s, variant=seat.variant, device=cell.device, runtime=cell.runtime,
            threads=cell.threads, batch=cell.batch, pin=measure.pin,
            wait_policy=measure.wait_policy,
        )  # fmt: skip
        seat.answers = self._ask_answers(seat, worker)
        device_s = loaded["device_latency_s"]
        seat.record = seat.record.under(
            **loaded["settings"], warnings=loaded["warnings"], loops=loaded["loops"]
        ).measured(**({} if device_s is None else {"device_latency_s": device_s}))
        seat.member = Member(
            cell.id,
            lambda: worker.call("block", timeout_s, block_s=measure.block_s),
            leads=cell.technique == BASELINE,
        )

    def _ask_answers(self, seat: Seat, worker: Worker) -> Answers:
        """Ask once for each variant, device, runtime and batch: threads do not change answers.

        Nor do most batches; the worker checks that before it repeats the whole test split.
        """
        cell = seat.cell
        place = (seat.variant, cell.device, cell.runtime)
        known = self._known_answers.setdefault(place, {})
        if cell.batch not in known:
            other = next(iter(known.values()), None)
            found = worker.call(
                "answers", self.shop.grid.budget.timeout_s, variant=seat.variant, batch=cell.batch,
                known=None if other is None else other["outputs"],
            )  # fmt: skip
            known[cell.batch] = other if found is None and other is not None else found
        return known[cell.batch]

    def _conclude(self, seat: Seat) -> Record:
        member = seat.member
        if member is None:
            return seat.record
        if member.problem is not None:
            return with_problem(seat.record, member.problem)
        leader = next((s for s in self.seats if s.member is not None and s.member.leads), None)
        record = _with_latency(seat.record, seat.cell, member, self.name)
        limit = self.shop.grid.budget.relative_ci
        record = record.under(interval_reached=member.is_narrow(limit))
        record = record.measured(**judge_answers(seat.answers, leader.answers if leader else {}))
        if leader is not None and leader.member is not None and leader.member.blocks:
            record = _with_ratio(record, member, leader.member)
        return record.under(test_examples=len(seat.answers.get("labels", ())) or None)


def with_problem(record: Record, problem: WorkerFailure | WorkerRefusal) -> Record:
    """Return the record as failed or skipped, with the reason."""
    if isinstance(problem, WorkerRefusal):
        return replace(record, status="skipped", message=str(problem))
    return replace(record, status="failed", failure_kind=problem.kind, message=problem.message)


def judge_answers(answers: Answers, baseline: Answers) -> dict[str, Any]:
    """Return accuracy and macro F1 where labels are known; fidelity and agreement to a baseline."""
    found: dict[str, Any] = {}
    predicted, labels = answers.get("predicted"), answers.get("labels")
    if predicted is not None and labels is not None and len(predicted) == len(labels):
        hits = int(np.sum(predicted == labels))
        found["accuracy"] = stats.wilson_interval(hits, len(labels))
        found["macro_f1"] = stats.macro_f1(predicted, labels)
    if baseline:
        found["fidelity"] = stats.relative_fidelity(answers["outputs"], baseline["outputs"])
        wanted = baseline.get("predicted")
        if predicted is not None and wanted is not None and len(wanted) == len(predicted):
            found["agreement"] = float(np.mean(predicted == wanted))
    return found


def _with_latency(record: Record, cell: Cell, member: Member, heat: str) -> Record:
    latency = member.latency()
    pooled = np.concatenate([block.samples.seconds for block in member.blocks])
    single = record.conditions.get("loops") == 1  # percentiles of means would be too low
    batch = cell.batch
    return record.measured(
        latency_s=latency,
        throughput_per_s=stats.Estimate(
            batch / latency.value, batch / latency.high, batch / latency.low
        ),
        latency_p90_s=stats.percentile(pooled, 90, stats.LEAST_FOR_P90) if single else float("nan"),
        latency_p99_s=stats.percentile(pooled, 99, stats.LEAST_FOR_P99) if single else float("nan"),
    ).under(
        heat=heat,
        rounds=len(member.blocks),
        samples=len(pooled),
        stopped_by=member.stopped_by,
    )


def _with_ratio(record: Record, member: Member, leader: Member) -> Record:
    mine, theirs = member.round_medians(), leader.round_medians()
    shared = sorted(mine.keys() & theirs.keys())
    ratio = stats.paired_ratio([mine[r] for r in shared], [theirs[r] for r in shared])
    return record.measured(latency_ratio=ratio.estimate, latency_ratio_p_value=ratio.p_value)


def _samples_table(seat: Seat, heat: str) -> pa.Table:
    blocks = seat.member.blocks if seat.member else []
    if not blocks:
        return SAMPLES_SCHEMA.empty_table()
    counts = [len(block.samples.seconds) for block in blocks]
    total = sum(counts)
    columns = {
        "cell_id": [seat.cell.id] * total,
        "heat": [heat] * total,
        "round": np.repeat([block.round for block in blocks], counts),
        "block": np.repeat([block.block for block in blocks], counts),
        "position": np.repeat([block.position for block in blocks], counts),
        "seconds": np.concatenate([block.samples.seconds for block in blocks]),
        "loops": np.repeat([block.samples.loops for block in blocks], counts),
        "disturbed": pa.nulls(total, pa.bool_()),
    }
    return pa.table(columns).cast(SAMPLES_SCHEMA)


def _examples_table(seat: Seat) -> pa.Table:
    predicted, labels = seat.answers.get("predicted"), seat.answers.get("labels")
    if predicted is None or labels is None or len(predicted) != len(labels):
        return EXAMPLES_SCHEMA.empty_table()
    columns = {
        "cell_id": [seat.cell.id] * len(labels),
        "example": np.arange(len(labels)),
        "label": labels,
        "predicted": predicted,
    }
    return pa.table(columns).cast(EXAMPLES_SCHEMA)
