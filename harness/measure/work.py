"""Work: multiply-accumulates of a call, whatever its number of examples."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from math import isnan, nan, prod


@dataclass(frozen=True)
class Work:
    """Multiply-accumulates of one to three calls, by their numbers of examples.

    One call, or several in proportion, stand for work that is done for each example. Others also
    tell what is done once a call (a product of two weights) and for each pair of examples.
    """

    counted: tuple[tuple[int, float], ...]

    def for_one(self, examples: int) -> float:
        """Return an example's share of a call of so many; NaN where it could not be counted.

        Source: Lagrange's polynomial through what was counted.
        """
        calls = dict(self.counted)
        if any(map(isnan, calls.values())):
            return nan
        if is_proportional(calls):
            known, macs = self.counted[0]
            return macs / known
        total = sum(
            macs * prod((examples - other) / (known - other) for other in calls if other != known)
            for known, macs in calls.items()
        )
        return round(total) / examples


def is_proportional(calls: Mapping[int, float]) -> bool:
    """Tell whether calls take the same for each of their examples."""
    return len({macs / examples for examples, macs in calls.items()}) == 1
