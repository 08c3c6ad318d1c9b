"""What a worker has loaded: a prepared variant, or the control workload, on a device."""

from __future__ import annotations

import copy
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from bench.subject import Subject, evaluating
from harness.measure.behaviour import Behaviour
from harness.measure.control import build_control
from harness.measure.devices import Device, open_device
from harness.measure.runtimes import (
    TRAINING,
    Program,
    TrainingStep,
    bind_inputs,
    build_program,
    make_labels,
    take_batch,
)
from harness.prepare import kept
from harness.prepare.restore import load_subject

PLAIN = Behaviour()


@dataclass(frozen=True)
class Loaded:
    """A call on a device, with what it consists of."""

    call: Callable[[], Any]
    device: Device
    program: Program
    module: nn.Module
    inputs: tuple[Tensor, ...]
    subject: Subject | None = None
    """What it was loaded from, without data; the control workload is from none."""
    behaviour: Behaviour = PLAIN
    refresh: Callable[[], None] | None = None
    """What makes the inputs new again, where calls write into them."""

    @property
    def mode(self) -> Callable[[], AbstractContextManager[Any]]:
        """The context in which the call is made: with gradients only where it trains."""
        return torch.enable_grad if isinstance(self.program, TrainingStep) else self.behaviour.mode

    def renew(self) -> None:
        """Make the inputs new again."""
        if self.refresh is not None:
            self.refresh()

    def call_afresh(self) -> Any:
        """Return the outputs of a call with new inputs."""
        self.renew()
        return self.call()

    def answering_program(self) -> Program:
        """Return what answers the test split: the program, or a copy of what is trained."""
        if not isinstance(self.program, TrainingStep):
            return self.program
        return evaluating(copy.deepcopy(self.module))

    def device_times(self) -> dict[str, float]:
        """Return the metrics that only a device with a clock and a memory of its own has."""
        with self.mode():
            outputs = self.call_afresh()
            if self.refresh is not None:  # between its events would be the refreshing too
                return self.device.transfer_times_s(self.inputs, outputs)
            # Unfinished calls: one that waits for the card would have the wait between its events.
            device_s = self.device.device_time_s(partial(self.program, *self.inputs))
        times = self.device.transfer_times_s(self.inputs, outputs)
        return times if device_s is None else times | {"device_latency_s": device_s}


def open_variant(
    variant: str, device: str, runtime: str, batch: int, mapped: bool = True
) -> Loaded:
    """Load a prepared variant on a device, with inputs of the batch's size resident there.

    Not `mapped`, its weights are this process's own, however large.
    """
    opened = open_device(device)
    subject, facts = load_subject(variant, mapped=mapped), kept.read_facts(variant)
    module = opened.place(subject.module)
    recipe = subject.recipe
    if runtime == TRAINING and recipe is not None:
        batch = facts["train_examples"] if recipe.optimizer == "gd" else batch
        labels = opened.place(make_labels(facts["classes"], batch, facts["label_shape"]))
        program: Program = TrainingStep(module, recipe, labels)
    else:
        program = build_program(module, runtime)
    inputs = tuple(opened.place(value) for value in take_batch(subject.inputs, batch))
    behaviour = kept.read_behaviour(variant)

    layouts = [(value.shape, value.stride(), value.storage_offset()) for value in inputs]

    def refresh() -> None:
        made = take_batch(subject.inputs, batch)
        for value, fresh, layout in zip(inputs, made, layouts, strict=True):
            value.as_strided_(*layout).copy_(fresh)
        opened.synchronize()

    return Loaded(
        bind_inputs(program, inputs, opened), opened, program, module, inputs, subject, behaviour,
        refresh if behaviour.writes_inputs else None,
    )  # fmt: skip


def open_control(device: str) -> Loaded:
    """Load the control workload on a device."""
    opened = open_device(device)
    control, rows = build_control(opened)
    return Loaded(bind_inputs(control, (rows,), opened), opened, control, control, (rows,))
