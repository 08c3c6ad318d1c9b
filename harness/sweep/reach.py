"""Reach: what this machine can reach at best, measured when it is first asked for in a run."""

from __future__ import annotations

from contextlib import ExitStack, suppress

from harness.errors import WorkerFailure, WorkerRefusal
from harness.measure.roofline import Roofs
from harness.store import Run
from harness.sweep.shop import Shop


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
                known = {**facts.get("roofs", {}), f"{device}, threads {threads}": found.to_json()}
                self._run.write_facts({**facts, "roofs": known})
        return self._known[device, threads]

    def _measure(self, device: str, threads: int) -> Roofs | None:
        grid, hardware = self._shop.grid, self._shop.hardware
        found: Roofs | None = None
        with suppress(WorkerFailure, WorkerRefusal), ExitStack() as stack:
            worker = self._shop.hire(stack, device)
            found = worker.call(  # without it, a cell has its row, and no explanation
                "roofs", grid.budget.timeout_s, device=device, threads=threads,
                pin=grid.measure.pin, machine=hardware.machine, near=hardware.node(device),
            )  # fmt: skip
        return found
