"""Allowance: how long a heat may time its cells where the whole grid has a time to end in."""

from __future__ import annotations

import time
from collections.abc import Callable

REPORT_S, REPORT_SHARE = 15.0, 0.1
"""Kept back for the report: so many seconds, or this share of a short time."""
ROUND_COST = 1.1
"""What a round takes over its blocks: asking, keeping, looking."""
LEAST_S = 0.05
"""Of a cell, when the time is used up: a heat's first rounds, and no heat is left out."""


class Allowance:
    """The time of a run, spread over its cells. Without `total_s` each cell has its own budget.

    What a heat does not use, later ones have: a cell is done when its interval is narrow enough.
    What preparing, memory and loading take is learnt as they are done, and kept free.
    """

    def __init__(
        self, total_s: float | None, cells: int, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._total_s = total_s
        self._cells = max(1, cells)
        self._clock = clock
        self._begin = clock()
        self._done = 0
        self._timed_s = 0.0

    def seconds_per_cell(self, cells: int, members: int, own_s: float) -> float:
        """Return how long each cell of a heat may be timed; `own_s` is what the grid says.

        `cells` are those that get a result, `members` all that are timed for it: baselines and
        the control too.
        """
        if self._total_s is None:
            return own_s
        kept_s = min(REPORT_S, REPORT_SHARE * self._total_s)
        left_s = self._total_s - kept_s - (self._clock() - self._begin)
        left = max(cells, self._cells - self._done)
        # This heat's cells have been prepared and loaded by now.
        other_s = self._other_s() / max(1, self._done + cells) * (left - cells)
        share_s = max(0.0, left_s - other_s) * cells / left
        return max(LEAST_S, share_s / ROUND_COST / max(1, members))

    def note(self, cells: int, timed_s: float) -> None:
        """Take note of cells that are done, and of how long they were timed together."""
        self._done += cells
        self._timed_s += timed_s

    def _other_s(self) -> float:
        """What has been done beside timing."""
        return max(0.0, self._clock() - self._begin - self._timed_s)
