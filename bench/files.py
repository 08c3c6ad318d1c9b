"""A user's Python files: imported once each, as they are now."""

from __future__ import annotations

import hashlib
import importlib.util
import sys
from pathlib import Path
from types import ModuleType

from bench.errors import SpecError


def load_file(file: str) -> ModuleType:
    """Import a user's Python file once, under a name of its own; raise SpecError if it fails."""
    path = Path(file).expanduser().resolve()
    if not path.is_file():
        raise SpecError(f"No such file: {file}.")
    name = f"paretogrid_file_{path.stem}_{hashlib.sha256(str(path).encode()).hexdigest()[:8]}"
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
    try:
        # Not spec.loader.exec_module: Python's cached bytecode is judged by size and whole
        # seconds, and would run the old text of a file edited twice within one second.
        exec(compile(path.read_bytes(), path, "exec"), loaded.__dict__)
    except SpecError:
        del sys.modules[name]
        raise
    except Exception as error:
        del sys.modules[name]
        raise SpecError(f"{file} fails to import: {type(error).__name__}: {error}") from error
    return loaded
