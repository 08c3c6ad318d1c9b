"""Quantization and lower precision."""

from __future__ import annotations

import copy
import dataclasses
import warnings
from typing import Any

import torch
from torch import Tensor, nn
from torch.ao.nn.quantized.dynamic import Linear as Quantized

from bench.errors import Refusal
from bench.registry import PLAIN_LINEAR, technique
from bench.subject import Subject


@technique(
    "int8-dynamic",
    stage="execution",
    realization="executed",
    needs=(PLAIN_LINEAR,),
    devices=("cpu",),
)
def int8_dynamic(subject: Subject) -> Subject:
    """Linear layers with int8 weights; activations are quantized while it runs.

    w ≈ s·q with q in −128..127 and s = max|w| / 127.5 per tensor; the scale of the activations
    is computed for each call. Convolutions stay in floating point. Needs no data.
    Source: PyTorch, `torch.ao.quantization.quantize_dynamic`.
    """
    _require_layers_in_float32(subject.module)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # deprecated since 2.10 and still there in 2.14
        module = torch.ao.quantization.quantize_dynamic(
            nn.Sequential(copy.deepcopy(subject.module)).eval(), {nn.Linear}, torch.qint8
        )[0]  # PyTorch replaces children only, and the model itself may be a linear layer
    return dataclasses.replace(subject, module=module)


def _require_layers_in_float32(module: nn.Module) -> None:
    """Raise Refusal unless PyTorch can quantize the linear layers."""
    # Subclasses of nn.Linear, such as in nn.MultiheadAttention, are left as they are by PyTorch.
    plain = [part for part in module.modules() if type(part) is nn.Linear]
    if not plain and any(isinstance(part, Quantized) for part in module.modules()):
        raise Refusal("int8-dynamic: the linear layers of this model are quantized already")
    if not plain:
        raise Refusal("int8-dynamic quantizes nn.Linear layers, and this model has none")
    wrong = {str(part.weight.dtype).removeprefix("torch.") for part in plain} - {"float32"}
    if wrong:
        raise Refusal(f"int8-dynamic quantizes layers in float32; these are in {min(wrong)}")


@technique("bf16", stage="execution", realization="executed")
def bf16(subject: Subject) -> Subject:
    """Weights and activations in bfloat16; inputs and outputs stay in 32 bits.

    The cost of the two conversions is part of the measured latency. Needs no data.
    Source: Kalamkar et al., "A Study of BFLOAT16 for Deep Learning Training", arXiv:1905.12322.
    """
    return dataclasses.replace(subject, module=CastModule(subject.module, torch.bfloat16))


@technique("fp16", stage="execution", realization="executed")
def fp16(subject: Subject) -> Subject:
    """Weights and activations in 16-bit floating point; inputs and outputs stay in 32 bits.

    Numbers beyond 65,504 overflow. The cost of the two conversions is part of the measured latency.
    Source: Micikevicius et al., "Mixed Precision Training", arXiv:1710.03740.
    """
    return dataclasses.replace(subject, module=CastModule(subject.module, torch.float16))


class CastModule(nn.Module):
    """A module in another floating-point type behind an interface in 32 bits."""

    def __init__(self, module: nn.Module, dtype: torch.dtype) -> None:
        super().__init__()
        self.module = copy.deepcopy(module).to(dtype)
        self.dtype = dtype

    def forward(self, *inputs: Tensor) -> Any:
        """Return the outputs of the module in 32 bits."""
        return cast(self.module(*(cast(value, self.dtype) for value in inputs)), torch.float32)


def cast(value: Any, dtype: torch.dtype) -> Any:
    """Return floating-point tensors in another type, also inside containers and dataclasses."""
    if isinstance(value, Tensor):
        return value.to(dtype) if value.is_floating_point() else value
    if isinstance(value, dict):
        items_by_key = {key: cast(item, dtype) for key, item in value.items()}
        return items_by_key if type(value) is dict else type(value)(**items_by_key)
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        made = copy.copy(value)  # not made anew: that would compute what it makes of its fields
        for field in dataclasses.fields(value):
            object.__setattr__(made, field.name, cast(getattr(value, field.name, None), dtype))
        return made
    if isinstance(value, tuple | list):
        items = [cast(item, dtype) for item in value]
        return type(value)(*items) if hasattr(value, "_fields") else type(value)(items)
    return value
