"""Paths as users write them, and whether we may write there."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from pathlib import Path

from bench.files import expand_home
from harness.errors import UserError


def read_path(text: str | Path) -> Path:
    """Return a path with `~` as the home folder; raise UserError where nobody knows that folder.

    A shell leaves `--results=~/x` and a quoted `'~/x'` as they are. In `./~x` it is a name, and the
    path is absolute: otherwise it would be `~x`, as if it were a folder of somebody's.
    """
    try:
        path = expand_home(str(text))
        return path.absolute() if str(path).startswith("~") else path
    except RuntimeError:
        raise UserError(
            f"{text}: there is no home folder here. Write the whole path instead of ~."
        ) from None


def is_there(path: Path, kind: Callable[[Path], bool] = Path.exists) -> bool:
    """Tell whether there is a file or folder, of a kind, and can be seen by this user."""
    try:
        return kind(path)
    except OSError:  # in another user's folder, or the name is too long for one
        return False


def require_writable(folder: Path, what: str, remedy: str) -> None:
    """Raise UserError where no file can be written in a folder, or the folder not be made."""
    there = next((path for path in (folder, *folder.absolute().parents) if is_there(path)), folder)
    try:
        with tempfile.TemporaryFile(dir=there):
            pass
    except OSError as error:
        raise UserError(f"Cannot write {what} to {folder}: {error.strerror}. {remedy}") from None
