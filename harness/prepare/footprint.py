"""Footprint: what a model's function can change in its process beside making the model.

Settings, patches of any library's functions and classes, globals of the user's own modules, the
environment. What is changed so holds in no other process: there the function has to run again.
"""

from __future__ import annotations

import gc
import os
import sys
import types
from collections.abc import Mapping, Sequence
from importlib.abc import MetaPathFinder, SourceLoader
from importlib.machinery import ModuleSpec, PathFinder
from operator import is_
from typing import Any

from torch.nn.modules import module as modules

from harness.measure.settings import read_global_settings
from harness.prepare.sources import digest_globals
from harness.prepare.users import is_users, is_users_file

ENVIRONMENT = "the environment"
PATCHABLE = (type, types.FunctionType, types.BuiltinFunctionType, types.MethodType,
             types.MethodDescriptorType, types.WrapperDescriptorType, property, staticmethod,
             classmethod)  # fmt: skip


class Footprint:
    """The state of a process when it is taken.

    Use as a context manager around what may change something: it sees the user's modules that are
    imported meanwhile as they are when their import ends.
    """

    def __init__(self) -> None:
        self.plain = read_plain()
        self.owners = read_owners()
        self.globals = {name: digest_globals(name) for name in _user_modules()}

    def __enter__(self) -> Footprint:
        self._finder = _Finder(self.globals)
        sys.meta_path.insert(0, self._finder)
        return self

    def __exit__(self, *_: object) -> None:
        sys.meta_path.remove(self._finder)

    def compare(self) -> dict[str, Any]:
        """Return what has changed since, by name, with what it is now."""
        now = read_plain()
        found = {name: now[name] for name, value in self.plain.items() if now[name] != value}
        found |= _find_patches(self.owners)
        for name, known in self.globals.items():
            if name in sys.modules and (value := digest_globals(name)) != known:
                found[f"globals of {name}"] = value
        return found


def read_plain() -> dict[str, Any]:
    """Return settings and lists that hold for the whole process, by name."""
    hooks = {name: list(value) for name, value in vars(modules).items()
             if name.startswith("_global_") and isinstance(value, dict)}  # fmt: skip
    return {
        **read_global_settings(),
        "the import path": list(sys.path),
        ENVIRONMENT: dict(os.environ),
        "the garbage collector": (gc.isenabled(), gc.get_threshold()),
        "the recursion limit": sys.getrecursionlimit(),
        "hooks of all modules": hooks,
    }


def read_owners() -> dict[str, tuple[Any, dict[str, Any]]]:
    """Return all installed modules and their classes by name, each with what it holds now."""
    owners: dict[str, tuple[Any, dict[str, Any]]] = {}
    for name, module in [*sys.modules.items()]:
        if not isinstance(module, types.ModuleType) or is_users(name):
            continue
        held = dict(vars(module))
        owners[name] = module, held
        for kind in held.values():
            if issubclass(type(kind), type) and kind.__module__ == name:
                owners[f"{name}.{kind.__qualname__}"] = kind, dict(vars(kind))
    return owners


def _find_patches(owners: dict[str, tuple[Any, dict[str, Any]]]) -> dict[str, Any]:
    """What was replaced, taken away, or put into a class, or by a user's own into a module."""
    found = {}
    for owner, (known, old) in owners.items():
        held = sys.modules.get(owner)  # another one, where it was replaced
        now = vars(held if isinstance(held, types.ModuleType) else known)
        # Nearly all are as they were: told at C's speed, half a million attributes in 30 ms.
        if old.keys() == now.keys() and all(map(is_, old.values(), now.values())):
            continue
        before, after = _patchable(old), _patchable(now)
        for name in before.keys() | after.keys():
            if after.get(name) is before.get(name):
                continue
            made_by = str(getattr(after.get(name), "__module__", ""))
            users = made_by in sys.modules and is_users(made_by)
            if name in before or owner not in sys.modules or users:
                found[f"{owner}.{name}"] = after.get(name)
    return found


def _patchable(held: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in [*held.items()] if issubclass(type(value), PATCHABLE)}


def _user_modules() -> list[str]:
    return [name for name, module in [*sys.modules.items()]
            if isinstance(module, types.ModuleType) and is_users(name)]  # fmt: skip


class _Finder(MetaPathFinder):
    """Notes the globals of a user's module as they are when its import ends."""

    def __init__(self, known: dict[str, str]) -> None:
        self.known = known

    def find_spec(
        self, name: str, path: Sequence[str] | None, target: types.ModuleType | None = None
    ) -> ModuleSpec | None:
        """Return where a module is, to be noted if it is the user's; the others' are not found."""
        spec = PathFinder.find_spec(name, path, target)
        loader = spec.loader if spec is not None and is_users_file(spec.origin) else None
        if not isinstance(loader, SourceLoader):
            return None  # the others' to find
        run = loader.exec_module

        def exec_module(module: types.ModuleType) -> None:
            run(module)
            self.known[name] = digest_globals(name)

        loader.exec_module = exec_module  # type: ignore[method-assign]  # of this spec only
        return spec
