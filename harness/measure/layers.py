"""Layers: a module's parts with what each one stores and computes."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from bench.subject import evaluating
from bench.tasks import first_tensor
from harness.layer import Layer
from harness.measure.dispatch import forget_traces
from harness.measure.macs import MacCounter, count_call
from harness.measure.runtimes import take_batch
from harness.measure.weights import Seen, count_weights

BETWEEN = "between layers"
"""The kind of the row for products that no layer makes, such as those of attention."""
FEW = 2
"""In a call of a single example, its own numbers look like constants."""


@dataclass(frozen=True)
class Part:
    """A module that is listed as one layer, or (`own`) the tensors it holds beside its parts."""

    name: str
    module: nn.Module
    own: bool = False


def list_layers(module: nn.Module, inputs: tuple[Tensor, ...]) -> list[Layer]:
    """Return the layers in the order in which the module names them; shared ones once.

    A layer that stores its weight in a form of its own (`decode_weight`) is one layer, and so is
    whatever has no parts. Tensors that belong to a module with parts are a row of their own. A
    weight that two layers share is the first one's. Where an operator cannot be counted, the layer
    that ran it has no `macs`. These are of a call of two examples, or of all where it takes no two.
    """
    parts = _find_parts(evaluating(module))
    few = _take_few(module, inputs)
    calls = _watch_calls({part.name: part.module for part in parts if not part.own}, few, module)
    layers, seen = [], Seen()
    for part in parts:
        counted = count_weights(part.module, seen, recurse=not part.own)
        layers.append(
            Layer(
                name=part.name,
                kind=_kind(part),
                shape=calls.shapes.get(part.name, ()),
                params=int(counted["params"]),
                nonzero_params=int(counted["nonzero_params"]),
                macs=0 if part.own else calls.macs(part.name, len(few[0])),
                weight_bytes=int(counted["weight_bytes"]),
            )
        )
    between = calls.macs("", len(few[0]))
    if between != 0 and (len(parts) != 1 or parts[0].name):
        layers.append(Layer("", BETWEEN, (), 0, 0, between, 0))
    return layers


def _take_few(module: nn.Module, inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    """Return as few examples as a module takes; what it does in its first call alone is done."""
    for examples in (FEW, len(inputs[0]), 1):
        with contextlib.suppress(Exception), torch.no_grad():
            count_call(MacCounter(), module, take_batch(inputs, examples))
            return take_batch(inputs, examples)
    return inputs


def _find_parts(module: nn.Module) -> list[Part]:
    parts: list[Part] = []
    seen: set[nn.Module] = set()

    def visit(name: str, module: nn.Module) -> None:
        if module in seen:
            return
        seen.add(module)
        children = list(module.named_children())
        whole = isinstance(module, torch.jit.ScriptModule) or parametrize.is_parametrized(module)
        if not children or whole or hasattr(module, "decode_weight"):
            parts.append(Part(name, module))
            return
        own = [*module.parameters(recurse=False), *module.buffers(recurse=False)]
        if own:
            parts.append(Part(f"{name}." if name else "", module, own=True))
        for child_name, child in children:
            visit(f"{name}.{child_name}" if name else child_name, child)

    visit("", module)
    return parts


def _kind(part: Part) -> str:
    name = type(part.module).__name__
    if part.own:
        return f"{name} (own)"
    inner: Any = getattr(part.module, "layer", None)
    code: Any = getattr(part.module, "code", None)
    if isinstance(inner, nn.Module) and isinstance(code, nn.Module):
        return f"{type(inner).__name__} ({type(code).__name__})"
    return name.removeprefix("Parametrized")


@dataclass
class Calls:
    """What was seen of each part in one call of the whole: its output's shape, its operators."""

    shapes: dict[str, tuple[int, ...]] = field(default_factory=dict)
    counter: MacCounter = field(default_factory=MacCounter)
    unwatched: set[str] = field(default_factory=set)

    def macs(self, name: str, examples: int) -> int | None:
        """Return the multiply-accumulates of a part for one example; None where unknown."""
        if name in self.counter.unknown_in or name in self.unwatched:
            return None
        return round(self.counter.shares.get(name, 0.0) / examples)


def _watch_calls(
    parts: dict[str, nn.Module], inputs: tuple[Tensor, ...], module: nn.Module
) -> Calls:
    """Call the module once and note for each part, however it is called, what it does."""
    calls = Calls()

    def enter(name: str) -> Any:
        def hook(*_: Any) -> None:
            calls.counter.owners.append(name)

        return hook

    def leave(name: str) -> Any:
        def hook(_: nn.Module, __: Any, outputs: Any) -> None:
            calls.counter.owners.pop()
            with contextlib.suppress(ValueError):  # a part may return nothing
                calls.shapes[name] = tuple(first_tensor(outputs).shape[1:])

        return hook

    with contextlib.ExitStack() as stack:
        for name, part in parts.items():
            if isinstance(part, torch.jit.ScriptModule):  # takes no hooks
                calls.unwatched |= {name} - {""}
                continue
            stack.callback(part.register_forward_pre_hook(enter(name)).remove)
            stack.callback(part.register_forward_hook(leave(name)).remove)
        stack.enter_context(torch.no_grad())
        try:
            count_call(calls.counter, module, inputs)
        except Exception:  # a call that fails where its operators are seen, or of itself
            calls.counter.owners.clear()
            calls.unwatched |= {*parts, ""}
            forget_traces()
            module(*inputs)
    return calls
