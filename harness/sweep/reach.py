"""Reach: what this machine can reach at best, measured when it is first asked for in a run."""

from __future__ import annotations

from harness.errors import WorkerFailure, WorkerRefusal
from harness.measure.roofline import Roofs
from harness.store import Run
from harness.sweep.shop import Shop


def place_of(device: str, threads: int) -> str:
    """Return what the roofs of a device are called in a run's facts."""
    return f"{device}, threads {threads}"


TIMEOUT_S = 300.0
TRIES = 2
"""A worker that was killed, for memory too, says nothing of the machine."""


class Reach:
    """The roofs of a run's devices; each is noted in the run's facts."""

    def __init__(self, shop: Shop, run: Run) -> None:
        self._shop = shop
        self._run = run
        self._known: dict[tuple[str, int], Roofs | None] = {}

    def roofs(self, device: str, threads: int) -> Roofs | None:
        """Return what the device can reach with so many threads; None where that fails."""
        if (device, threads) not in self._known:
            self._shop.progress.phase(f"measuring what {device} can reach with threads {threads}")
            found = self._measure(device, threads)
            self._known[device, threads] = found
            if found is not None:
                facts = self._run.facts()
                known = {**facts.get("roofs", {}), place_of(device, threads): found.to_json()}
                self._run.write_facts({**facts, "roofs": known})
        return self._known[device, threads]

    def _measure(self, device: str, threads: int) -> Roofs | None:
        hardware = self._shop.hardware
        # A grid's limits are of its cells, and what the machine can reach does not depend on them.
        for _ in range(TRIES):
            try:
                with self._shop.launcher.worker() as worker:
                    found: Roofs = worker.call(
                        "roofs", TIMEOUT_S, device=device, threads=threads,
                        pin=self._shop.grid.measure.pin, machine=hardware.machine,
                        near=hardware.node(device),
                    )  # fmt: skip
                    return found
            except (WorkerFailure, WorkerRefusal) as problem:
                reason = str(problem)
        self._shop.progress.phase(  # cells have their rows, and no explanation
            f"what {device} can reach with threads {threads} is not known: {reason}"
        )
        return None
