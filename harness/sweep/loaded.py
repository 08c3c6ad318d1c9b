"""What a worker has loaded: a prepared variant, or the control workload, on a device."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from harness.measure.control import build_control
from harness.measure.devices import Device, open_device
from harness.measure.runtimes import Program, bind_inputs, build_program, take_batch
from harness.sweep import prepare


@dataclass(frozen=True)
class Loaded:
    """A call on a device, with what it consists of."""

    call: Callable[[], Any]
    device: Device
    program: Program
    module: nn.Module
    inputs: tuple[Tensor, ...]

    def device_times(self) -> dict[str, float]:
        """Return the metrics that only a device with a clock and a memory of its own has."""
        with torch.inference_mode():
            outputs = self.call()
            # Unfinished calls: one that waits for the card would have the wait between its events.
            device_s = self.device.device_time_s(partial(self.program, *self.inputs))
        times = self.device.transfer_times_s(self.inputs, outputs)
        return times if device_s is None else times | {"device_latency_s": device_s}


def open_variant(variant: str, device: str, runtime: str, batch: int) -> Loaded:
    """Load a prepared variant on a device, with inputs of the batch's size resident there."""
    opened = open_device(device)
    subject = prepare.load_subject(variant)
    module = opened.place(subject.module)
    program = build_program(module, runtime)
    inputs = tuple(opened.place(value) for value in take_batch(subject.inputs, batch))
    return Loaded(bind_inputs(program, inputs, opened), opened, program, module, inputs)


def open_control(device: str) -> Loaded:
    """Load the control workload on a device."""
    opened = open_device(device)
    control, rows = build_control(opened)
    return Loaded(bind_inputs(control, (rows,), opened), opened, control, control, (rows,))
