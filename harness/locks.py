"""Locks: files that the kernel gives up when their holder ends, however it ends."""

from __future__ import annotations

import fcntl
import time
from pathlib import Path
from typing import IO

LOOK_EVERY_S = 0.05


def try_lock(file: IO[str], alone: bool = True) -> bool:
    """Tell whether a file is ours now; on a file system without locks it is.

    Not `alone`, it is shared with all that do not want it alone.
    """
    try:
        fcntl.flock(file, (fcntl.LOCK_EX if alone else fcntl.LOCK_SH) | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:
        pass
    return True


def wait_for_lock(file: IO[str], timeout_s: float) -> bool:
    """Tell whether a file has become ours in so many seconds."""
    deadline = time.monotonic() + timeout_s
    while not try_lock(file):
        if time.monotonic() > deadline:
            return False
        time.sleep(LOOK_EVERY_S)
    return True


def is_locked(path: Path) -> bool:
    """Tell whether somebody has a file alone; where that cannot be known, take it for granted."""
    try:
        with path.open() as file:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except FileNotFoundError:
        return False
    except OSError:
        return True
    return False
