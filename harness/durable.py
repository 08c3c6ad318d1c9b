"""Files that survive a crash: whole, or not there."""

from __future__ import annotations

import os
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

ENDING = ".tmp"


def write_durably(path: Path, write: Callable[[Path], Any]) -> None:
    """Write under a temporary name, sync, rename: readers see the old file or the whole new one.

    `write` fills the file it is given. Raises OSError, and then leaves nothing behind.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}{ENDING}")
    try:
        write(temporary)
        _sync(temporary)
        temporary.replace(path)
        _sync(path.parent)
    finally:
        temporary.unlink(missing_ok=True)


def remember(path: Path, text: str) -> None:
    """Keep a text for later runs, if it can be kept: a folder that is full or read-only forgets."""
    with suppress(OSError):
        path.parent.mkdir(parents=True, exist_ok=True)
        write_durably(path, lambda temporary: temporary.write_text(text))


def remove_leftovers(folder: Path) -> None:
    """Remove what writers left in a folder that were killed; nobody may be writing there."""
    for path in folder.glob(f".*{ENDING}"):
        path.unlink(missing_ok=True)


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
