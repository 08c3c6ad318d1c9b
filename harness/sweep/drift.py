"""Drift: how far a cell changed from first round to last, beyond what the machine did."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from harness import stats
from harness.record import Record
from harness.sweep.heat import Member

DRIFT = 0.05
DRIFT_P_VALUE = 0.01
"""What changed by more than DRIFT from first round to last, surely, has not settled."""


def with_drift(record: Record, member: Member, control: Member) -> Record:
    """Return the record with how far the cell drifted, beyond what the machine did meanwhile.

    The machine's drift is that of the control's latency; a cell's is that of its ratio to the
    control in each round, or of its latency where the control was not timed, or not to the end.
    Drift is within a session: each begins with fresh processes.
    """
    medians, beside = member.medians(), {} if control.problem else control.rounds()
    sessions = {number: block.session for number, block in member.rounds().items()}
    shared = [number for number in medians if number in beside]
    if not shared:
        trend, machine_drift = find_drift(medians, sessions), float("nan")
    else:
        trend = find_drift({n: medians[n] / beside[n].median_s for n in shared}, sessions)
        machine_drift = find_drift({n: beside[n].median_s for n in shared}, sessions).change
    return record.under(
        drift=trend.change,
        settled=not (trend.p_value < DRIFT_P_VALUE and abs(trend.change) > DRIFT),
        machine_drift=machine_drift,
    )


def find_drift(values: Mapping[int, float], sessions: Mapping[int, int]) -> stats.Trend:
    """Return the trend of values by round from the start of a session to its end.

    Of several sessions it is that of the mean of those rounds that have the same place in each,
    every session's values as multiples of their median.
    """
    series: dict[int, list[float]] = {}
    for number, value in values.items():
        series.setdefault(sessions[number], []).append(value)
    parts = [np.array(one) / np.median(one) for one in series.values()]
    table = np.full((len(parts), max(map(len, parts), default=0)), np.nan)
    for row, part in zip(table, parts, strict=True):
        row[: len(part)] = part
    return stats.find_trend(np.nanmean(table, 0) if parts else [])
