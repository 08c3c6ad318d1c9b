"""Answers that are known already: no variant is asked twice, and memory for them is bounded."""

from __future__ import annotations

import numpy as np

Answers = dict[str, np.ndarray]
"""What a variant answers on the test split: outputs, predictions, labels."""
Place = tuple[str, str, str]
"""Variant, device, runtime: the number of threads changes no answer."""
MOST_BYTES = 2**28


class KnownAnswers:
    """Answers by place and batch; those of the place that was used longest ago go first."""

    def __init__(self, most_bytes: int = MOST_BYTES) -> None:
        self._most_bytes = most_bytes
        self._by_place: dict[Place, dict[int, Answers]] = {}
        self._sizes: dict[Place, int] = {}
        self.size_bytes = 0
        """What all that is known takes; batches with the same answers share them."""

    def find(self, place: Place, batch: int) -> Answers | None:
        """Return the answers in a batch, if they are known."""
        return self._of(place).get(batch)

    def find_other(self, place: Place) -> Answers | None:
        """Return the answers in the first batch that is known, if any is."""
        return next(iter(self._of(place).values()), None)

    def keep(self, place: Place, batch: int, answers: Answers) -> None:
        """Remember answers, and forget others if all together are too large."""
        batches = self._of(place)
        batches[batch] = answers
        arrays = {id(array): array for known in batches.values() for array in known.values()}
        self._set_size(place, sum(array.nbytes for array in arrays.values()))
        while len(self._by_place) > 1 and self.size_bytes > self._most_bytes:
            oldest = next(iter(self._by_place))
            del self._by_place[oldest]
            self._set_size(oldest, 0)

    def _of(self, place: Place) -> dict[int, Answers]:
        """The answers of a place, which becomes the one that was used last."""
        found = self._by_place.pop(place, {})
        self._by_place[place] = found
        return found

    def _set_size(self, place: Place, size_bytes: int) -> None:
        self.size_bytes += size_bytes - self._sizes.pop(place, 0)
        if size_bytes:
            self._sizes[place] = size_bytes
