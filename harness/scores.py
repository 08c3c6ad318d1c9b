"""Scores: what a model's answers are worth, with intervals; each with its source."""

from __future__ import annotations

from math import sqrt
from statistics import NormalDist

import numpy as np
from numpy.typing import ArrayLike

from harness.stats import Estimate, Floats

BOOTSTRAPS = 1_000
MASKED = 1e30
"""A score beyond this says that an answer is not allowed: float32's least number is common."""
ENDS = 3.38e38, 3.41e38
"""Between these are the largest numbers of bfloat16 and float32."""
HALF_END = 65504.0
"""The largest number of float16."""
LEAST_MASK, FURTHER = 9.9e3, 1e3
"""The least number, where it occurs more than once, may be a mask below minus this, if it is so
many times as large as any other."""
WRITTEN = [10.0**power for power in range(4, 31)]
"""What masks are written as, with a minus: -1e9, say."""


def wilson_interval(successes: float, trials: float) -> Estimate:
    """Return a proportion with its 95 % score interval.

    Source: Wilson, JASA 1927.
    """
    if trials == 0:
        return Estimate(float("nan"))
    z = NormalDist().inv_cdf(0.975)
    share = successes / trials
    centre = (share + z * z / (2 * trials)) / (1 + z * z / trials)
    half = z / (1 + z * z / trials) * sqrt(share * (1 - share) / trials + z * z / (4 * trials**2))
    return Estimate(share, max(0.0, centre - half), min(1.0, centre + half))


def clustered_interval(hits: ArrayLike, judged: ArrayLike) -> Estimate:
    """Return the share of `judged` places that are `hits`, with its 95 % interval over examples.

    Both are true or false by example (first dimension) and place. Places of one example resemble
    each other: they count as so many independent ones as would make the share as doubtful as the
    examples do, and the fewer examples tell that, the fewer. Where examples do not differ, or
    there is one, places count as so many as there are examples. Sources: Korn and Graubard, Survey
    Methodology 1998 (the number that counts); Wilson, JASA 1927.
    """
    right, all_ = (
        np.atleast_2d(np.asarray(one, float)).reshape(np.shape(one)[0], -1).sum(1)
        for one in (hits, judged)
    )
    right, all_ = right[all_ > 0], all_[all_ > 0]
    if not all_.size:
        return Estimate(float("nan"))
    share = float(right.sum() / all_.sum())
    count = _count_independent(right, all_, share)
    found = wilson_interval(share * count, count)
    return Estimate(share, found.low, found.high)


def _count_independent(right: Floats, all_: Floats, share: float) -> float:
    """Return as how many independent places those of some examples count."""
    from scipy.special import stdtrit  # late: few commands need it

    examples, off = len(all_), right - share * all_
    variance = float((off**2).sum()) / float(all_.sum()) ** 2
    if examples < 2 or not variance > 0:
        return float(examples)
    variance *= examples / (examples - 1)
    tails = NormalDist().inv_cdf(0.975) / float(stdtrit(examples - 1, 0.975))
    return min(float(all_.sum()), share * (1 - share) / variance) * tails**2


def r2_interval(predicted: ArrayLike, labels: ArrayLike) -> Estimate:
    """Return R² = 1 − Σ(y − ŷ)² / Σ(y − ȳ)² with its 95 % percentile bootstrap over examples.

    With several numbers an example, the sums go over all of them, ȳ is each one's own mean. NaN
    where the labels do not vary. Source: Efron and Tibshirani, "An Introduction to the Bootstrap"
    (1993), chapter 13.
    """
    truth = np.asarray(labels, float)
    truth = truth.reshape(len(truth), -1)
    rest = np.square(truth - np.asarray(predicted, float).reshape(truth.shape)).sum(1)
    centred = truth - truth.mean(0)
    parts = np.column_stack([rest, np.square(centred).sum(1), centred])
    varies = parts[:, 1].sum() > 1e-24 * np.square(truth).sum()
    if not varies:
        return Estimate(float("nan"))

    def r2(sums: Floats) -> Floats:
        spread = sums[:, 1] - np.square(sums[:, 2:]).sum(1) / len(truth)
        found: Floats = 1 - sums[:, 0] / np.where(spread > 0, spread, np.nan)
        return found

    low, high = np.nanquantile(r2(_resample(parts)), [0.025, 0.975])
    return Estimate(float(r2(parts.sum(0, keepdims=True))[0]), float(low), float(high))


