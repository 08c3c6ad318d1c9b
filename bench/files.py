"""A user's Python files: imported once each, as they are now."""

from __future__ import annotations

import hashlib
import importlib.util
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType

from bench.errors import SpecError

OUR_PACKAGES = ("bench", "harness")
NAMED = "paretogrid_file_"
"""What the names of modules begin with that are files which a user names."""


_left: dict[Path, Path] = {}
"""By a folder that a user's code made the working one, that which it was before."""


@contextmanager
def noting_moves() -> Iterator[None]:
    """Note where a user's code in a `with` block changes the working folder."""
    before = working_folder()
    try:
        yield
    finally:
        if (now := working_folder()) != before:
            _left[now] = _left.get(before, before)


def working_folder() -> Path:
    """Return the working folder, or the relative path of it where it was deleted."""
    try:
        return Path.cwd()
    except OSError:
        return Path()


def expand_home(text: str) -> Path:
    """Return a path with `~` at its beginning as the home folder; in `./~x` it is a name.

    Raises RuntimeError where nobody knows that folder.
    """
    return Path(text).expanduser() if text.startswith("~") else Path(text)


def find_path(text: str) -> Path:
    """Return the path that a user means, `~` at its beginning as the home folder.

    In `./~x` it is a name, as it is where nobody knows that folder. A relative path that is not in
    the working folder is one of the folder that was it, before the user's file changed it.
    """
    path = Path(text)
    return path if exists(path) and not text.startswith("~") else _find_where_it_was(text)


def exists(path: Path) -> bool:
    """Tell whether there is such a path, as far as this user can see."""
    try:
        return path.exists()
    except OSError:  # of a folder that is closed, or a name that is too long for one
        return False


def _find_where_it_was(text: str) -> Path:
    """The path of a name that was written before a user's code changed the working folder."""
    try:
        path = expand_home(text)
    except RuntimeError:
        path = Path(text)
    return _left.get(working_folder(), Path()) / path


def load_file(file: str) -> ModuleType:
    """Import a user's Python file once, under a name of its own; raise SpecError if it fails."""
    path = _find_where_it_was(file).resolve()
    if not path.is_file():
        raise SpecError(f"No such file: {file}.")
    name = f"{NAMED}{path.stem}_{hashlib.sha256(str(path).encode()).hexdigest()[:8]}"
    if name in sys.modules:
        return sys.modules[name]
    spec = importlib.util.spec_from_file_location(name, path)
    if spec is None:
        raise SpecError(f"{file} is not a Python file.")
    loaded = importlib.util.module_from_spec(spec)
    sys.modules[name] = loaded
    # Appended, so that a file beside the user's cannot shadow an installed package.
    if str(path.parent) not in sys.path:
        sys.path.append(str(path.parent))
    arguments, sys.argv = sys.argv, [str(path)]  # ours are not for a file that reads them
    try:
        # Not spec.loader.exec_module: Python's cached bytecode is judged by size and whole
        # seconds, and would run the old text of a file edited twice within one second.
        with noting_moves():
            exec(compile(path.read_bytes(), path, "exec"), loaded.__dict__)
    except BaseException as error:
        del sys.modules[name]
        if isinstance(error, SpecError | KeyboardInterrupt):
            raise
        raise SpecError(_explain(file, error)) from error
    finally:
        sys.argv = arguments
    return loaded


def _explain(file: str, error: BaseException) -> str:
    """Say why a file fails to import, and what would work where that is known."""
    hint = ""
    if isinstance(error, SystemExit):
        hint = " Put what is meant for the command line under `if __name__ == '__main__':`."
    elif isinstance(error, ImportError) and "attempted relative import" in str(error):
        hint = (
            " A file is imported by itself and not as a part of its package: name a file beside "
            "the package that imports the function from it."
        )
    elif isinstance(error, ImportError) and error.name:
        top = error.name.partition(".")[0]
        folders = (_find_where_it_was(file).resolve().parent, Path.cwd())
        own = [folder / name for folder in folders for name in (top, f"{top}.py")]
        if top in OUR_PACKAGES and any(path.exists() for path in own):
            hint = f" {top} is a package of paretogrid's own; give yours another name."
        elif isinstance(error, ModuleNotFoundError):
            hint = (
                f" Start where {top} can be found, or name its folder: "
                "PYTHONPATH=FOLDER paretogrid ..."
            )
    return f"{file} fails to import: {type(error).__name__}: {error}.{hint}"
