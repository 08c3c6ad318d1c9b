"""Conclusions: what a heat's blocks and answers say of each cell, as records and tables."""

from __future__ import annotations

import hashlib
import traceback
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from bench.conventions import IGNORED
from harness import scores, stats
from harness.errors import WorkerFailure, WorkerRefusal
from harness.grid import Budget
from harness.measure.disturbance import CAUSES, Disturbance
from harness.measure.roofline import Roofs, explain
from harness.record import EXAMPLES_SCHEMA, SAMPLES_SCHEMA, Record, Status
from harness.store import CONTROL_PREFIX
from harness.sweep.heat import Member, TimedBlock, compare
from harness.sweep.seat import Answers, Seat, TimedHeat, find_baseline

HEADLINES = {"": "clean", "loaded": "loaded", "preempted": "all", "throttled": "all"}
"""What the headline is taken from, by the worst cause it had to admit."""
DRIFT = 0.05
DRIFT_P_VALUE = 0.01
"""What changed by more than DRIFT from first round to last, surely, has not settled."""
OVERSUBSCRIBED_SHARE = 0.1
"""Share of blocks with more running threads than processors that makes a cell oversubscribed."""


def conclude(
    timed: TimedHeat, seat: Seat, budget: Budget, roofs: Roofs | None, processors: int
) -> Record:
    """Return the finished record of a seat."""
    problem = seat.problem or (seat.member.problem if seat.member else None)
    if problem is not None:
        return with_problem(seat.record, problem)
    assert seat.member is not None
    latency = timed.latencies[seat.member.name]
    status: Status = "partial" if timed.interrupted else "measured"
    record = with_latency(replace(seat.record, status=status), seat.member, latency, timed.slowness)
    record = with_time_to_target(record)
    record = with_drift(record, seat.member, timed.control)
    record = with_disturbance(record, seat.member, processors).under(
        heat=timed.name,
        together=timed.processes > 0,
        processes=seat.member.processes,
        process_spread=timed.process_spread,
        stalled_share=timed.stalled_share,
        machine_speed=timed.machine_speed,
        interval_reached=latency.relative_half_width <= budget.relative_ci,
        test_examples=len(seat.answers.get("labels", ())) or None,
    )
    if timed.control.blocks:
        record = record.measured(control_latency_s=timed.latencies[timed.control.name])
    baseline = find_baseline(timed.seats, seat.cell)
    wanted = baseline.answers if baseline else {}
    record = record.measured(**judge_answers(seat.answers, wanted))
    doubts = doubt_answers(seat.answers, wanted)
    record = record.under(warnings=[*record.conditions.get("warnings", ()), *doubts])
    if baseline is not None and baseline.member is not None and baseline.member.blocks:
        ratio = compare(seat.member, baseline.member, timed.process_spread)
        record = record.measured(latency_ratio=ratio.estimate, latency_ratio_p_value=ratio.p_value)
    return with_explanation(record, seat, roofs)


def has_blocks(seat: Seat) -> bool:
    """Tell whether there is anything to conclude of a seat: blocks, or what went wrong."""
    return seat.problem is not None or bool(
        seat.member and (seat.member.blocks or seat.member.problem)
    )


def with_problem(record: Record, problem: WorkerFailure | WorkerRefusal) -> Record:
    """Return the record as failed or skipped, with the reason."""
    if isinstance(problem, WorkerRefusal):
        return replace(record, status="skipped", message=str(problem))
    return replace(record, status="failed", failure_kind=problem.kind, message=problem.message)


def own_mistake(mistake: Exception) -> WorkerFailure:
    """Return the failure of a cell at which this program itself is to blame."""
    place = traceback.extract_tb(mistake.__traceback__)[-1]
    text = " ".join(f"{type(mistake).__name__}: {mistake}".split())[:300]
    return WorkerFailure(
        "internal",
        f"paretogrid's own mistake: {text} ({Path(place.filename).name}:{place.lineno}). Please "
        "report this line with what the model returns; the other cells are not affected.",
    )


