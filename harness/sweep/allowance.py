"""Allowance: how long a heat may time its cells where the whole grid has a time to end in."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

REPORT_S, REPORT_SHARE = 15.0, 0.1
"""Kept back for the report: so many seconds, or this share of a short time."""
ROUND_COST = 1.1
"""What a round takes over its blocks: asking, keeping, looking."""
LEAST_S = 0.05
"""Of a cell, when the time is used up: a heat's first rounds, and no heat is left out."""


class Allowance:
    """The time of a run, spread over its cells. Without `total_s` each cell has its own budget.

    A cell that is timed in several sessions counts as so many. What a heat does not use, later ones
    have: a cell is done when its interval is narrow enough.
    `overrun_s`: how much longer than that the run will take though no cell gets more than its
    least, as far as is known; 0 where the time is enough.
    What preparing (of each of the `variants`), memory and loading (of each cell) take is learnt as
    they are done, and kept free.
    """

    def __init__(
        self, total_s: float | None, cells: int, variants: int = 0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:  # fmt: skip
        self._total_s = total_s
        self._cells = max(1, cells)
        self._variants = variants
        self._clock = clock
        self._begin = clock()
        self._begun = self._done = self._prepared = 0
        self._timed_s = self._preparing_s = self._once_s = 0.0
        self.overrun_s = 0.0

    def seconds_per_cell(
        self, cells: int, members: int, own_s: float, loading: float = 0.0
    ) -> float:
        """Return how long each cell of a heat may be timed; `own_s` is what the grid says.

        `cells` are those that get a result, `members` all that are timed for it: baselines and
        the control too. They are loaded by now; `loading` is what each block takes beside its
        timing, as a multiple of it, where they are loaded anew for each.
        """
        if self._total_s is None:
            return own_s
        kept_s = min(REPORT_S, REPORT_SHARE * self._total_s)
        left_s = self._total_s - kept_s - (self._clock() - self._begin)
        left = max(cells, self._cells - self._done)
        to_come_s = self._other_s() / max(1, self._begun, self._done + cells) * (left - cells)
        to_come_s += self._preparing_s / max(1, self._prepared) * self._variants
        cells = max(1, cells)  # those that have left, or cannot go on, get no more
        least_s = LEAST_S * members * left / cells
        self.overrun_s = max(0.0, to_come_s + least_s - left_s)
        share_s = max(0.0, left_s - to_come_s) * cells / left
        return max(LEAST_S, share_s / (ROUND_COST + loading) / max(1, members))

    @contextmanager
    def preparing(self) -> Iterator[None]:
        """Prepare one of the variants in a `with` block."""
        begin = self._clock()
        try:
            yield
        finally:
            self._preparing_s += self._clock() - begin
            self._prepared += 1
            self._variants = max(0, self._variants - 1)

    @contextmanager
    def once(self) -> Iterator[None]:
        """Do in a `with` block what will not be done again."""
        begin = self._clock()
        try:
            yield
        finally:
            self._once_s += self._clock() - begin

    def note_begun(self, cells: int) -> None:
        """Take note of cells whose turn has come."""
        self._begun += cells

    def note_timed(self, timed_s: float) -> None:
        """Take note of how long a heat was timed."""
        self._timed_s += timed_s

    def note_done(self, cells: int = 1) -> None:
        """Take note of cells that have their record, whatever it says."""
        self._done += cells

    def _other_s(self) -> float:
        """What was done for single cells beside timing them."""
        known_s = self._timed_s + self._preparing_s + self._once_s
        return max(0.0, self._clock() - self._begin - known_s)
