"""Disturbed: what disturbed a cell while it was timed, as its record has it."""

from __future__ import annotations

import numpy as np

from harness.measure.disturbance import Disturbance
from harness.record import Record
from harness.sweep.heat import Member
from harness.wording import counted

OVERSUBSCRIBED_SHARE = 0.1
"""Share of blocks with more running threads than processors that makes a cell oversubscribed."""


def with_disturbance(record: Record, member: Member, processors: int) -> Record:
    """Return the record with what disturbed its blocks, and a warning if it had too few cores."""
    found = [block.samples.disturbance for block in member.blocks]
    wall_s = sum(one.wall_s for one in found) or float("nan")
    stolen_s = sum(one.stolen_s for one in found)
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
        others_processors=float(np.maximum(0.0, sum(one.others_s for one in found) / wall_s)),
        stolen_share=float(np.maximum(0.0, stolen_s / wall_s / processors)),
        warnings=warnings,
    )


def describe_crowd(threads: int, processors: int, crowded: list[Disturbance], blocks: int) -> str:
    """Return the warning of a cell with more running threads than processors."""
    others = int(np.median([one.others for one in crowded]))
    return (
        f"oversubscribed: {counted(threads, 'thread')} beside {counted(others, 'busy neighbour')} "
        f"on {counted(processors, 'processor')}"
    )
