"""The roofline: what bounds a call, from what it computes and moves and what the machine can.

Free of torch, so that the runner can explain its cells. Source: Williams, Waterman, Patterson,
"Roofline: An Insightful Visual Performance Model for Multicore Architectures", CACM 52(4), 2009;
the cost of dispatch is a third roof.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from math import isnan, log, nan
from typing import Any, Literal

import numpy as np

Bound = Literal["compute", "memory", "overhead"]


@dataclass(frozen=True)
class Traffic:
    """What one call moves: bytes, and operators that move them; FLOPs of its products by type.

    Where only the type of a product is known, its type's FLOPs are NaN; where nothing is, the bytes
    are. shares: how much of the
    call's work is in each kind of operator, with the types and shapes that it reads.
    """

    bytes_moved: float
    operators: int
    products: Mapping[str, float]
    shares: Mapping[str, float] = field(default_factory=dict, compare=False)

    @property
    def dtypes(self) -> tuple[str, ...]:
        """The types in which it multiplies."""
        return tuple(sorted(self.products))


@dataclass(frozen=True)
class Roofs:
    """The fastest seen: FLOP/s by type, bytes/s by working set (ascending), s for an operator.

    Not `quiet`, something else was running while they were measured, the last of `times` times.
    """

    flops_per_s: dict[str, float]
    bytes_per_s: tuple[tuple[int, float], ...]
    dispatch_s: float
    quiet: bool = True
    times: int = 1

    def bandwidth_at(self, working_set_bytes: float) -> float:
        """Return bytes/s between the measured working sets (log scale); beyond them the nearest."""
        sizes, rates = zip(*self.bytes_per_s, strict=True)
        at = log(max(1.0, working_set_bytes))
        return float(np.interp(at, [log(size) for size in sizes], rates))

    def computing_s(self, flops: float, products: Mapping[str, float]) -> float:
        """Return the least time for so many FLOPs, which are in these types in this proportion.

        A type without a roof counts at float32's, products of unknown FLOPs at the slowest of
        theirs; NaN where no roof is known.
        """
        general = self.flops_per_s.get("float32", nan)
        rates = {dtype: self.flops_per_s.get(dtype, general) for dtype in products}
        known = sum(products.values())
        if not known > 0:
            return flops / min(rates.values(), default=general)
        return sum(flops * part / known / rates[dtype] for dtype, part in products.items())

    def to_json(self) -> dict[str, Any]:
        """Return the roofs as plain data."""
        return asdict(self)

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> Roofs:
        """Return the roofs that `to_json` gave."""
        sets = tuple((int(size), float(rate)) for size, rate in data["bytes_per_s"])
        flops, dispatch_s = dict(data["flops_per_s"]), float(data["dispatch_s"])
        return cls(flops, sets, dispatch_s, bool(data["quiet"]), int(data["times"]))


def best_of(fresh: Roofs, kept: Roofs) -> Roofs:
    """Return the faster figure of each of two measurements, as quiet as the fresh one."""
    flops = {
        dtype: max(rate, kept.flops_per_s.get(dtype, 0.0))
        for dtype, rate in fresh.flops_per_s.items()
    }
    before = dict(kept.bytes_per_s)
    sets = tuple((size, max(rate, before.get(size, 0.0))) for size, rate in fresh.bytes_per_s)
    dispatch_s = min(fresh.dispatch_s, kept.dispatch_s)
    return Roofs(flops, sets, dispatch_s, fresh.quiet, kept.times + 1)


@dataclass(frozen=True)
class Explanation:
    """What holds a call back, and how near it comes to the roof.

    `fraction_of_roof` is the ideal time over the measured one, `bound` the largest of the three
    times; both are unknown where no roof of computing is.
    """

    fraction_of_roof: float
    bound: Bound | None


def explain(flops: float, traffic: Traffic, latency_s: float, roofs: Roofs) -> Explanation:
    """Return what bounds a call of so many FLOPs (2 a MAC) that took `latency_s` seconds.

    The ideal time is that of computing or of moving the bytes, whichever is longer; dispatching the
    operators is no part of it: it can be avoided. Each product counts at the rate of its type.
    """
    moved = traffic.bytes_moved
    times: dict[Bound, float] = {
        "compute": roofs.computing_s(flops, traffic.products),
        "memory": moved / roofs.bandwidth_at(moved),
        "overhead": traffic.operators * roofs.dispatch_s,
    }
    unknown = isnan(times["compute"])
    longest = max(times, key=lambda name: times[name])
    return Explanation(
        fraction_of_roof=nan if unknown else max(times["compute"], times["memory"]) / latency_s,
        bound=None if unknown else longest,
    )
