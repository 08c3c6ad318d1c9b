"""Guests: cells too big to be alive together are loaded for each block, and let go."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

from harness.sweep.heat import Samples
from harness.sweep.remote import Worker

ADJACENT_BLOCK_S = 0.2
"""Its blocks are longer: each pays for a load."""


class Guest:
    """A cell too big to stay: it is loaded for one long block, and let go."""

    def __init__(
        self, load: Callable[[ExitStack], tuple[Worker, dict[str, Any]]], timeout_s: float
    ) -> None:
        self._load = load
        self._timeout_s = timeout_s
        self._worker: Worker | None = None

    @contextmanager
    def present(self) -> Iterator[None]:
        """Have it loaded as long as the `with` block takes."""
        with ExitStack() as stack:
            self._worker, _ = self._load(stack)
            yield

    def time_block(self) -> Samples:
        """Return a block of it, which is present."""
        assert self._worker is not None
        samples: Samples = self._worker.time_block(self._timeout_s, ADJACENT_BLOCK_S)
        return samples
