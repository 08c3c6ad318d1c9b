"""Grouping: which seats of a crew are timed together, and in how many processes each."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from harness.sweep.pack import Need, need_of, pack
from harness.sweep.seat import Seat, find_baseline

FEWEST, MOST = 2, 16
"""Processes of a cell: of a heat's first session, and of any session at the most."""
LOAD_SHARE = 1 / 3
"""Of a session's timing, what loading more than the fewest processes may take."""


def group_seats(seats: Sequence[Seat], wanted: int, room: Need) -> list[tuple[list[Seat], int]]:
    """Return the seats of each heat and how many processes each has; baselines in each heat.

    With none, a cell is loaded anew for every block, because it does not fit otherwise.
    """
    ready = {seat.cell.id: seat for seat in seats}
    if not ready:
        return []
    needs, control = _needs_of(seats)
    company = {}
    for name, seat in ready.items():
        baseline = find_baseline(seats, seat.cell)
        if baseline is not None and baseline is not seat:
            company[name] = baseline.cell.id
    found = []
    for processes in dict.fromkeys((wanted, 1)):
        together = {name: need * processes for name, need in needs.items()}
        groups = pack(together, company, control * processes, room)
        found += [(group.names, processes) for group in groups if group.together]
        apart = [group.names for group in groups if not group.together]
        needs = {name: needs[name] for names in apart for name in names}
    found += [(names, 0) for names in apart]
    taken: set[str] = set()

    def seat_in(name: str) -> Seat:
        """A baseline that is in several heats has a seat of its own in each, and one row."""
        again = name in taken
        taken.add(name)
        return replace(ready[name], kept=False) if again else ready[name]

    return [([seat_in(name) for name in names], processes) for names, processes in found]


def choose_processes(seats: Sequence[Seat], fewest: int, room: Need, session_s: float) -> int:
    """Return in how many processes seats that were loaded before are timed in a further session.

    What processes differ by is a mean over more of them, where loading these takes little of the
    time that the session times a cell, and memory allows. Source: Kalibera and Jones, "Rigorous
    Benchmarking in Reasonable Time", ISMM 2013: repeat most what varies most for what it costs.
    """
    load_s = max((seat.load_s for seat in seats), default=float("nan"))
    affordable = int(LOAD_SHARE * session_s / load_s) if load_s > 0 else 0
    needs, control = _needs_of(seats)
    for processes in range(min(MOST, affordable), fewest, -1):
        if sum((need * processes for need in needs.values()), control * processes).fits(room):
            return processes
    return fewest


def _needs_of(seats: Sequence[Seat]) -> tuple[dict[str, Need], Need]:
    """Return what a process of each seat needs, and one of the control."""
    needs = {seat.cell.id: need_of(seat.record.metrics, seat.mapped_bytes) for seat in seats}
    on_card = any(seat.cell.device != "cpu" for seat in seats)
    return needs, need_of({"cuda_reserved_bytes": 0.0} if on_card else {})
