"""Packing: which cells can be alive together in the memory there is."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

WORKER_BYTES = 200 * 2**20
"""What a worker takes beside its model: Python objects, buffers of the libraries, first calls."""
CUDA_CONTEXT_BYTES = 600 * 2**20
"""What a context takes on the card beside the tensors; NVML's figure includes it where known."""


@dataclass(frozen=True)
class Need:
    """Memory that a cell takes while it is alive, in bytes."""

    host_bytes: float
    card_bytes: float = 0.0

    def __add__(self, other: Need) -> Need:
        return Need(self.host_bytes + other.host_bytes, self.card_bytes + other.card_bytes)

    def fits(self, room: Need) -> bool:
        """Tell whether there is room on the host and on the card."""
        return self.host_bytes <= room.host_bytes and self.card_bytes <= room.card_bytes


@dataclass(frozen=True)
class Group:
    """Cells that share a heat; not `together` if they must be loaded one after the other."""

    names: tuple[str, ...]
    together: bool


def need_of(metrics: Mapping[str, float]) -> Need:
    """Return what a cell needs, from its measured memory."""
    host = WORKER_BYTES + metrics.get("peak_memory_bytes", 0.0)
    reserved = metrics.get("cuda_reserved_bytes")
    if reserved is None:
        return Need(host)
    process = metrics.get("cuda_process_bytes", 0.0)
    return Need(host, max(process, reserved + CUDA_CONTEXT_BYTES))


def pack(needs: Mapping[str, Need], always: Need, room: Need) -> list[Group]:
    """Return groups that fit beside what is in every heat (baseline and control).

    First fit, the largest first. A cell that does not fit beside them is measured in a group of
    its own, not together: one process after the other.
    """
    groups: list[list[str]] = []
    totals: list[Need] = []
    alone = []
    for name in sorted(needs, key=lambda n: (-needs[n].card_bytes, -needs[n].host_bytes)):
        if not (always + needs[name]).fits(room):
            alone.append(Group((name,), together=False))
            continue
        for number, total in enumerate(totals):
            if (total + needs[name]).fits(room):
                groups[number].append(name)
                totals[number] = total + needs[name]
                break
        else:
            groups.append([name])
            totals.append(always + needs[name])
    order = list(needs)
    together = [Group(tuple(sorted(names, key=order.index)), True) for names in groups]
    return [*together, *alone]
