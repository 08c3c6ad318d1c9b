"""Work: multiply-accumulates of a call, whatever its number of examples."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import islice
from math import isnan, nan, prod

ENOUGH = 3
"""So many calls tell what is done once a call, for each example, and for each pair of examples."""
UNTOLD = "a call of so many examples (what fewer take does not tell what it takes)"


@dataclass(frozen=True)
class Work:
    """Multiply-accumulates of some calls, by their numbers of examples; a few first.

    Those in proportion stand for work that is done for each example; others also tell what is done
    once a call (a product of two weights) and for each pair of examples. They tell of other numbers
    of examples only where one more call was counted, and agrees, and of none that were `refused`.
    fixed: every call takes the examples that were counted, however many are asked for.
    """

    counted: tuple[tuple[int, float], ...]
    refused: frozenset[int] = frozenset()
    fixed: bool = False

    def for_one(self, examples: int) -> float:
        """Return an example's share of a call of so many; NaN where nothing tells what it takes."""
        calls = dict(self.counted)
        if any(map(isnan, calls.values())) or examples in self.refused:
            return nan
        if self.fixed:
            known, macs = next(iter(calls.items()))
            return macs / known
        # In a call of one example, its own number looks like a constant, its pair like a square.
        several = {known: macs for known, macs in calls.items() if known > 1} or calls
        if examples in several:
            return several[examples] / examples
        told = extrapolate(calls if is_proportional(calls) else several, examples)
        return calls.get(examples, nan) / examples if isnan(told) else told / examples


def extrapolate(calls: Mapping[int, float], examples: int) -> float:
    """Return what a call of so many examples takes, told by other calls; NaN where they do not.

    Source: Lagrange's polynomial through the first three, on which all others must lie. Where all
    take the same, however many examples they have, they are padded, and larger ones may take more.
    """
    if is_proportional(calls):
        if len(calls) == 1:
            return nan
        known, macs = next(iter(calls.items()))
        return macs / known * examples
    first = dict(islice(calls.items(), ENOUGH))
    others = {known: macs for known, macs in calls.items() if known not in first}
    if not others or any(_through(first, known) != macs for known, macs in others.items()):
        return nan
    told = _through(first, examples)
    padded = len(set(calls.values())) == 1 and examples > max(calls)
    return nan if padded or told < 0 else told


def _through(calls: Mapping[int, float], examples: int) -> int:
    """Return the value of the polynomial through some calls; what multiplies comes in wholes."""
    return round(
        sum(
            macs * prod((examples - other) / (known - other) for other in calls if other != known)
            for known, macs in calls.items()
        )
    )


def is_proportional(calls: Mapping[int, float]) -> bool:
    """Tell whether calls take the same for each of their examples."""
    return len({macs / examples for examples, macs in calls.items()}) == 1
