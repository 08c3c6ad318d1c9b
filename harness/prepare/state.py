"""State: what a module has learned, kept for where it is built again by its steps."""

from __future__ import annotations

import copy
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from harness.prepare.content import digest_leniently
from harness.prepare.users import is_users

OWN = vars(nn.Module()).keys() - {"training"}
"""Attributes in which PyTorch has a module's parts."""
DATA = (type(None), bool, int, float, complex, str, bytes, Tensor, np.ndarray, np.generic)
MOST_TOLD = 3


def save_state(module: nn.Module, path: Path) -> None:
    """Write a module's parameters and buffers, and its attributes that are nothing but data."""
    state = {
        "state": module.state_dict(),
        "buffers": dict(module.named_buffers(remove_duplicate=False)),
        "attributes": {name: _read_attributes(part) for name, part in module.named_modules()},
    }
    with path.open("wb") as file:
        torch.save(state, file)


def restore_state(module: nn.Module, path: Path) -> None:
    """Give a module what was kept, whatever shape its buffers had."""
    kept = torch.load(path, weights_only=False, mmap=True)
    if isinstance(module, torch.jit.ScriptModule):
        module.load_state_dict(kept["state"])
        return
    for name, buffer in kept["buffers"].items():
        owner, _, leaf = name.rpartition(".")
        module.get_submodule(owner)._buffers[leaf] = buffer
    parameters = copy.copy(kept["state"])  # with the versions by which quantized layers read it
    for name in kept["buffers"]:
        parameters.pop(name, None)
    module.load_state_dict(parameters, strict=False)
    for name, attributes in kept["attributes"].items():
        held = vars(module.get_submodule(name))
        for key, value in attributes.items():
            if key not in held or digest_leniently(held[key]) != digest_leniently(value):
                held[key] = value


def find_lost(made: nn.Module, untrained: nn.Module, path: Path) -> str:
    """Return what an untrained module would lack with what was kept of a trained one, or nothing.

    Tried out on a copy. Other objects than data are not kept: they may be another's too.
    """
    rebuilt = copy.deepcopy(untrained)
    try:
        restore_state(rebuilt, path)
    except Exception as error:
        return " ".join(f"its weights ({type(error).__name__}: {error}".split())[:200] + ")"
    rebuilt.train(getattr(made, "training", False))
    return ", ".join([*find_differences(made, rebuilt, everything=True)][:MOST_TOLD])


def find_differences(one: nn.Module, other: nn.Module, everything: bool = False) -> Iterator[str]:
    """Yield the names of what two modules hold that is not alike.

    Objects of an installed library are left out, unless `everything` is asked for: it restores
    them when it reads them again, with marks of its own.
    """
    others = dict(other.named_modules())
    for path, part in one.named_modules():
        held = _read_parts(part, everything)
        found = _read_parts(others[path], everything) if path in others else {}
        for name, value in held.items():
            if name not in found or digest_leniently(value) != digest_leniently(found[name]):
                yield f"{path}.{name}".strip(".")


def _read_parts(part: nn.Module, everything: bool) -> dict[str, Any]:
    """What a module holds apart from the modules in it, by name."""
    if isinstance(part, torch.jit.ScriptModule):
        return {"the script": part}
    own = {name: value for name, value in vars(part).items()
           if name not in OWN and (everything or not _is_a_librarys(value))}  # fmt: skip
    return {**part._parameters, **part._buffers, **own}


def _is_a_librarys(value: Any) -> bool:
    module = type(value).__module__
    standard = module.partition(".")[0] in sys.stdlib_module_names
    return not (_is_data(value) or standard or is_users(module))


def _read_attributes(part: nn.Module) -> dict[str, Any]:
    if isinstance(part, torch.jit.ScriptModule):
        return {}
    return {
        name: value for name, value in vars(part).items() if name not in OWN and _is_data(value)
    }


def _is_data(value: Any) -> bool:
    if isinstance(value, dict):
        return type(value) is dict and all(map(_is_data, (*value.keys(), *value.values())))
    if isinstance(value, list | tuple | set):
        return type(value) in (list, tuple, set) and all(map(_is_data, value))
    return type(value) in DATA or isinstance(value, np.generic)
