"""Reads: the files that are read while a variant is made, and what they held.

A model is always built, and its key holds all that it holds; what its forward reads is seen only
while it is trained, calibrated or compressed.
"""

from __future__ import annotations

import hashlib
import os
import sys
import sysconfig
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any
from urllib.parse import unquote

from bench.cache import cache_folder
from harness.paths import is_there

MOST_READ_BYTES = 256 * 2**20
"""Of larger files size and time stand for what they hold."""
DATABASE, RENAMED = "sqlite3.connect", "os.rename"
WRITING = os.O_WRONLY | os.O_CREAT | os.O_TRUNC
NOT_FILES = ("/proc/", "/sys/")


@dataclass
class _Watch:
    """What was opened: files with what they held then; those to write to, and those for both."""

    read: dict[str, str] = field(default_factory=dict)
    written: set[str] = field(default_factory=set)
    both: set[str] = field(default_factory=set)


_watching: list[_Watch] = []
_hooks: list[object] = []


def _note(event: str, arguments: tuple[Any, ...]) -> None:
    if not _watching or event not in ("open", DATABASE, RENAMED):
        return
    given = arguments[event == RENAMED]
    if not isinstance(given, str | bytes | os.PathLike):
        return
    text = os.fsdecode(given)
    if event == DATABASE and text.startswith("file:"):
        text = unquote(text.removeprefix("file:").partition("?")[0])
    path = str(Path(text).absolute())
    flags = {DATABASE: os.O_RDWR, RENAMED: os.O_WRONLY}.get(event) or arguments[2]
    for watch in _watching:
        if flags & WRITING:
            watch.written.add(path)
            continue
        if flags & os.O_RDWR:
            watch.both.add(path)
        if path not in watch.read and _is_users(path):
            watch.read[path] = ""  # first: to read it is to open it
            watch.read[path] = _digest(Path(path))


@contextmanager
def watch_reads() -> Iterator[dict[str, str]]:
    """Give a mapping that has, after a `with` block, the files read in it with their digests.

    As each was when it was first read; "" where there was none. Not those that are written, too (a
    memory of the model's own; of what is open for both, as data bases are, those that have
    changed), nor those of Python, of installed packages, of our own, or of the cache.
    """
    if not _hooks:  # it stays as long as the process
        sys.addaudithook(_note)
        _hooks.append(_note)
    found: dict[str, str] = {}
    watch = _Watch()
    _watching.append(watch)
    try:
        yield found
    finally:
        _watching[:] = [one for one in _watching if one is not watch]
        read = watch.read
        own = watch.written | {path for path in read.keys() & watch.both
                               if _digest(Path(path)) != read[path]}  # fmt: skip
        found |= {path: read[path] for path in sorted(read.keys() - own)}


def digest_files(paths: Iterable[str]) -> dict[str, str]:
    """Return what stands for the content of each file; "" where there is none to be read."""
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
    if path.startswith(NOT_FILES) or is_there(Path(path), _is_special):
        return False
    if not {"site-packages", "dist-packages", "__pycache__"}.isdisjoint(Path(path).parts):
        return False
    return not any(Path(path).is_relative_to(root) for root in (*_installed(), cache_folder()))


@cache
def _installed() -> tuple[Path, ...]:
    """The folders of Python's own library and of ours."""
    python = (Path(sysconfig.get_path(name)) for name in ("stdlib", "platstdlib"))
    ours = Path(__file__).resolve().parents[1]
    return (*python, ours, ours.parent / "bench")


def _is_special(path: Path) -> bool:
    """Tell whether this is something else than a file: a folder, a device, a pipe."""
    return path.exists() and not path.is_file()
