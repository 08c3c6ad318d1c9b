"""Hardware: what is known of this machine and its devices, asked once in a run."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from bench.cache import cache_folder
from harness.errors import WorkerFailure, WorkerRefusal
from harness.grid import Cell, Grid
from harness.known import Between, Known
from harness.measure.machine import available_memory_bytes, describe_machine, fingerprint
from harness.measure.speed import find_fastest, find_speed, speed_file
from harness.sweep.between import between_file, name_company, note_between, read_between
from harness.sweep.launcher import Launcher, free_descriptors
from harness.sweep.pack import DESCRIPTORS, Need
from harness.sweep.seat import Seat, TimedHeat

HEAT_MEMORY_SHARE = 0.7
"""Share of the free memory, host's and card's, that the workers of a heat may take together."""
MOST_PROCESSES = 64
"""Alive together in a heat: in a longer round a cell is too far in time from its baseline."""


class Hardware:
    """The machine as a run sees it; a device is probed when it is first asked for."""

    def __init__(self, launcher: Launcher, grid: Grid) -> None:
        self.machine = describe_machine()
        self._launcher = launcher
        self._grid = grid
        self._probed: dict[str, dict[str, Any] | WorkerRefusal | WorkerFailure] = {}
        self._noted: dict[tuple[Path, str], set[str]] = {}
        self._known: dict[tuple[Path, str], Known] = {}

    def probe(self, device: str) -> dict[str, Any] | WorkerRefusal | WorkerFailure:
        """Return what is known of a device; or why it is refused, or how it failed."""
        if device not in self._probed:
            timeout_s = self._grid.budget.timeout_s
            try:
                with self._launcher.worker() as worker:
                    self._probed[device] = worker.call("probe_device", timeout_s, device=device)
            except (WorkerRefusal, WorkerFailure) as problem:
                self._probed[device] = problem
        return self._probed[device]

    def facts_of(self, device: str) -> dict[str, Any]:
        """Return what is known of a device: nothing where there is none."""
        probed = self.probe(device)
        return probed if isinstance(probed, dict) else {}

    def environment(self, device: str) -> dict[str, Any]:
        """Return what is known of the machine and a device."""
        return {**self.machine, **self.facts_of(device)}

    def room(self, device: str) -> Need:
        """Return what a heat may take now: memory and processes."""
        limit = self._grid.budget.max_heat_memory_bytes
        host = limit or HEAT_MEMORY_SHARE * available_memory_bytes()
        free = self.facts_of(device).get("free_memory_bytes")
        card = float("inf") if free is None else HEAT_MEMORY_SHARE * free
        return Need(host, card, min(free_descriptors() // DESCRIPTORS, MOST_PROCESSES))

    def node(self, device: str) -> int | None:
        """Return the memory node that a device hangs on, where that is known."""
        node: int | None = self.facts_of(device).get("memory_node")
        return node

    def between(self, seats: Sequence[Seat]) -> Between:
        """Return what sessions of a heat's cells differ by, as is known of this machine.

        Of their work what was known when the run began: its own heats share servers, and tell of
        themselves what they tell.
        """
        path, company = self._between_file(seats[0].cell), name_company(seats)
        found = read_between(path, company)
        return replace(found, work=self._known.setdefault((path, company), found.work))

    def note_sessions(self, timed: TimedHeat, seats: Sequence[Seat]) -> None:
        """Remember what the sessions of a heat differed by; `seats` are all that it began with.

        Once in a run for each company: its heats share servers, and minutes.
        """
        path, company = self._between_file(seats[0].cell), name_company(seats)
        noted = self._noted.setdefault((path, company), set())
        noted |= note_between(path, company, timed, noted)

    def _between_file(self, cell: Cell) -> Path:
        known_as = fingerprint(self.environment(cell.device))
        place = f"{cell.device}-{cell.threads}"
        return between_file(cache_folder(), known_as, place, self._grid.measure)

    def speed_in(self, timed: TimedHeat, cell: Cell) -> float:
        """Return the share of its known speed at which the machine ran a heat's control.

        NaN where the control was not timed, or ended before its time. `cell`: any of the heat's.
        """
        if not timed.control.blocks or timed.control.problem is not None:
            return float("nan")
        known_as = fingerprint(self.environment(cell.device))
        place, measure = f"{cell.device}-{cell.threads}", self._grid.measure
        path = speed_file(cache_folder(), known_as, place, measure.wait_policy, measure.pin)
        fastest_s = find_fastest(timed.control.medians().values())
        return find_speed(timed.latencies[timed.control.name].value, fastest_s, path)
