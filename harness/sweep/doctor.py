"""The examination behind `paretogrid doctor`: machine, roofs, self-tests, advice."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from bench.cache import cache_folder
from harness.errors import WorkerFailure, WorkerRefusal
from harness.grid import Measure
from harness.measure.machine import available_memory_bytes, describe_machine, fingerprint
from harness.measure.roofline import Roofs
from harness.measure.speed import speed_file
from harness.sweep.advice import advise
from harness.sweep.between import between_file, read_between
from harness.sweep.launcher import Launcher
from harness.sweep.self_test import SelfTest, run_self_test

TIMEOUT_S = 300.0
USUAL_CELLS = ""
"""No company has this name: of it is known what is usual of this machine's."""


@dataclass(frozen=True)
class Examination:
    """What was found of a machine; `devices` holds a description or the reason of absence."""

    machine: dict[str, Any]
    fingerprint: str
    devices: dict[str, dict[str, Any] | str]
    roofs: dict[str, Roofs]
    tests: tuple[SelfTest, ...]
    advice: tuple[str, ...]

    def to_json(self) -> dict[str, Any]:
        """Return the examination as plain data."""
        return asdict(self)


def examine(launcher: Launcher, threads: Sequence[int], tell: Callable[[str], None]) -> Examination:
    """Examine this machine with so many threads, in turn; `tell` hears what is being done."""
    machine = describe_machine()
    devices: dict[str, dict[str, Any] | str] = {}
    roofs: dict[str, Roofs] = {}
    tests = []
    for device in ("cpu", "cuda"):
        try:
            with launcher.worker() as worker:
                facts = worker.call("probe_device", TIMEOUT_S, device=device)
            devices[device] = facts
            here = fingerprint({**machine, **facts})
            counts = threads if device == "cpu" else threads[:1]
            for count in counts:
                tell(f"measuring what {device} can reach with threads {count}")
                with launcher.worker() as worker:
                    roofs[f"{device}, threads {count}"] = worker.call(
                        "roofs", TIMEOUT_S, device=device, threads=count, pin=True, machine=machine
                    )
            for count in counts:
                tell(f"comparing the same work with itself, {device}, threads {count}")
                speeds = speed_file(cache_folder(), here, f"{device}-{count}", "active", pin=True)
                apart = between_file(cache_folder(), here, f"{device}-{count}", Measure())
                known = read_between(apart, USUAL_CELLS).work
                tests.append(run_self_test(launcher, device, count, speeds, known))
        except (WorkerRefusal, WorkerFailure) as problem:  # told; the others are examined
            devices[device] = str(problem)
    advice = advise(machine, available_memory_bytes(), tests, devices)
    return Examination(machine, fingerprint(machine), devices, roofs, tuple(tests), tuple(advice))
