"""Events: what a run does, a line of JSON each, for programs that follow it."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

from harness.console.streams import as_json, drop_undelivered
from harness.record import Record
from harness.stats import Estimate
from harness.sweep.progress import Progress
from harness.sweep.standing import Standing

SCHEMA = "paretogrid.event/1"


def tell_events() -> Progress:
    """Return what the runner reports to, so that each report is an event."""
    return Progress(
        begin=lambda cells: print_event("begin", cells=cells),
        phase=lambda phase: print_event("phase", phase=phase),
        standings=lambda heat, found: print_event("standings", heat=heat, cells=_stand(found)),
        done=lambda record: print_event("cell", **_tell(record)),
    )


def print_event(event: str, **facts: Any) -> None:
    """Print an event with its time; nobody may read it: that costs the run nothing."""
    now = datetime.now(UTC).isoformat(timespec="milliseconds")
    line = json.dumps(
        as_json({"schema": SCHEMA, "event": event, "at": now, **facts}),
        default=str, allow_nan=False,
    )  # fmt: skip
    try:
        sys.stdout.write(line + "\n")
        sys.stdout.flush()
    except OSError:  # the reader has gone, or its disk is full; what is measured is kept
        drop_undelivered(sys.stdout)


def _stand(standings: Sequence[Standing]) -> list[dict[str, Any]]:
    return [
        {
            "cell_id": one.cell.id,
            **one.cell.axes(),
            **_bounds("latency_s", one.latency),
            **_bounds("latency_ratio", one.ratio),
            "expected_half_width": one.expected,
            "rounds": one.rounds,
            "stopped_by": one.stopped_by or None,
            "verdict": one.verdict or None,
            "problem": one.problem or None,
        }
        for one in standings
    ]


def _bounds(name: str, estimate: Estimate) -> dict[str, float]:
    return {name: estimate.value, f"{name}_low": estimate.low, f"{name}_high": estimate.high}


def _tell(record: Record) -> dict[str, Any]:
    return {
        "cell_id": record.cell.id,
        **record.cell.axes(),
        "status": record.status,
        "failure_kind": record.failure_kind or None,
        "message": record.message or None,
        "metrics": dict(record.metrics),
    }
