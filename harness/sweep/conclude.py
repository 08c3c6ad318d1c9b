"""Conclusions: what a heat's blocks and answers say of each cell, as a record."""

from __future__ import annotations

import traceback
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from math import isfinite, sqrt
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
import pyarrow as pa

from harness import stats
from harness.errors import WorkerFailure, WorkerRefusal
from harness.grid import Budget
from harness.known import Between
from harness.measure.roofline import Roofs, explain
from harness.record import TIMED, Record
from harness.rounds import CAUSES
from harness.sweep.disturbed import with_disturbance
from harness.sweep.drift import with_drift
from harness.sweep.heat import DECISION, Member
from harness.sweep.judge import doubt_answers, find_right, judge_answers
from harness.sweep.ratio import with_ratio
from harness.sweep.seat import Seat, TimedHeat, find_baseline
from harness.sweep.tables import examples_table

HEADLINES = {"": "clean", "loaded": "loaded", "preempted": "all", "throttled": "all"}
"""What the headline is taken from, by the worst cause it had to admit."""


def conclude(
    timed: TimedHeat, seat: Seat, budget: Budget, roofs: Roofs | None, processors: int,
    earlier: Mapping[str, Any] | None = None,
) -> Record:  # fmt: skip
    """Return the finished record of a seat; of one with an `earlier` row of this heat, a timed one.

    It goes on with what it had, and keeps that though it fails.
    """
    problem = seat.failure
    goes_on = earlier is not None and seat.member is not None and bool(seat.member.blocks)
    if problem is not None and not goes_on:
        return with_problem(seat.record, problem)
    assert seat.member is not None
    record = seat.record
    if problem is not None:
        record = with_warning(record, f"it went on and failed: {problem}")
    if earlier is not None and earlier["status"] == "measured":
        record = with_energy(record, earlier)
    elif problem is not None or ((timed.interrupted or timed.open) and not has_place(seat)):
        record = replace(record, status="partial")
    record = with_level(record, timed, seat)
    record = with_drift(record, seat.member, timed.control)
    record = with_disturbance(record, seat.member, processors).under(
        heat=timed.name,
        together=timed.processes > 0,
        processes=seat.member.processes,
        process_spread=timed.process_spread,
        stalled_share=timed.stalled_share,
        interval_reached=timed.within[seat.member.name].relative_half_width <= budget.relative_ci,
    )
    record = with_sessions(record, seat.member, timed.between)
    if timed.control.problem is not None:
        lost = f"the control workload ended in the heat ({timed.control.problem}): how fast the "
        record = with_warning(record, lost + "machine was, and whether that changed, is not known")
    return with_explanation(with_ratio(record, timed, seat), seat, roofs)


def conclude_again(
    timed: TimedHeat, seats: Sequence[Seat], roofs: Roofs | None
) -> Iterator[tuple[Seat, Record]]:  # fmt: skip
    """Yield those who had their last record in an earlier session, with what it is by now.

    A heat's latencies are told at one level, that of all its sessions: those of who has left, too,
    or they would be as if the machine had stood still since. What was timed of them stays.
    """
    for seat in seats:
        timed_before = seat.record.status in TIMED and seat.member and seat.member.blocks
        here = seat.record.conditions.get("heat") == timed.name
        if not (seat.concluded and timed_before and here):
            continue
        try:
            record = with_level(seat.record, timed, seat)
            if seat.member is not None:
                record = with_sessions(record, seat.member, timed.between)
            record = record.under(
                process_spread=timed.process_spread,
                stopped_by=seat.record.conditions.get("stopped_by"),  # by which looks are paid for
            )
            record = with_ratio(record, timed, seat)
            yield seat, with_explanation(record, seat, roofs)
        except Exception:  # ours: it keeps the record that it has
            continue


def conclude_kept(
    timed: TimedHeat, budget: Budget, roofs: Roofs | None, processors: int,
    earlier: Mapping[str, Mapping[str, Any]] = MappingProxyType({}),
) -> Iterator[tuple[Seat, Record, pa.Table | None]]:  # fmt: skip
    """Yield the seats of a heat that are to be kept and have something, with record and examples.

    A mistake of ours costs a cell, not the others. `earlier` has the rows of those who were timed
    in this heat before. A reference among them is kept, too, with what it was timed for the others.
    """
    for seat in timed.seats:
        if seat.concluded:
            continue
        row = earlier.get(seat.cell.id)
        wanted = seat.kept or (row is not None and seat.member and seat.member.blocks)
        if not wanted or (timed.interrupted and not has_blocks(seat)):
            continue
        try:
            record = conclude(timed, seat, budget, roofs, processors, row)
            yield seat, record, examples_table(seat)
        except Exception as mistake:
            yield seat, with_problem(seat.record, own_mistake(mistake)), None


def judge_seats(seats: Sequence[Seat]) -> None:
    """Add to each seat's record how good its answers are, beside its baseline's."""
    for seat in seats:
        if seat.member is None or seat.judged:
            continue
        seat.judged = True
        baseline = find_baseline(seats, seat.cell)
        wanted = baseline.answers if baseline else {}
        try:
            record = seat.record.measured(**judge_answers(seat.answers, wanted))
            seat.right = find_right(seat.answers)
            doubts = doubt_answers(seat.answers, wanted)
        except Exception as mistake:  # ours: it costs this cell, not the others
            seat.member, seat.problem = None, own_mistake(mistake)
            continue
        seat.record = record.under(
            warnings=[*record.conditions.get("warnings", ()), *doubts],
            test_examples=len(seat.answers.get("labels", ())) or None,
        )


def has_blocks(seat: Seat) -> bool:
    """Tell whether there is anything to conclude of a seat: blocks, or what went wrong."""
    return seat.failure is not None or bool(seat.member and seat.member.blocks)


