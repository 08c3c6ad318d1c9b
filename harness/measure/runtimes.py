"""Runtimes: how a module is executed. So far only PyTorch's eager mode."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from harness.errors import WorkerRefusal
from harness.measure.devices import Device

Program = Callable[..., Any]


def build_program(module: nn.Module, runtime: str) -> Program:
    """Return what runs the module in the named runtime, to be called with inputs."""
    if runtime != "eager":
        raise WorkerRefusal(f"no runtime {runtime!r}")
    return module.eval()


def bind_inputs(program: Program, inputs: tuple[Tensor, ...], device: Device) -> Callable[[], Any]:
    """Return the timed call: inputs resident on the device, outputs ready when it returns."""
    return device.finish(partial(program, *inputs))


def take_batch(inputs: tuple[Tensor, ...], batch: int) -> tuple[Tensor, ...]:
    """Return example inputs of exactly `batch` rows, the given rows repeated in order."""
    rows = torch.arange(batch) % len(inputs[0])
    return tuple(value[rows].contiguous() for value in inputs)


def first_tensor(outputs: Any) -> Tensor:
    """Return the first tensor in whatever a model returned; raise ValueError if there is none."""
    if isinstance(outputs, Tensor):
        return outputs
    items = outputs.values() if isinstance(outputs, dict) else outputs
    if isinstance(outputs, dict | tuple | list):
        for item in items:
            try:
                return first_tensor(item)
            except ValueError:
                continue
    raise ValueError(f"the model returned {type(outputs).__name__}, which holds no tensor")
