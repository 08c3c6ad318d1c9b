"""Interruption: Ctrl-C and its like end a run after the round at hand, a second one at once."""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from types import FrameType

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
"""From the keyboard, from a batch system, and from a terminal that is closed."""


class Interruption:
    """Whether somebody has asked the run to end. `tell` hears what that means."""

    def __init__(self, tell: Callable[[str], None] = lambda _: None) -> None:
        self.asked = False
        self._tell = tell
        self._waits = self._held = False

    @contextmanager
    def heard(self) -> Iterator[None]:
        """Take the signals as long as the `with` block takes; those that are ignored stay so."""
        before = {number: signal.getsignal(number) for number in SIGNALS}
        heard = [number for number, action in before.items() if action is not signal.SIG_IGN]
        try:
            for number in heard:
                signal.signal(number, self._hear)
            yield
        finally:
            for number in heard:
                signal.signal(number, before[number])

    def hold(self) -> None:
        """Let signals wait until `release`: what is being made cannot be left half done."""
        self._held = True

    def release(self) -> None:
        """Take signals again; raise KeyboardInterrupt if one was noted."""
        self._held = False
        if self.asked:
            raise KeyboardInterrupt

    @contextmanager
    def after_the_round(self) -> Iterator[None]:
        """Let the first signal only be noted in `asked`: who times cells looks after each round.

        Those that come when the last round has ended wait for `release`, and for the results.
        """
        self._waits = True
        try:
            yield
            self.hold()
        finally:
            self._waits = False

    def _hear(self, _number: int, _frame: FrameType | None) -> None:
        if self._held:
            self.asked = True
            return
        if not self._waits or self.asked:
            raise KeyboardInterrupt
        self.asked = True
        # The terminal may be what is gone, or what is being written to at this very moment.
        with suppress(OSError, RuntimeError):
            self._tell("Ending with this round. Once more to leave at once; nothing is lost by it.")