def has_place(seat: Seat) -> bool:
    """Tell whether a seat was timed until its place was known, and is not timed further."""
    return seat.failure is None and seat.member is not None and seat.member.stopped_by == DECISION


def with_warning(record: Record, text: str) -> Record:
    """Return the record with one more warning."""
    return record.under(warnings=[*record.conditions.get("warnings", ()), text])


def with_problem(record: Record, problem: WorkerFailure | WorkerRefusal) -> Record:
    """Return the record as failed or skipped, with the reason."""
    if isinstance(problem, WorkerRefusal):
        return replace(record, status="skipped", message=str(problem))
    return replace(record, status="failed", failure_kind=problem.kind, message=problem.message)


def with_energy(record: Record, earlier: Mapping[str, Any]) -> Record:
    """Return the record with the energy that a row has, which a heat does not measure."""
    if earlier["energy_j"] is None:
        return record
    known = record.measured(energy_j=earlier["energy_j"])
    return known.under(energy_source=earlier["energy_source"])


def own_mistake(mistake: Exception) -> WorkerFailure:
    """Return the failure of a cell at which this program itself is to blame."""
    place = traceback.extract_tb(mistake.__traceback__)[-1]
    text = " ".join(f"{type(mistake).__name__}: {mistake}".split())[:300]
    return WorkerFailure(
        "internal",
        f"paretogrid's own mistake: {text} ({Path(place.filename).name}:{place.lineno}). Please "
        "report this line with what the model returns; the other cells are not affected.",
    )


def with_latency(
    record: Record, member: Member, latency: stats.Estimate, slowness: Mapping[int, float]
) -> Record:
    """Return the record with latency, throughput and tails, from the headline's blocks.

    Tails are told at the heat's level, as the latency is; `slowness`: how slow each round was
    beside it.
    """
    level = member.headline_level()
    examples = record.conditions.get("call_examples") or record.cell.batch
    rounds = member.rounds()
    pooled = np.concatenate([rounds[n].samples.seconds / slowness[n] for n in member.medians()])
    single = record.conditions.get("loops") == 1  # percentiles of means would be too low
    return record.measured(
        latency_s=latency,
        throughput_per_s=stats.Estimate(
            examples / latency.value, examples / latency.high, examples / latency.low
        ),
        latency_p90_s=stats.percentile(pooled, 90, stats.LEAST_FOR_P90) if single else float("nan"),
        latency_p99_s=stats.percentile(pooled, 99, stats.LEAST_FOR_P99) if single else float("nan"),
    ).under(
        rounds=len(rounds),
        samples=sum(len(block.samples.seconds) for block in member.blocks),
        stopped_by=member.stopped_by,
        timed_s=member.spent_s,
        headline_blocks=HEADLINES[CAUSES[level]],
    )


def with_level(record: Record, timed: TimedHeat, seat: Seat) -> Record:
    """Return the record with a seat's latency at its heat's level, and what follows from it."""
    assert seat.member is not None
    latency, within = (found[seat.member.name] for found in (timed.latencies, timed.within))
    record = with_latency(record, seat.member, latency, timed.rounds.split.slowness)
    if timed.control.problem is None and timed.control.blocks:
        record = record.measured(control_latency_s=timed.latencies[timed.control.name])
    if isfinite(timed.machine_speed):
        record = record.under(machine_speed=timed.machine_speed)
    return with_time_to_target(record).under(
        latency_s_within_low=within.low,
        latency_s_within_high=within.high,
    )


def with_sessions(record: Record, member: Member, between: Between) -> Record:
    """Return the record with its sessions, and what was known of how far sessions are apart."""
    rounds = member.rounds()
    told = {rounds[number].session for number in member.medians()}  # those of the headline
    processes = {n: count for n, count in member.processes_by_session().items() if n in told}
    return record.under(
        sessions=len(processes),
        effective_processes=len(processes) ** 2 / sum(1 / count for count in processes.values()),
        work_spread=sqrt(between.work.variance),
        speed_spread=sqrt(between.speed.variance),
        known_sessions=between.work.sessions,
        known_heats=between.speed.sessions,
        run_spread=sqrt(between.work.shared),
        known_runs=between.work.runs,
        reference_share=between.work.at_reference,
    )


def with_time_to_target(record: Record) -> Record:
    """Return the record with the time that its training takes to its target, at this latency.

    Epochs to the target × updates in an epoch × the latency of an update: what the updates take on
    this device with these threads; reading data and looking at the tune split are left out.
    """
    epochs = record.metrics.get("epochs_to_target")
    if epochs is None:
        return record
    updates = epochs * record.conditions["updates_per_epoch"]
    low, high = (record.metrics[f"latency_s_{bound}"] for bound in ("low", "high"))
    total = stats.Estimate(updates * record.metrics["latency_s"], updates * low, updates * high)
    return record.measured(time_to_target_s=total)


def with_explanation(record: Record, seat: Seat, roofs: Roofs | None) -> Record:
    """Return the record with what bounds its speed, and how close to that bound it came."""
    if seat.traffic is None or np.isnan(seat.traffic.bytes_moved):
        return record
    moved, macs = float(seat.traffic.bytes_moved), record.metrics.get("macs")
    record = record.measured(bytes_moved=moved)
    if macs is None or np.isnan(macs):
        return record
    flops = 2 * macs * (record.conditions.get("call_examples") or seat.cell.batch)
    record = record.measured(arithmetic_intensity=flops / moved if moved else float("nan"))
    if roofs is None:
        return record
    found = explain(flops, seat.traffic, record.metrics["latency_s"], roofs)
    return record.measured(fraction_of_roof=found.fraction_of_roof).under(bound=found.bound)
