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
from urllib.parse import unquote, urlsplit

from bench.cache import cache_folder
from harness.paths import is_there
from harness.prepare.users import DIGITS

MOST_READ_BYTES = 256 * 2**20
"""Of larger files size and time stand for what they hold."""
MOST_TOLD = 3
DATABASE = "sqlite3.connect"
NOT_FILES = ("/proc/", "/sys/")
NOT_USERS = ("site-packages", "dist-packages", "__pycache__")
COMPILED = "torchinductor_"
"""What the folders of PyTorch's compiler begin with."""


_watching: list[dict[str, str]] = []
"""What the files that were read held then, for each who asks."""
_hooks: list[object] = []


def _note(event: str, arguments: tuple[Any, ...]) -> None:
    if not _watching or event not in ("open", DATABASE):
        return
    given = arguments[0]
    if not isinstance(given, str | bytes | os.PathLike):
        return
    if event == "open" and arguments[2] & os.O_WRONLY:
        return
    text = os.fsdecode(given)
    if event == DATABASE:
        text = unquote(urlsplit(text).path) if text.startswith("file:") else text
        if text.startswith(":"):  # one in memory
            return
    path = str(Path(text).absolute())
    for read in _watching:
        if path not in read and _is_users(path):
            read[path] = ""  # first: to read it is to open it
            read[path] = _digest(Path(path))


@contextmanager
def watch_reads() -> Iterator[Reads]:
    """Give what has, after a `with` block, the files that were read in it.

    Not those of Python, of installed packages, of our own, or of the cache.
    """
    if not _hooks:  # it stays as long as the process
        sys.addaudithook(_note)
        _hooks.append(_note)
    found = Reads()
    read: dict[str, str] = {}
    _watching.append(read)
    try:
        yield found
    finally:
        _watching[:] = [one for one in _watching if one is not read]
        for path, held in sorted(read.items()):
            if _digest(Path(path)) == held:
                found.files[path] = held
            else:
                found.changed.append(path)


@dataclass(frozen=True)
class Reads:
    """Files that were read, with what they held ("" where there was none); and those that changed.

    What has changed in the meantime is mostly a memory of the model's own, which it reads and
    writes: it is told, and is no input.
    """

    files: dict[str, str] = field(default_factory=dict)
    changed: list[str] = field(default_factory=list)

    def tell(self) -> str:
        """Say what has changed; empty where nothing has."""
        if not self.changed:
            return ""
        some = ", ".join(self.changed[:MOST_TOLD]) + (", ..." if self.changed[MOST_TOLD:] else "")
        return f"what it read changed while it was made, and is no part of its key: {some}"


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
        return hashlib.sha256(path.read_bytes()).hexdigest()[:DIGITS]
    except OSError:
        return ""


def _is_users(path: str) -> bool:
    if path.startswith(NOT_FILES) or is_there(Path(path), _is_special):
        return False
    parts = Path(path).parts
    if not set(NOT_USERS).isdisjoint(parts) or any(part.startswith(COMPILED) for part in parts):
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
