"""Channel: messages between the runner and a worker, of any size, each bounded in time."""

from __future__ import annotations

import pickle
import socket
import struct
import time
from typing import Any

HEADER = struct.Struct("!Q")
"""Before each message: its length in bytes."""


class Channel:
    """One end of a connection of two processes that trust each other."""

    def __init__(self, end: socket.socket) -> None:
        self._end = end

    def send(self, message: Any, timeout_s: float | None = None) -> None:
        """Send a message; None waits for ever.

        Raises TimeoutError where it is not taken in time, ConnectionError where nobody is there.
        The channel is of no use after either.
        """
        content = pickle.dumps(message, protocol=pickle.HIGHEST_PROTOCOL)
        deadline = find_deadline(timeout_s)
        for part in (HEADER.pack(len(content)), content):
            self._end.settimeout(time_left(deadline))
            self._end.sendall(part)  # its time-out is that of the whole

    def receive(self, timeout_s: float | None = None) -> Any:
        """Return the next message; raise as `send` does, EOFError where the other end is closed."""
        deadline = find_deadline(timeout_s)
        (size,) = HEADER.unpack(self._read(HEADER.size, deadline))
        return pickle.loads(self._read(size, deadline))

    def _read(self, size: int, deadline: float | None) -> bytearray:
        content = bytearray(size)
        rest = memoryview(content)
        while rest:
            self._end.settimeout(time_left(deadline))
            taken = self._end.recv_into(rest)
            if taken == 0:
                raise EOFError("the other end is closed")
            rest = rest[taken:]
        return content

    def close(self) -> None:
        """Hang up."""
        self._end.close()


def find_deadline(timeout_s: float | None) -> float | None:
    """Return the moment at which a time from now is over; None for no end."""
    return None if timeout_s is None else time.monotonic() + timeout_s


def time_left(deadline: float | None) -> float | None:
    """Return the time until a deadline; raise TimeoutError where it has passed."""
    if deadline is None:
        return None
    left = deadline - time.monotonic()
    if left <= 0:
        raise TimeoutError("no time is left")
    return left
