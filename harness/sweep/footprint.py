"""Footprint: what a model's function can change in its process beside making the model.

Settings, patches of PyTorch, attributes of the user's classes and modules, the import path. What is
changed so holds in no other process: there the function has to run again.
"""

from __future__ import annotations

import sys
from typing import Any

import torch
from torch import nn

from harness.measure.settings import read_global_settings
from harness.sweep.sources import digest_sources


def find_footprint(module: str) -> dict[str, Any]:
    """Return what can be changed, by name; `module` is where the function is."""
    patched = (torch, torch.Tensor, nn.functional, nn.Module,
               *(kind for kind in vars(nn).values() if isinstance(kind, type)))  # fmt: skip
    return {
        **read_global_settings(),
        "the import path": tuple(sys.path),
        "the user's own modules": digest_sources([module]),
        **{f"{_name_of(owner)}.{name}": id(value)
           for owner in patched for name, value in vars(owner).items()},
    }  # fmt: skip


def compare_footprints(before: dict[str, Any], after: dict[str, Any]) -> str:
    """Return why a model has to be made again in each process, or nothing."""
    changed = [name for name, value in after.items() if before.get(name, value) != value]
    return f"its function changes {', '.join(changed[:3])}" if changed else ""


def _name_of(owner: Any) -> str:
    return str(getattr(owner, "__qualname__", owner.__name__))
