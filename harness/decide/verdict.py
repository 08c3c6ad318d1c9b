"""Verdicts: what to ship under a size limit, by one rule, and how sure that is."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from math import ceil, log10

import numpy as np
import pandas as pd

from harness.decide.frame import GROUP, Frame, average_seeds
from harness.decide.frontier import Objective, quality_metric
from harness.decide.membership import draw_objectives, tell_ahead
from harness.decide.noise import Noise
from harness.stats import Floats

LOSS = 0.01
"""How much less quality than the best one that fits is no reason against a faster variant."""
LATENCY = (Objective("latency_s", "lower"),)
Limits = tuple[float, ...]


@dataclass(frozen=True)
class Verdict:
    """The fastest variant under a size limit that loses at most LOSS to the best that fits.

    limits: sizes of stored weights in bytes for which this is the answer. good_enough: the
    probability that it really loses no more; ahead: that it is faster than the next, which also
    loses no more. NaN where nothing tells of doubt, or there is no next.
    """

    key: dict[str, object]
    limits: Limits
    pick: pd.Series
    best: pd.Series
    next: pd.Series | None
    good_enough: float
    ahead: float


def find_verdicts(frame: Frame, noise: Noise, by: Sequence[str] = GROUP) -> Iterator[Verdict]:
    """Yield the verdicts of every group, the tightest limit first; one for limits that agree."""
    quality = quality_metric(frame)
    objectives = [*LATENCY, Objective(quality, "higher")]
    cells = average_seeds(frame)
    cells = cells.dropna(subset=["latency_s", quality])
    cells = cells[cells["weight_bytes"] > 0]
    for key, group in cells.groupby(list(by), dropna=False):
        drawn = draw_objectives(group, frame, objectives, noise)
        known = bool((np.ptp(drawn, axis=2) > 0).any())  # not where a draw is unknown
        limits = decades(group["weight_bytes"])
        places = [_choose(group, quality, limit) for limit in limits]
        for chosen in dict.fromkeys(places):
            fitting = tuple(
                limit for limit, place in zip(limits, places, strict=True) if place == chosen
            )
            named = dict(zip(by, key, strict=True))
            yield _make_verdict(named, fitting, group, chosen, drawn if known else None)


def decades(sizes: pd.Series) -> Limits:
    """Return the powers of ten of bytes from the least that holds a size to the first above all."""
    least, most = ceil(log10(sizes.min())), ceil(log10(sizes.max()))
    return tuple(10.0**power for power in range(least, most + 1))


def _choose(group: pd.DataFrame, quality: str, limit: float) -> tuple[int, int, int | None]:
    """Return the places of the pick, of the best quality, and of the next under a limit."""
    order = np.argsort(group["latency_s"].to_numpy(float), kind="stable")
    fits = group["weight_bytes"].to_numpy() <= limit
    values = group[quality].to_numpy(float)
    best = int(np.argmax(np.where(fits, values, -np.inf)))
    enough = [int(place) for place in order if fits[place] and values[place] >= values[best] - LOSS]
    return enough[0], best, enough[1] if len(enough) > 1 else None


def _make_verdict(
    key: dict[str, object], limits: Limits, group: pd.DataFrame,
    chosen: tuple[int, int, int | None], drawn: Floats | None,
) -> Verdict:  # fmt: skip
    pick, best, following = chosen
    good_enough = ahead = float("nan")
    if drawn is not None:
        good_enough = float((drawn[pick, 1] >= drawn[best, 1] - LOSS).mean())
        if following is not None:
            ahead = tell_ahead(drawn[pick], drawn[following], LATENCY)
    return Verdict(
        key, limits, group.iloc[pick], group.iloc[best],
        None if following is None else group.iloc[following], good_enough, ahead,
    )  # fmt: skip
