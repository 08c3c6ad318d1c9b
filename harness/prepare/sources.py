"""Sources: a digest of the user's files that a model comes from, and of what they hold."""

from __future__ import annotations

import contextlib
import functools
import sys
import types
from collections.abc import Iterable, Mapping
from importlib import metadata
from typing import Any

from bench.files import OUR_PACKAGES
from harness.prepare.content import Unkeyable, Walk
from harness.prepare.users import is_users, text_of


def digest_all(one: Any, modules: Iterable[str], changes: Any) -> str:
    """Return a digest of all that an object holds, and of the files that its classes are from.

    Raises Unkeyable where something in it has no content. `modules` are where it was made and what
    else had a part in it, `changes` what its making has changed beside.
    """
    walk = Walk()
    try:
        walk.visit(one)
        walk.visit_leniently(changes)
    except RecursionError:
        raise Unkeyable("it is nested too deeply") from None
    return walk.digest.hexdigest() + digest_sources({*modules, *walk.modules})


def digest_sources(names: Iterable[str]) -> str:
    """Return a digest of modules and the user's modules that they use, as they are loaded.

    Of the user's: their text when they were imported, and their globals, which may be what a file
    read then. Of others their package's version.
    """
    walk, done = Walk(lenient=True), set[str]()
    walk.modules |= set(names)
    while waiting := sorted(walk.modules - done):
        name = waiting[0]
        done.add(name)
        loaded = sys.modules.get(name)
        if loaded is None or not is_users(name):
            walk.say(name.partition(".")[0], _version_of(name))
            continue
        walk.say(name, text_of(name))
        _feed_globals(walk, loaded)
        walk.modules |= {inner for inner in sys.modules if inner.startswith(f"{name}.")}
    return walk.digest.hexdigest()


def digest_globals(module: str) -> str:
    """Return a digest of what the globals of a module hold, other modules left out."""
    walk = Walk(lenient=True)
    _feed_globals(walk, sys.modules[module])
    return walk.digest.hexdigest()


def _feed_globals(walk: Walk, loaded: types.ModuleType) -> None:
    for key, value in sorted(vars(loaded).items()):
        if isinstance(value, types.ModuleType):
            walk.modules.add(value.__name__)
        elif not key.startswith("__"):
            walk.say(key)
            walk.visit(value)


@functools.cache
def _version_of(module: str) -> str:
    """The version of the package that an installed module is in; empty where it has none."""
    package = module.partition(".")[0]
    told = getattr(sys.modules.get(package), "__version__", None)
    if told is not None:
        return str(told)
    if package in sys.stdlib_module_names or package in OUR_PACKAGES:
        return ""
    if package not in sys.modules:
        return ""
    names = _distributions().get(package, ())
    return " ".join(f"{name} {metadata.version(name)}" for name in sorted(set(names)))


@functools.cache
def find_version(distribution: str) -> str:
    """Return the version of an installed distribution; empty where there is none."""
    with contextlib.suppress(metadata.PackageNotFoundError):
        return metadata.version(distribution)
    return ""


@functools.cache
def _distributions() -> Mapping[str, list[str]]:
    """Which installed distributions each package is from."""
    return metadata.packages_distributions()