def judge_answers(answers: Answers, baseline: Answers) -> dict[str, Any]:
    """Return how good the answers are, and fidelity and agreement to a baseline's.

    Where labels are known: accuracy and macro F1, or for labels that are numbers R².
    """
    found: dict[str, Any] = {}
    predicted, labels = answers.get("predicted"), answers.get("labels")
    if predicted is None or labels is None or len(predicted) != len(labels):
        pass
    elif labels.dtype.kind == "f":
        found["r2"] = scores.r2_interval(predicted, labels)
    else:
        judged = labels != IGNORED
        hits = predicted == labels
        found["accuracy"] = (
            scores.wilson_interval(int(hits[judged].sum()), int(judged.sum()))
            if labels.ndim == 1
            else scores.clustered_interval(hits & judged, judged)
        )
        found["macro_f1"] = scores.macro_f1(predicted[judged], labels[judged])
    if baseline:
        found["fidelity"] = scores.relative_fidelity(answers["outputs"], baseline["outputs"])
        wanted = baseline.get("predicted")
        classes = predicted if predicted is not None and predicted.dtype.kind == "i" else None
        if classes is not None and wanted is not None and wanted.shape == classes.shape:
            found["agreement"] = float(np.mean(classes == wanted))
    return found


def doubt_answers(answers: Answers, baseline: Answers) -> list[str]:
    """Return what makes quality doubtful: outputs that are no numbers, shapes read in two ways.

    Minus infinity and the like stand for "not allowed"; NaN and infinity mostly for an overflow.
    """
    found = []
    outputs, labels = answers.get("outputs"), answers.get("labels")
    if outputs is not None and outputs.size:
        wanted = baseline.get("outputs", outputs)
        alike = wanted.shape == outputs.shape
        lost = np.isinf(outputs) | np.isnan(outputs)
        alone = lost & np.isfinite(wanted) if alike else lost
        broken = np.isnan(outputs) | (outputs == np.inf)
        if alone.any() and alike:
            found.append(f"{_share(alone)} of the outputs are NaN or infinite where the baseline's "
                         "are not: fidelity is 0")  # fmt: skip
        elif broken.any():
            found.append(f"{_share(broken)} of the outputs are NaN or infinite; fidelity leaves "
                         "out where the baseline's are too")  # fmt: skip
    if labels is not None and labels.dtype.kind != "f":
        shape = tuple(answers["shape"].tolist())
        if len(shape) > 2 and shape[:1] + shape[2:] == shape[:-1] == labels.shape:
            found.append(
                f"classes may lie along the second dimension of outputs {shape} or along the last; "
                "they are taken from the second"
            )
    return found


def _share(marked: Any) -> str:
    share = float(np.mean(marked))
    return f"{share * 100:.0f} %" if share >= 0.01 else "some"


