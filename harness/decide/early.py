"""Early: what is known already of a heat's frontier, and what more rounds could still change.

A heat may end when its answer is known. Each look at it is a chance to be wrong, so that a look
before the end takes for known only what is far beyond the 95 % that are asked at the end, in the
spirit of Haybittle (British Journal of Radiology 1971) and Peto et al. (British Journal of Cancer
1976), who asked for more still. That intervals and p-values hold in spite of it was simulated.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import dataclass
from math import log1p
from typing import Literal

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from harness.decide.frame import Frame
from harness.decide.frontier import choose_objectives
from harness.decide.noise import Noise
from harness.record import METRICS
from harness.stats import Floats

Decision = Literal["member", "dominated", "tie", "open"]
"""On the frontier; not on it; a tie, or in doubt by its quality alone; more rounds may tell, of the
cell itself or of one that it may dominate."""
OUTSIDE = 0.01
"""A look takes for known what is so in all draws but this share."""
DRAWS = 1_000
QUALITIES = 100
"""Draws of the qualities; each is looked at beside all draws of the latencies."""
TIE_OUTSIDE = 0.05
"""The same for a tie, of which nothing is told but that more rounds would not pay."""
OPEN_SHARE = 0.05
"""Where rounds might tell something in so few draws of the qualities, they need not."""
BY_NAME = {metric.name: metric for metric in METRICS}


def decide_cells(
    cells: pd.DataFrame,
    noise: Noise,
    smallest_effect: float,
    outside: float = OUTSIDE,
    left: Collection[str] = (),
) -> dict[str, Decision]:
    """Return what is known of each cell of a heat, by latency and quality.

    cells: rows of the store, as far as they are known; `left` are those that are timed no further,
    for whose sake no other goes on. A cell of unknown quality has no place that rounds could tell:
    it counts as a tie. All stay open where there is nothing to compare, or too few rounds tell how
    sure they are.
    """
    latency, quality = choose_objectives(Frame("", cells, BY_NAME))
    decided: dict[str, Decision] = dict.fromkeys(map(str, cells["cell_id"]), "open")
    known = cells[cells[quality.name].notna() & cells[latency.name].notna()]
    if len(known) < 2:
        return decided
    latencies = np.log(noise.draw(known, BY_NAME[latency.name], draws=DRAWS))
    qualities = noise.draw(known, BY_NAME[quality.name], draws=QUALITIES)
    if np.isnan(latencies).any():
        return decided
    if not np.ptp(qualities, axis=1).any():  # exact
        qualities = qualities[:, :1]
    unknown = cells[cells[quality.name].isna() & cells[latency.name].notna()]
    decided |= dict.fromkeys(map(str, unknown["cell_id"]), "tie")
    order = Order(latencies, qualities, log1p(smallest_effect), outside)
    found = [order.decide(number) for number in range(len(known))]
    names = [*map(str, known["cell_id"])]
    asked = [n for n, one in enumerate(found) if one == "open" and names[n] not in left]
    needed = {rival for number in asked for rival in order.find_rivals(number)}
    for number, name in enumerate(names):
        decided[name] = "open" if number in needed else found[number]
    return decided


@dataclass(frozen=True)
class Order:
    """How cells compare in draws of log-latencies and of qualities: cells × draws.

    effect: the log-ratio below which latencies are a tie. outside: as in `decide_cells`.
    """

    latencies: Floats
    qualities: Floats
    effect: float
    outside: float

    def decide(self, number: int) -> Decision:
        """Return what is known of a cell."""
        shares = self._shares_on_frontier(number, 0.0)
        if shares.mean() >= 1 - self.outside:
            return "member"
        if shares.mean() <= self.outside:
            return "dominated"
        in_doubt = (shares > self.outside) & (shares < 1 - self.outside)
        tie = self._shares_on_frontier(number, self.effect) <= TIE_OUTSIDE
        tie &= self._shares_on_frontier(number, -self.effect) >= 1 - TIE_OUTSIDE
        return "open" if (in_doubt & ~tie).mean() > OPEN_SHARE else "tie"

    def find_rivals(self, number: int) -> Iterator[int]:
        """Yield who may dominate a cell, and may not, as far as latencies tell."""
        better, behind = self._compare(number)
        faster = (behind < 0).mean(1)
        in_doubt = (faster > self.outside) & (faster < 1 - self.outside)
        yield from map(int, np.flatnonzero(better.any(1) & in_doubt))

    def _shares_on_frontier(self, number: int, slower: float) -> Floats:
        """Of the latencies' draws, for each of the qualities', if the cell were so much slower."""
        better, behind = self._compare(number)
        rivals = better.any(1) & (behind < slower).any(1)
        faster = (behind[rivals] < slower).astype(np.float32)
        shares: Floats = (better[rivals].T.astype(np.float32) @ faster == 0).mean(1)
        return shares

    def _compare(self, number: int) -> tuple[NDArray[np.bool_], Floats]:
        """Return for each cell in which draws it is as good as this one, and how far behind."""
        better = self.qualities >= self.qualities[number]
        better[number] = False
        return better, self.latencies - self.latencies[number]
