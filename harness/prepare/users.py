"""The user's own code: which modules are his, as opposed to installed packages."""

from __future__ import annotations

import functools
import hashlib
import sys
import sysconfig
from collections.abc import Collection
from pathlib import Path

from bench.files import NAMED
from harness.paths import is_there

DIGITS = 24
"""Of a digest that stands for what a file holds."""


def is_users(module: str) -> bool:
    """Tell whether a module is the user's own: not Python's, an installed package's, or ours."""
    loaded = sys.modules.get(module or "")
    if loaded is None:  # made where nobody finds it again
        return True
    return is_users_file(getattr(loaded, "__file__", None))


@functools.cache
def is_users_file(file: str | None) -> bool:
    """Tell whether a file is the user's own, as a module's; without one it is written in C."""
    if not isinstance(file, str):
        return False
    path = Path(file).resolve()
    if not is_there(path, Path.is_file) or not {"site-packages", "dist-packages"}.isdisjoint(
        path.parts
    ):
        return False
    return not any(path.is_relative_to(root) for root in _own_and_standard())


def find_imported(before: Collection[str]) -> frozenset[str]:
    """Return the user's modules that are loaded, those left out that were `before`."""
    return frozenset(name for name in [*sys.modules] if name not in before and is_users(name))


_texts: dict[str, str] = {}


def text_of(module: str) -> str:
    """Return a digest of a user's module as its text was when it was first asked for."""
    if module not in _texts:
        file = Path(str(sys.modules[module].__file__))
        _texts[module] = hashlib.sha256(file.read_bytes()).hexdigest()
    return _texts[module]


def read_texts() -> dict[str, str]:
    """Return what the text of the user's modules was when they were imported, by their files.

    Not of files that are named themselves: a key holds them, or what they do.
    """
    return {
        str(Path(str(sys.modules[name].__file__)).absolute()): text_of(name)[:DIGITS]
        for name in find_imported(())
        if not name.startswith(NAMED)
    }


def remember_texts() -> None:
    """Note the text of every module of the user's that is loaded: files are edited meanwhile."""
    for name in find_imported(()):
        text_of(name)


@functools.cache
def _own_and_standard() -> tuple[Path, ...]:
    """Where our packages and Python's library are."""
    own = Path(__file__).resolve().parents[1]
    standard = (Path(sysconfig.get_path(name)).resolve() for name in ("stdlib", "platstdlib"))
    return (own, own.parent / "bench", *standard)
