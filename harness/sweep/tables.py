"""Tables: a heat's samples and a cell's answers, as the store keeps them."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pyarrow as pa

from harness.record import EXAMPLES_SCHEMA, SAMPLES_SCHEMA
from harness.sweep.heat import Member, TimedBlock
from harness.sweep.judge import has_classes
from harness.sweep.seat import Seat


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
    yield from (("session", block.session), ("round", block.round), ("block", block.block))
    yield "position", block.position
    yield from (("at_s", block.at_s), ("loops", block.samples.loops))
    yield "process", block.samples.process
    found = block.samples.disturbance
    yield from (("disturbed", bool(found.cause)), ("cause", found.cause))
    for name in ("lost_s", "switches", "others", "frequency_hz"):
        yield name, getattr(found, name)


def examples_table(seat: Seat) -> pa.Table:
    """Return label and prediction of every test example of a seat, where these are classes."""
    if not has_classes(seat.answers):
        return EXAMPLES_SCHEMA.empty_table()
    labels = seat.answers["labels"]
    columns = {
        "cell_id": [seat.cell.id] * len(labels),
        "example": np.arange(len(labels)),
        "label": labels,
        "predicted": seat.answers["predicted"],
    }
    return pa.table(columns).cast(EXAMPLES_SCHEMA)
