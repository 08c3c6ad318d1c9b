"""Ratio: how long a cell takes beside its baseline, as its record has it."""

from __future__ import annotations

from collections.abc import Sequence
from math import isfinite

from harness.likeness import compare_work
from harness.record import Record
from harness.repeats import pay_for_looks
from harness.stats import Estimate
from harness.sweep.heat import DECISION
from harness.sweep.seat import Seat, TimedHeat, find_baseline


def with_likeness(record: Record, seats: Sequence[Seat], seat: Seat) -> Record:
    """Return the record with how much of its work a seat has in common with its baseline.

    Unknown where that was not timed.
    """
    baseline = _find_timed_baseline(seats, seat)
    if baseline is None:
        return record
    return record.under(reference_likeness=compare_work(seat.work, baseline.work))


def _find_timed_baseline(seats: Sequence[Seat], seat: Seat) -> Seat | None:
    baseline = find_baseline(seats, seat.cell)
    timed = baseline is not None and baseline.member is not None and baseline.member.blocks
    return baseline if timed else None


def with_ratio(record: Record, timed: TimedHeat, seat: Seat) -> Record:
    """Return the record with the ratio of a seat's latency to its baseline's, if that was timed."""
    baseline = _find_timed_baseline(timed.seats, seat)
    if baseline is None:
        return record
    record = with_likeness(record, timed.seats, seat)
    if baseline is seat:
        record = record.measured(latency_ratio=Estimate(1.0, 1.0, 1.0))
        return record.under(latency_ratio_within_low=1.0, latency_ratio_within_high=1.0)
    ratio = timed.compare(seat, baseline)
    if not isfinite(ratio.estimate.value):  # no round in common: what is known of it stays
        return record
    p_value = ratio.p_value
    # Of a partial one it is not known: a kill leaves no trace of why it was timed no further.
    left = record.status == "partial" or record.conditions.get("stopped_by") == DECISION
    if seat.member is not None and (left or seat.member.stopped_by == DECISION):
        p_value = pay_for_looks(p_value, len(seat.member.rounds()))
    record = record.measured(latency_ratio=ratio.estimate, latency_ratio_p_value=p_value)
    return record.under(
        latency_ratio_within_low=ratio.within.low, latency_ratio_within_high=ratio.within.high
    )
