"""Environment: which variables the user's code changes, as opposed to the libraries it imports.

Libraries set variables when they are first imported, which is not in every run.
"""

from __future__ import annotations

import os
import sys
import types
from collections.abc import Sequence
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from typing import Any

from harness.prepare.users import is_users_file


class Variables(MetaPathFinder):
    """The environment as it was; a context manager around what may change it."""

    def __init__(self) -> None:
        self._first = dict(os.environ)

    def __enter__(self) -> Variables:
        sys.meta_path.insert(0, self)
        return self

    def __exit__(self, *_: object) -> None:
        sys.meta_path.remove(self)

    def compare(self) -> dict[str, str | None]:
        """Return the variables that were changed, with what they hold now; None: taken away."""
        return _differences(self._first, dict(os.environ))

    def find_spec(
        self, name: str, path: Sequence[str] | None, target: types.ModuleType | None = None
    ) -> ModuleSpec | None:
        """Return where the others find a module; what an installed one sets is excused."""
        finders = [one for one in sys.meta_path if one is not self and hasattr(one, "find_spec")]
        spec = next(filter(None, (one.find_spec(name, path, target) for one in finders)), None)
        # What is built in has a class as its loader, and sets nothing.
        if spec and isinstance(spec.loader, Loader) and not is_users_file(spec.origin):
            spec.loader = _Excusing(spec.loader, self._first)
        return spec


class _Excusing(Loader):
    """A loader that takes what a module sets in its import as if it had been so before."""

    def __init__(self, loader: Loader, variables: dict[str, str]) -> None:
        self._loader, self._variables = loader, variables

    def __getattr__(self, name: str) -> Any:
        return getattr(self._loader, name)

    def create_module(self, spec: ModuleSpec) -> types.ModuleType | None:
        """Return what the loader makes of it."""
        return self._loader.create_module(spec)

    def exec_module(self, module: types.ModuleType) -> None:
        """Import a module by its own loader, which it has from then on."""
        module.__loader__ = self._loader
        if module.__spec__:
            module.__spec__.loader = self._loader
        before = dict(os.environ)
        try:
            self._loader.exec_module(module)
        finally:
            for name, value in _differences(before, dict(os.environ)).items():
                self._variables.pop(name, None)
                self._variables |= {} if value is None else {name: value}


def _differences(before: dict[str, str], now: dict[str, str]) -> dict[str, str | None]:
    names = sorted(before.keys() | now.keys())
    return {name: now.get(name) for name in names if before.get(name) != now.get(name)}
