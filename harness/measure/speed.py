"""The machine's speed in a heat: the control workload against the fastest it was ever seen.

Other guests of a host slow it down without a trace in any counter (seen: 1.7 times, for minutes).
Ratios within a heat do not mind; latencies do, and this says by how much.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterable
from pathlib import Path

from harness.durable import remember

CONTROL_VERSION = 1
"""Of the control workload: only times of the same work can be compared."""
FASTEST_SHARE = 0.1
FASTEST = "fastest_tenth_s"


def find_speed(control_s: float, fastest_s: float, path: Path) -> float:
    """Return the share of its known speed at which the machine ran the control, at most 1.

    `control_s` is the control's latency, `fastest_s` what it took in the heat's fastest rounds
    (`find_fastest`). `path` is where the fastest of earlier heats is kept; it is brought up to
    date.
    """
    known_s = read_fastest_s(path)
    if fastest_s < known_s:
        known_s = fastest_s
        text = json.dumps({"control_version": CONTROL_VERSION, FASTEST: fastest_s})
        remember(path, text)
    return min(1.0, known_s / control_s)


def find_fastest(rounds_s: Iterable[float]) -> float:
    """Return the time that a tenth of the rounds were as fast as, and two at the least.

    A single round in a moment's boost would be the measure of every later heat.
    """
    ordered = sorted(rounds_s)
    return ordered[min(len(ordered) - 1, max(1, int(FASTEST_SHARE * len(ordered))))]


def speed_file(folder: Path, known_as: str, place: str, wait_policy: str, pin: bool) -> Path:
    """Return where the fastest of a machine (its fingerprint) in a place (cpu-1) is kept."""
    name = "-".join([place.replace(":", "-"), wait_policy, "pinned" if pin else "free"])
    return folder / "control" / known_as / f"{name}.json"


def read_fastest_s(path: Path) -> float:
    """Return the fastest time of the control kept in a file, in seconds; infinite where none is."""
    # A file that cannot be read, or is of another control, is as good as none.
    with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
        kept = json.loads(path.read_text())
        if kept["control_version"] == CONTROL_VERSION:
            return float(kept[FASTEST])
    return float("inf")
