"""Likeness: how much of their work cells have in common, by the operators that a call runs.

What a machine does to one kernel for a while, it does to all cells that run it; cells that run
others are moved by it against each other.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from itertools import combinations
from math import fsum

import numpy as np

from harness.stats import Floats

MOST_KINDS = 64
"""Of operators that are kept of a cell, those with the most of its work."""
REST = "the rest"
"""What stands for all others, with what these are: cells have it in common that have the same."""
DIGITS = 4


def write_work(shares: Mapping[str, float]) -> str:
    """Return the share of the work that is in each kind of operator, as JSON, the most first.

    Of many kinds those with the least are told together.
    """
    ordered = sorted(shares.items(), key=lambda item: (-item[1], item[0]))
    kept = {kind: round(share, DIGITS) for kind, share in ordered[:MOST_KINDS]}
    if rest := dict(ordered[MOST_KINDS:]):
        names = hashlib.sha256("\n".join(sorted(rest)).encode()).hexdigest()[:16]
        kept[f"{REST} {names}"] = round(fsum(rest.values()), DIGITS)
    return json.dumps({kind: share for kind, share in kept.items() if share})


def read_work(text: object, runtime: str) -> dict[str, float]:
    """Return what `write_work` was given, as that of a runtime; nothing where nothing is known."""
    shares = json.loads(text) if isinstance(text, str) and text else {}
    return {f"{runtime} {kind}": share for kind, share in shares.items()}


def compare_work(one: Mapping[str, float], other: Mapping[str, float]) -> float:
    """Return how much of their work two cells have in common, from 0 to 1; 0 if it is unknown.

    What both have of each kind, over what either has. Source: Ioffe, "Improved Consistent
    Sampling, Weighted Minhash and L1 Sketching", ICDM 2010.
    """
    kinds = one.keys() | other.keys()
    either = fsum(max(one.get(kind, 0.0), other.get(kind, 0.0)) for kind in kinds)
    both = fsum(min(one[kind], other[kind]) for kind in one.keys() & other.keys())
    return both / either if either else 0.0


def find_likeness(works: Sequence[Mapping[str, float]]) -> Floats:
    """Return cells × cells: how much of their work each two have in common, 1 with itself.

    The min-max kernel: its matrix has no negative eigenvalue, and cells may be drawn by it.
    """
    likeness = np.eye(len(works))
    for one, other in combinations(range(len(works)), 2):
        likeness[one, other] = likeness[other, one] = compare_work(works[one], works[other])
    return likeness