def with_latency(
    record: Record, member: Member, latency: stats.Estimate, slowness: Mapping[int, float]
) -> Record:
    """Return the record with latency, throughput and tails, from the headline's blocks.

    Tails are of the heat's median round, as the latency is; `slowness`: how slow each round was.
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
        headline_blocks=HEADLINES[CAUSES[level]],
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


def with_drift(record: Record, member: Member, control: Member) -> Record:
    """Return the record with how far the cell drifted, beyond what the machine did meanwhile.

    The machine's drift is that of the control's latency; a cell's is that of its ratio to the
    control in each round, or of its latency where the control was not timed.
    """
    medians, beside = member.medians(), control.rounds()
    shared = [number for number in medians if number in beside]
    if not shared:
        trend, machine_drift = stats.find_trend(list(medians.values())), float("nan")
    else:
        trend = stats.find_trend([medians[n] / beside[n].median_s for n in shared])
        machine_drift = stats.find_trend([beside[n].median_s for n in shared]).change
    return record.under(
        drift=trend.change,
        settled=not (trend.p_value < DRIFT_P_VALUE and abs(trend.change) > DRIFT),
        machine_drift=machine_drift,
    )


def with_disturbance(record: Record, member: Member, processors: int) -> Record:
    """Return the record with what disturbed its blocks, and a warning if it had too few cores."""
    found = [block.samples.disturbance for block in member.blocks]
    wall_s = sum(one.wall_s for one in found) or float("nan")
    threads = record.cell.threads
    crowded = [one for one in found if one.others + threads > processors]
    warnings = list(record.conditions.get("warnings", ()))
    beside = len(crowded) > OVERSUBSCRIBED_SHARE * len(found)
    if beside:
        warnings.append(describe_crowd(threads, processors, crowded, len(found)))
    return record.under(
        disturbed_share=float(np.mean([bool(one.cause) for one in found])),
        throttled_by=sorted({reason for one in found for reason in one.throttled_by}),
        oversubscribed=beside or any(text.startswith("oversubscribed") for text in warnings),
        others_processors=max(0.0, sum(one.others_s for one in found) / wall_s),
        stolen_share=max(0.0, sum(one.stolen_s for one in found) / wall_s / processors),
        warnings=warnings,
    )


def describe_crowd(threads: int, processors: int, crowded: list[Disturbance], blocks: int) -> str:
    """Return the warning of a cell with more running threads than processors."""
    others = int(np.median([one.others for one in crowded]))
    return (
        f"oversubscribed: {threads} thread{'s' * (threads > 1)} beside {others} busy "
        f"neighbour{'s' * (others > 1)} on {processors} processors"
    )


def with_explanation(record: Record, seat: Seat, roofs: Roofs | None) -> Record:
    """Return the record with what bounds its speed, and how close to that bound it came."""
    macs = record.metrics.get("macs")
    if seat.traffic is None or macs is None or np.isnan(macs) or roofs is None:
        return record
    examples = record.conditions.get("call_examples") or seat.cell.batch
    found = explain(2 * macs * examples, seat.traffic, record.metrics["latency_s"], roofs)
    return record.measured(
        bytes_moved=float(seat.traffic.bytes_moved),
        arithmetic_intensity=found.arithmetic_intensity,
        fraction_of_roof=found.fraction_of_roof,
    ).under(bound=found.bound)


def samples_table(cell_id: str, heat: str, member: Member | None) -> pa.Table:
    """Return every raw sample of a member, a row each, with the marks of its block."""
    blocks = member.blocks if member else []
    if not blocks:
        return SAMPLES_SCHEMA.empty_table()
    counts = [len(block.samples.seconds) for block in blocks]
    total = sum(counts)
    columns: dict[str, Any] = {"cell_id": [cell_id] * total, "heat": [heat] * total}
    per_block = [dict(_block_columns(block)) for block in blocks]
    for name in per_block[0]:
        columns[name] = np.repeat([values[name] for values in per_block], counts)
    columns["seconds"] = np.concatenate([block.samples.seconds for block in blocks])
    return pa.table(columns).select(SAMPLES_SCHEMA.names).cast(SAMPLES_SCHEMA)


def _block_columns(block: TimedBlock) -> Iterator[tuple[str, Any]]:
    yield from (("round", block.round), ("block", block.block), ("position", block.position))
    yield from (("at_s", block.at_s), ("loops", block.samples.loops))
    yield "process", block.samples.process
    found = block.samples.disturbance
    yield from (("disturbed", bool(found.cause)), ("cause", found.cause))
    for name in ("lost_s", "switches", "others", "frequency_hz"):
        yield name, getattr(found, name)


def control_id(heat: str) -> str:
    """Return what the control's samples of a heat are kept under, in place of a cell's id."""
    return f"{CONTROL_PREFIX}{hashlib.sha256(heat.encode()).hexdigest()[:12]}"


def examples_table(seat: Seat) -> pa.Table:
    """Return label and prediction of every test example of a seat, where these are classes."""
    predicted, labels = seat.answers.get("predicted"), seat.answers.get("labels")
    if predicted is None or labels is None or len(predicted) != len(labels):
        return EXAMPLES_SCHEMA.empty_table()
    if labels.dtype.kind == "f" or labels.ndim > 1:
        return EXAMPLES_SCHEMA.empty_table()
    columns = {
        "cell_id": [seat.cell.id] * len(labels),
        "example": np.arange(len(labels)),
        "label": labels,
        "predicted": predicted,
    }
    return pa.table(columns).cast(EXAMPLES_SCHEMA)
