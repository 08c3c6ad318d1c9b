"""Eviction: the cache stays below its limit; what was used longest ago goes first."""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from harness.errors import UserError

LIMIT = "PARETOGRID_CACHE_GB"
LIMIT_GB = 20.0
SPARED_S = 24 * 3600.0
"""What was used more recently stays, whatever the limit: another run may be about to load it."""
MAKING = ".making-"
"""How the folder of a variant begins that is being made."""


def mark_used(path: Path) -> None:
    """Note that an entry of the cache is used now."""
    with suppress(OSError):  # another user's cache is read all the same
        os.utime(path)


def read_limit() -> int:
    """Return how many bytes the cache may hold; raise UserError for what is no number."""
    text = os.environ.get(LIMIT) or str(LIMIT_GB)
    try:
        limit_gb = float(text)
    except ValueError:
        limit_gb = -1.0
    if not 0 <= limit_gb < float("inf"):
        raise UserError(f"{LIMIT} must be a number of gigabytes, such as 50, got {text!r}.")
    return int(limit_gb * 1e9)


def trim_cache(folder: Path, most_bytes: int) -> int:
    """Delete what was used longest ago until the cache is small enough; return the bytes freed.

    Variants and data sets count. What a killed run left half made goes as well.
    """
    longest_ago = time.time() - SPARED_S
    freed = 0
    for path in (folder / "variants").glob(f"{MAKING}*"):
        if _used_s(path) < longest_ago:
            freed += discard(path)
    entries = sorted((_used_s(path), _size(path), path) for path in _entries(folder))
    total = sum(size for _, size, _ in entries)
    for used_s, size, path in entries:
        if total <= most_bytes or used_s >= longest_ago:
            break
        freed += discard(path)
        total -= size
    return freed


def _entries(folder: Path) -> Iterator[Path]:
    for path in (folder / "variants").glob("*"):
        if not path.name.startswith(MAKING):
            yield path
    yield from (folder / "datasets").glob("*.pt")


def _used_s(path: Path) -> float:
    facts = path / "facts.json"
    try:
        return (facts if facts.exists() else path).stat().st_mtime
    except OSError:
        return 0.0


def _size(path: Path) -> int:
    files = path.rglob("*") if path.is_dir() else [path]
    total = 0
    for file in files:
        with suppress(OSError):
            total += file.stat().st_size
    return total


def discard(path: Path) -> int:
    """Delete an entry of the cache; return the bytes freed, none where it is another user's."""
    size = _size(path)
    try:
        if path.is_dir():
            doomed = path if path.name.startswith(MAKING) else path.with_name(MAKING + path.name)
            path.rename(doomed)  # half deleted, it would stand in the way of a new one
            shutil.rmtree(doomed)
        else:
            path.unlink()
    except OSError:
        return 0
    return size