def macro_f1(predicted: ArrayLike, labels: ArrayLike) -> float:
    """Return the mean over classes of F1 = 2·TP / (2·TP + FP + FN), over classes that occur.

    A class that is neither present nor predicted is left out; one that is never right counts 0.
    """
    guess, truth = np.asarray(predicted), np.asarray(labels)
    scores = []
    for label in np.union1d(guess, truth):
        hits = int(np.sum((guess == label) & (truth == label)))
        misses = int(np.sum((guess == label) != (truth == label)))
        scores.append(2 * hits / (2 * hits + misses))
    return float(np.mean(scores)) if scores else float("nan")


def relative_fidelity(outputs: ArrayLike, reference: ArrayLike) -> float:
    """Return 1 − ‖outputs − reference‖₂ / ‖reference‖₂, at least 0; 1 means identical.

    Masks (`mark_masked`) stand for "not allowed", as infinity and NaN do: where both have the same
    there, the place is left out; where they differ, the error is infinite. NaN where the shapes
    differ, no place is left (unless both are the same, and numbers), or the reference has no number
    but zero and the outputs have.
    """
    values, wanted = (mark_masked(one) for one in (outputs, reference))
    if values.shape != wanted.shape or values.size == 0:
        return float("nan")
    if np.array_equal(values, wanted):  # infinities, too; NaN is no number, and equals none
        return 1.0
    finite = np.isfinite(wanted)
    if not np.array_equal(values[~finite], wanted[~finite], equal_nan=True):
        return 0.0 if finite.any() else float("nan")
    size = float(np.abs(wanted[finite]).max(initial=0)) or 1.0  # squares of large numbers overflow
    norm = float(np.linalg.norm(wanted[finite] / size))
    error = float(np.linalg.norm(values[finite] / size - wanted[finite] / size))
    if norm == 0:
        return 1.0 if error == 0 and finite.any() else float("nan")
    return max(0.0, 1.0 - error / norm) if np.isfinite(error / norm) else 0.0


def _resample(parts: Floats) -> Floats:
    """Column sums of rows that are drawn with replacement, one row for each bootstrap."""
    random = np.random.default_rng(0)
    drawn = [np.bincount(random.integers(0, len(parts), len(parts)), minlength=len(parts)) @ parts
             for _ in range(BOOTSTRAPS)]  # fmt: skip
    return np.array(drawn, dtype=np.float64)


def mark_masked(numbers: ArrayLike) -> Floats:
    """Return numbers with those that stand for "not allowed" as infinities.

    They are those beyond ±MASKED that occur more than once, as a mask does and a number hardly; the
    least number, where it occurs more than once, is far beyond all others, and a power of ten; and
    those at the end of a type's range.
    """
    values = np.asarray(numbers, np.float64)
    if not values.size:
        return values
    sizes = np.where(np.isfinite(values), np.abs(values), 0.0)
    largest = float(sizes.max())
    if largest < LEAST_MASK:
        return values
    far = (sizes > MASKED) | (sizes == HALF_END)
    if largest > FURTHER * float(sizes[sizes < largest].max(initial=0.0)) > 0:
        far |= (values == -largest) & _is_written(largest)
    kinds, places, counts = np.unique(values[far], return_inverse=True, return_counts=True)
    ends = np.abs(kinds)
    mask = (counts > 1) | ((ends > ENDS[0]) & (ends < ENDS[1])) | (ends == HALF_END)
    far[far] = mask[places.reshape(-1)]
    return np.where(far, np.copysign(np.inf, values), values)


def _is_written(number: float) -> bool:
    """Tell whether a number is a power of ten, in any type that models run in."""
    single = np.array(WRITTEN, np.float32)
    bits = single.view(np.uint32)
    brain = ((bits + 0x7FFF + ((bits >> 16) & 1)) & 0xFFFF0000).view(np.float32)
    return number in {*WRITTEN, *single.tolist(), *brain.tolist()}
