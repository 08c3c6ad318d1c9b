"""Packing: which cells can be alive together in the memory there is."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

WORKER_BYTES = 200 * 2**20
"""What a worker takes beside its model: Python objects, buffers of the libraries, first calls."""
CUDA_CONTEXT_BYTES = 600 * 2**20
"""What a context takes on the card beside the tensors; NVML's figure includes it where known."""


DESCRIPTORS = 3
"""Files that the runner or the server has open for each worker, at the most."""


@dataclass(frozen=True)
class Need:
    """What a cell takes while it is alive: memory in bytes, and processes."""

    host_bytes: float
    card_bytes: float = 0.0
    workers: float = 0.0
    shared_bytes: float = 0.0
    """On the host too, but once for all processes of the cell: weights that are mapped."""

    def __add__(self, other: Need) -> Need:
        return Need(
            self.host_bytes + other.host_bytes,
            self.card_bytes + other.card_bytes,
            self.workers + other.workers,
            self.shared_bytes + other.shared_bytes,
        )

    def __mul__(self, count: int) -> Need:
        return Need(
            self.host_bytes * count, self.card_bytes * count, self.workers * count,
            self.shared_bytes,
        )  # fmt: skip

    def fits(self, room: Need) -> bool:
        """Tell whether there is room on the host and on the card, and for so many processes."""
        host = self.host_bytes + self.shared_bytes <= room.host_bytes
        return host and self.card_bytes <= room.card_bytes and self.workers <= room.workers


@dataclass(frozen=True)
class Group:
    """Cells that share a heat; not `together` if they must be loaded one after the other."""

    names: tuple[str, ...]
    together: bool


def need_of(metrics: Mapping[str, float], mapped_bytes: float = 0.0) -> Need:
    """Return what a cell needs, from its measured memory and how much of its weights is mapped."""
    peak = metrics.get("peak_memory_bytes", 0.0)
    host = WORKER_BYTES + max(0.0, peak - mapped_bytes)
    reserved = metrics.get("cuda_reserved_bytes")
    if reserved is None:
        return Need(host, workers=1, shared_bytes=min(peak, mapped_bytes))
    process = metrics.get("cuda_process_bytes", 0.0)
    return Need(host, max(process, reserved + CUDA_CONTEXT_BYTES), workers=1)


def pack(
    needs: Mapping[str, Need], company: Mapping[str, str], always: Need, room: Need
) -> list[Group]:
    """Return groups that fit beside what is in every heat (the control).

    `company` names for a cell the one that has to be alive with it: its baseline. First fit: one
    family after the other, in each the largest first. A cell that does not fit even alone with its
    company is measured in a group of its own, not together: one process after the other.
    """
    groups: list[set[str]] = []
    totals: list[Need] = []
    apart = []
    for name in _by_family(needs, company):
        wanted = dict.fromkeys((company.get(name, name), name))
        if not _total(always, needs, wanted).fits(room):
            apart.append(Group(tuple(wanted), together=False))
            continue
        for number, group in enumerate(groups):
            total = _total(totals[number], needs, wanted.keys() - group)
            if total.fits(room):
                group.update(wanted)
                totals[number] = total
                break
        else:
            groups.append(set(wanted))
            totals.append(_total(always, needs, wanted))
    order = {name: number for number, name in enumerate(needs)}
    together = [Group(tuple(sorted(group, key=order.__getitem__)), True) for group in groups]
    return [*together, *apart]


def _by_family(needs: Mapping[str, Need], company: Mapping[str, str]) -> list[str]:
    """The names in the order in which they are packed; a baseline with company comes with it."""
    names = dict.fromkeys(company.get(name, name) for name in needs)
    leaders = {name: number for number, name in enumerate(names)}
    accompanied = set(company.values())

    def order(name: str) -> tuple[float, ...]:
        need = needs[name]
        return (
            leaders[company.get(name, name)],
            -need.card_bytes,
            -need.host_bytes - need.shared_bytes,
        )

    return sorted((name for name in needs if name not in accompanied), key=order)


def _total(before: Need, needs: Mapping[str, Need], names: Iterable[str]) -> Need:
    return sum((needs[name] for name in names), start=before)
