"""Reads: the files that are read while a variant is made, and what they held.

A model is always built, and its key holds all that it holds; what its forward reads is seen only
while it is trained, calibrated or compressed.
"""

from __future__ import annotations

import hashlib
import os
import sys
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from bench.cache import cache_folder
from harness.paths import is_there

MOST_READ_BYTES = 256 * 2**20
"""Of larger files size and time stand for what they hold."""
EVENTS = ("open", "sqlite3.connect")
NOT_FILES = ("/proc/", "/sys/", "/dev/")


_watching: list[set[str]] = []
"""The paths that are opened, for each who asks for them."""
_hooks: list[object] = []


def _note(event: str, arguments: tuple[Any, ...]) -> None:
    if not _watching or event not in EVENTS:
        return
    path, mode = arguments[0], arguments[1] if event == "open" else "r"
    written = isinstance(mode, str) and not mode.startswith("r")
    if isinstance(path, str | bytes | os.PathLike) and not written:
        for paths in _watching:
            paths.add(str(Path(os.fsdecode(path)).absolute()))


@contextmanager
def watch_reads() -> Iterator[dict[str, str]]:
    """Give a mapping that has, after a `with` block, the files read in it with their digests.

    Not those of Python, of installed packages, of our own, or of the cache.
    """
    if not _hooks:  # it stays as long as the process
        sys.addaudithook(_note)
        _hooks.append(_note)
    found: dict[str, str] = {}
    opened: set[str] = set()
    _watching.append(opened)
    try:
        yield found
    finally:
        _watching[:] = [one for one in _watching if one is not opened]
        found |= digest_files(sorted(path for path in opened if _is_users(path)))


def digest_files(paths: Iterable[str]) -> dict[str, str]:
    """Return what stands for the content of each file; nothing of one that cannot be read."""
    return {path: _digest(Path(path)) for path in paths}


def has_changed(reads: Mapping[str, str]) -> bool:
    """Tell whether any file holds something else than when it was read."""
    return digest_files(reads) != dict(reads)


def _digest(path: Path) -> str:
    try:
        facts = path.stat()
        if facts.st_size > MOST_READ_BYTES:
            return f"{facts.st_size} {facts.st_mtime_ns}"
        return hashlib.sha256(path.read_bytes()).hexdigest()[:24]
    except OSError:
        return ""


def _is_users(path: str) -> bool:
    if path.startswith(NOT_FILES) or not is_there(Path(path), Path.is_file):
        return False
    if not {"site-packages", "dist-packages", "__pycache__"}.isdisjoint(Path(path).parts):
        return False
    ours = Path(__file__).resolve().parents[1]
    roots = (sys.prefix, sys.base_prefix, cache_folder(), ours, ours.parent / "bench")
    return not any(Path(path).is_relative_to(root) for root in roots)
