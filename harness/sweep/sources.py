"""Sources: a digest of the user's files that a model comes from."""

from __future__ import annotations

import sys
import types
from pathlib import Path, PurePath

import numpy as np
from torch import Tensor

from harness.sweep.content import Unkeyable, Walk
from harness.sweep.users import is_users


def digest_sources(module: str) -> str:
    """Return a digest of a user's module and the modules of his that it uses, as they are loaded.

    Their text, and the plain data among their globals: what a file read when it was imported.
    """
    walk, waiting, done = Walk(), [module], set()
    while waiting:
        name = waiting.pop(0)
        loaded = sys.modules.get(name)
        if name in done or loaded is None:
            continue
        done.add(name)
        if not is_users(name):
            walk.say(name.partition(".")[0], _version_of(name))
            continue
        walk.say(Path(str(loaded.__file__)).read_bytes())
        for key, value in sorted(vars(loaded).items(), key=lambda item: item[0]):
            owner = getattr(value, "__module__", None)
            owner = value.__name__ if isinstance(value, types.ModuleType) else owner
            waiting += [owner] if isinstance(owner, str) else []
            if not key.startswith("__") and isinstance(value, DATA):
                walk.say(key)
                try:
                    walk.visit(value)
                except Unkeyable:
                    walk.say("unknown")
        waiting += [inner for inner in sorted(sys.modules) if inner.startswith(f"{name}.")]
    return walk.digest.hexdigest()


DATA = (bool, int, float, complex, str, bytes, list, tuple, dict, set, frozenset, Tensor,
        np.ndarray, PurePath, types.SimpleNamespace)  # fmt: skip


def _version_of(module: str) -> str:
    return str(getattr(sys.modules.get(module.partition(".")[0]), "__version__", ""))
