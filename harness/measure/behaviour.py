"""Behaviour: what a model does when it is called, found by trying it out once."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

from bench.subject import evaluating
from harness.measure.runtimes import like_strides, take_batch

TRIED_EXAMPLES = 2


@dataclass(frozen=True)
class Behaviour:
    """How a module is to be called.

    takes_gradients: inside its forward, which inference mode forbids and no_grad does not.
    writes_inputs: it needs fresh ones for every call.
    """

    takes_gradients: bool = False
    writes_inputs: bool = False

    @property
    def mode(self) -> Callable[[], AbstractContextManager[Any]]:
        """The context in which it answers."""
        return torch.no_grad if self.takes_gradients else torch.inference_mode

    def explain(self) -> list[str]:
        """Return what a person should know of the calls that are timed."""
        told = []
        if self.takes_gradients:
            told.append("takes gradients inside: called under no_grad, not in inference mode")
        if self.writes_inputs:
            told.append("writes into its inputs: fresh ones for every call, outside the clock")
        return told


def try_out(module: nn.Module, inputs: tuple[Tensor, ...]) -> Behaviour:
    """Return how a module behaves in a call; plain where it fails, which is told elsewhere.

    A call of two examples, or of all example inputs, or of one, as it takes them.
    """
    there = len(inputs[0]) if inputs else 0
    for examples in dict.fromkeys((TRIED_EXAMPLES, there, 1)) if there else ():
        given = take_batch(inputs, examples)
        if any(value.layout is not torch.strided for value in given):
            break
        for behaviour in (Behaviour(), Behaviour(takes_gradients=True)):
            with contextlib.suppress(Exception):
                return replace(behaviour, writes_inputs=_writes(module, given, behaviour))
    return Behaviour()


def _writes(module: nn.Module, given: tuple[Tensor, ...], behaviour: Behaviour) -> bool:
    """Tell whether a call changes its inputs."""
    with behaviour.mode():  # in which inputs are made when it is timed, too
        fresh = tuple(like_strides(value.clone(), value) for value in given)
        evaluating(module)(*fresh)
    return not all(is_same(one, other) for one, other in zip(fresh, given, strict=True))


def is_same(one: Tensor, other: Tensor) -> bool:
    """Tell whether two tensors hold the same, NaN being the same as NaN."""
    if one.shape != other.shape or one.stride() != other.stride():
        return False
    if one.is_quantized:
        one, other = one.int_repr(), other.int_repr()
    return bool(((one == other) | (one.isnan() & other.isnan())).all())
