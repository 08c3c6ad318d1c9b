"""Footprint: what a model's function can change in its process beside making the model.

Settings, patches of any library's functions and classes, globals of the user's own modules, the
environment. What is changed so holds in no other process: there the function has to run again.
"""

from __future__ import annotations

import gc
import sys
import types
from collections.abc import Mapping, Sequence
from importlib.abc import MetaPathFinder, SourceLoader
from importlib.machinery import ModuleSpec, PathFinder
from operator import is_
from typing import Any

from torch.nn.modules import module as modules

from bench.files import working_folder
from harness.measure.dispatch import COMPILER
from harness.measure.settings import read_global_settings
from harness.prepare.environment import Variables
from harness.prepare.sources import digest_globals
from harness.prepare.users import is_users, is_users_file

ENVIRONMENT = "the environment"
PATCHABLE = (type, types.FunctionType, types.BuiltinFunctionType, types.MethodType,
             types.MethodDescriptorType, types.WrapperDescriptorType, property, staticmethod,
             classmethod)  # fmt: skip
Owners = dict[str, tuple[Any, dict[str, Any]]]
"""Modules and classes by name, each with what it held when it was read."""


class Footprint:
    """The state of a process when it is taken.

    Use as a context manager around what may change something: it sees the user's modules that are
    imported meanwhile as they are when their import ends, and what PyTorch changes in itself when
    it imports its compiler is nobody's doing.
    """

    def __init__(self) -> None:
        self.plain = read_plain()
        self.variables = Variables()
        self.owners = read_owners()
        self.globals = {name: digest_globals(name) for name in _user_modules()}

    def __enter__(self) -> Footprint:
        self._finder = _Finder(self)
        sys.meta_path.insert(0, self._finder)
        self.variables.__enter__()
        return self

    def __exit__(self, *_: object) -> None:
        self.variables.__exit__()
        sys.meta_path.remove(self._finder)

    def excuse(self, plain: dict[str, Any], owners: Owners) -> None:
        """Take what has changed since these were read as if it had been so from the beginning."""
        for name, value in read_plain().items():
            if self.plain[name] == plain[name]:
                self.plain[name] = value
        for owner, (module, before) in owners.items():
            _, known = self.owners.get(owner, (module, before))
            now = vars(module)
            for name in before.keys() | now.keys():
                if before.get(name) is not now.get(name) and known.get(name) is before.get(name):
                    known[name] = now.get(name)

    def compare(self) -> dict[str, Any]:
        """Return what has changed since, by name, with what it is now."""
        now = read_plain()
        found = {name: now[name] for name, value in self.plain.items() if now[name] != value}
        if variables := self.variables.compare():
            found[ENVIRONMENT] = variables
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
        "the garbage collector": (gc.isenabled(), gc.get_threshold()),
        "the recursion limit": sys.getrecursionlimit(),
        "the working folder": str(working_folder()),
        "what traces calls": [_name_of(sys.getprofile()), _name_of(sys.gettrace())],
        "hooks of all modules": hooks,
    }


def _name_of(function: object) -> str:
    return f"{getattr(function, '__module__', '')}.{getattr(function, '__qualname__', '')}"


def read_owners() -> Owners:
    """Return all installed modules and their classes by name, each with what it holds now."""
    owners: Owners = {}
    for name, module in [*sys.modules.items()]:
        if not isinstance(module, types.ModuleType) or is_users(name):
            continue
        held = dict(vars(module))
        owners[name] = module, held
        for kind in held.values():
            if issubclass(type(kind), type) and kind.__module__ == name:
                owners[f"{name}.{kind.__qualname__}"] = kind, dict(vars(kind))
    return owners


def _find_patches(owners: Owners) -> dict[str, Any]:
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
            if after.get(name) is before.get(name) or _is_watched_step(after.get(name)):
                continue
            made_by = str(getattr(after.get(name), "__module__", ""))
            users = made_by in sys.modules and is_users(made_by)
            if name in before or owner not in sys.modules or users:
                found[f"{owner}.{name}"] = after.get(name)
    return found


def _is_watched_step(value: Any) -> bool:
    """Tell whether PyTorch has put its profiler around an optimizer's step, as with any first one.

    Source: torch.optim.Optimizer.profile_hook_step.
    """
    return isinstance(value, types.FunctionType) and getattr(value, "hooked", False) is True


def _patchable(held: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in [*held.items()] if issubclass(type(value), PATCHABLE)}


def _user_modules() -> list[str]:
    return [name for name, module in [*sys.modules.items()]
            if isinstance(module, types.ModuleType) and is_users(name)]  # fmt: skip


class _Finder(MetaPathFinder):
    """Notes what imports do that are none of the user's changes."""

    def __init__(self, footprint: Footprint) -> None:
        self.footprint = footprint

    def find_spec(
        self, name: str, path: Sequence[str] | None, target: types.ModuleType | None = None
    ) -> ModuleSpec | None:
        """Return where a module of the user's or the compiler is; the others' are not found."""
        spec = PathFinder.find_spec(name, path, target)
        watched = spec is not None and (is_users_file(spec.origin) or name == COMPILER)
        loader = spec.loader if spec is not None and watched else None
        if not isinstance(loader, SourceLoader):
            return None  # the others' to find
        run = loader.exec_module

        def exec_module(module: types.ModuleType) -> None:
            if name == COMPILER:  # it wraps functions of PyTorch's, which do what they did
                plain, owners = read_plain(), read_owners()
                run(module)
                self.footprint.excuse(plain, owners)
            else:
                run(module)
                self.footprint.globals[name] = digest_globals(name)

        loader.exec_module = exec_module  # type: ignore[method-assign]  # of this spec only
        return spec
