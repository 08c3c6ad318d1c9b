"""Alone: what a cell is asked in a process of its own, beside no other."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack
from typing import Any

from harness.errors import WorkerFailure, WorkerRefusal
from harness.sweep.seat import Seat
from harness.sweep.shop import Shop


def measure_memory(shop: Shop, seats: Sequence[Seat]) -> None:
    """Add each cell's memory to its record; the problem to a seat of which it cannot be known."""
    for seat in seats:
        try:
            seat.record = seat.record.measured(**_ask(shop, seat, "measure_memory"))
        except (WorkerFailure, WorkerRefusal) as problem:
            seat.problem = problem


def measure_energy(shop: Shop, seat: Seat, source: str) -> None:
    """Add a cell's energy to its record, by the device's counter."""
    try:
        near = shop.hardware.node(seat.cell.device)
        energy = _ask(shop, seat, "energy", pin=shop.grid.measure.pin, near=near)
        seat.record = seat.record.measured(energy_j=energy).under(energy_source=source)
    except (WorkerFailure, WorkerRefusal) as problem:  # the other figures hold
        seat.record = seat.record.under(energy_source=f"none: {problem}")


def _ask(shop: Shop, seat: Seat, operation: str, **arguments: Any) -> Any:
    """Ask a worker that is hired for this question only."""
    with ExitStack() as stack:
        worker = shop.hire(stack, seat.cell.device, seat.cell)
        timeout_s = shop.grid.budget.timeout_s
        return worker.call(operation, timeout_s, **seat.request, **arguments)
