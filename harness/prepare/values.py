"""Values: what is told of single ones, where objects are known by their content."""

from __future__ import annotations

import random
from typing import Any

import numpy as np
import torch
from torch import Tensor

COMMON = {
    id(one): name
    for name, one in (("Python's", random._inst), ("NumPy's", np.random.mtrand._rand),
                      ("PyTorch's", torch.default_generator))
}  # fmt: skip
"""The generators that all share: seeded before anything is made, and the seed is in the key."""


def name_of(kind: type) -> str:
    """Return the name of a class, with its module."""
    return f"{kind.__module__}.{kind.__qualname__}"


def attributes(one: Any) -> dict[str, Any] | None:
    """Return what an object of a class of the user's holds beside what its class is made for."""
    return getattr(one, "__dict__", None) or None


def bits(one: Any) -> str:
    """Return a value written out; numbers exactly."""
    if isinstance(one, float):
        return one.hex()
    return repr(one)


def quantization(tensor: Tensor) -> tuple[Any, ...]:
    """Return by what the numbers of a quantized tensor are scaled."""
    if tensor.qscheme() in (torch.per_channel_affine, torch.per_channel_symmetric):
        scales, zeros = tensor.q_per_channel_scales(), tensor.q_per_channel_zero_points()
        return (scales.tolist(), zeros.tolist(), tensor.q_per_channel_axis())
    return (tensor.q_scale(), tensor.q_zero_point())


def bytes_of(tensor: Tensor) -> memoryview | bytes:
    """Return a tensor's numbers in the order of its dimensions."""
    plain = tensor.detach().resolve_conj().resolve_neg().cpu().contiguous().reshape(-1)
    return plain.view(torch.uint8).numpy().data if plain.numel() else b""
