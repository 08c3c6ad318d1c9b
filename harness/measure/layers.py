"""Layers: a module's parts with what each one stores and computes."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from bench.subject import evaluating
from harness.layer import Layer
from harness.measure.counts import count_macs, count_weights
from harness.measure.runtimes import first_tensor

BETWEEN = "between layers"
"""The kind of the row for products that no layer makes, such as those of attention."""


def list_layers(module: nn.Module, inputs: tuple[Tensor, ...]) -> list[Layer]:
    """Return the layers in the order in which the module names them; shared ones once.

    A layer that stores its weight in a form of its own (`decode_weight`) is one layer, and so is
    whatever has no parts. Tensors that belong to a module with parts are a row of their own.
    """
    parts = _find_parts(module)
    calls = _watch_calls(dict(parts), tuple(value[:1] for value in inputs), module)
    layers = []
    for name, part in parts:
        shape, macs = calls.get(name, ((), 0))
        counted = count_weights(part)
        layers.append(
            Layer(
                name=name,
                kind=_kind(part),
                shape=shape,
                params=int(counted["params"]),
                nonzero_params=int(counted["nonzero_params"]),
                macs=macs,
                weight_bytes=int(counted["weight_bytes"]),
            )
        )
    between = round(count_macs(evaluating(module), inputs)[0]) - sum(layer.macs for layer in layers)
    if between > 0:
        layers.append(Layer("", BETWEEN, (), 0, 0, between, 0))
    return layers


def _find_parts(module: nn.Module) -> list[tuple[str, nn.Module]]:
    parts: list[tuple[str, nn.Module]] = []
    seen: set[nn.Module] = set()

    def visit(name: str, part: nn.Module) -> None:
        if part in seen:
            return
        seen.add(part)
        children = list(part.named_children())
        if not children or hasattr(part, "decode_weight"):
            parts.append((name, part))
            return
        own = _OwnTensors(part)
        if own.tensors:
            parts.append((f"{name}." if name else "", own))
        for child_name, child in children:
            visit(f"{name}.{child_name}" if name else child_name, child)

    visit("", module)
    return parts


class _OwnTensors(nn.Module):
    """The tensors that a module with parts holds beside them."""

    def __init__(self, owner: nn.Module) -> None:
        super().__init__()
        self.owner_kind = type(owner).__name__
        self.tensors = nn.ParameterList(
            nn.Parameter(tensor.detach(), requires_grad=False)
            for tensor in [*owner.parameters(recurse=False), *owner.buffers(recurse=False)]
        )


def _kind(part: nn.Module) -> str:
    if isinstance(part, _OwnTensors):
        return f"{part.owner_kind} (own)"
    inner: Any = getattr(part, "layer", None)
    code: Any = getattr(part, "code", None)
    if isinstance(inner, nn.Module) and isinstance(code, nn.Module):
        return f"{type(inner).__name__} ({type(code).__name__})"
    return type(part).__name__


def _watch_calls(
    parts: dict[str, nn.Module], inputs: tuple[Tensor, ...], module: nn.Module
) -> dict[str, tuple[tuple[int, ...], int]]:
    """Output shape and multiply-accumulates of each part that is called, summed over its calls."""
    calls: dict[str, tuple[tuple[int, ...], int]] = {}
    given: dict[str, list[tuple[Tensor, ...]]] = {}

    def note(name: str) -> Any:
        def hook(_: nn.Module, arguments: tuple[Any, ...], outputs: Any) -> None:
            calls[name] = (tuple(first_tensor(outputs).shape[1:]), 0)
            if all(isinstance(value, Tensor) for value in arguments):
                given.setdefault(name, []).append(arguments)

        return hook

    hooks = [part.register_forward_hook(note(name)) for name, part in parts.items()]
    with torch.no_grad():
        evaluating(module)(*inputs)
    for hook in hooks:
        hook.remove()
    for name, arguments in given.items():
        macs = sum(count_macs(parts[name], one)[0] * len(one[0]) for one in arguments)
        calls[name] = (calls[name][0], round(macs / len(inputs[0])))
    return calls
