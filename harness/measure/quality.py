"""Quality on the runtime and device that is timed: answers on the test split, raw outputs."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from typing import Any

import numpy as np
import torch

from bench.subject import Subject
from bench.tasks import first_tensor, predict
from harness.measure.devices import Device
from harness.measure.runtimes import Program, like_strides, take_batch, take_rows
from harness.scores import relative_fidelity

Mode = Callable[[], AbstractContextManager[Any]]
KEPT_OUTPUTS = 2_000_000
PROBED = 256
SAME_ANSWERS = 0.99
"""Fidelity above which two batches differ by rounding only (bfloat16: 0.996); dynamic scales
that depend on the batch differ by more."""


def collect_answers(
    subject: Subject,
    program: Program,
    device: Device,
    batch: int,
    known: np.ndarray | None = None,
    mode: Mode = torch.inference_mode,
) -> dict[str, np.ndarray] | None:
    """Return `outputs`, their `shape` and, where there is data, `predicted` and `labels`.

    Of the test split. Labels are whole numbers of classes, or numbers (float32), and so are the
    predictions; both have the labels' shape. Raises SpecError where the outputs do not answer the
    labels.

    Runs in the batch that is timed: some techniques (dynamic quantization) answer differently in
    another. `known` are the outputs in another batch: where the first PROBED examples come out the
    same, None is returned and the known answers hold here too. The last batch is filled up. Without
    data the outputs are those of the example inputs. At most KEPT_OUTPUTS numbers are returned.
    """
    examples = subject.data.test if subject.data else None
    inputs = (examples.inputs,) if examples else subject.inputs
    if known is not None:
        probe = tuple(value[:PROBED] for value in inputs)
        seen = _flatten(_run_in_batches(program, probe, subject.inputs, device, batch, mode))
        if relative_fidelity(seen, known[: seen.size]) >= SAME_ANSWERS:
            return None
    outputs = _run_in_batches(program, inputs, subject.inputs, device, batch, mode)
    found = {"outputs": _flatten(outputs)[:KEPT_OUTPUTS], "shape": np.array(outputs.shape)}
    if examples is not None:
        kind = np.float32 if examples.labels.is_floating_point() else np.int32
        found["labels"] = examples.labels.numpy().astype(kind)
        found["predicted"] = predict(outputs, examples.labels).numpy().astype(kind)
    elif outputs.is_floating_point() and (axis := find_class_axis(outputs.shape)) is not None:
        predicted = outputs.argmax(dim=axis).reshape(-1)[:KEPT_OUTPUTS]
        found["predicted"] = predicted.numpy().astype(np.int32)
    return found


def find_class_axis(shape: Sequence[int]) -> int | None:
    """Return the axis along which outputs are scores of classes, where no labels say it.

    Of sequences the last one (examples, places, classes); of pictures and volumes the one behind
    the examples. None where there are no classes to choose from.
    """
    if len(shape) < 2:
        return None
    axis = 2 if len(shape) == 3 else 1
    return axis if shape[axis] > 1 else None


def _run_in_batches(
    program: Program, inputs: Any, like: Any, device: Device, batch: int, mode: Mode
) -> torch.Tensor:
    """The outputs for all inputs, which are laid out in memory like the example inputs.

    All numbers in a row where the shapes of two batches differ beside the number of examples: boxes
    that were found, as many as there are.
    """
    count = len(inputs[0])
    parts = []
    with mode():
        for start in range(0, count, batch):
            chosen = torch.arange(start, min(count, start + batch), device="cpu")
            rows = tuple(take_rows(value, chosen) for value in inputs)
            filled = tuple(
                device.place(like_strides(value, model))
                for value, model in zip(take_batch(rows, batch), like, strict=True)
            )
            outputs = _as_numbers(first_tensor(program(*filled)).detach().cpu())
            if outputs.dim() == 0 or len(outputs) != batch:
                parts.append(outputs.reshape(1, -1))  # one result for the whole batch
            else:
                parts.append(outputs[: len(rows[0])])
    uneven = len({part.shape[1:] for part in parts}) > 1
    return torch.cat([part.flatten() for part in parts] if uneven else parts)


def _as_numbers(outputs: torch.Tensor) -> torch.Tensor:
    """Outputs as float32, or as they are where they are whole numbers: classes, not scores."""
    plain = outputs.dequantize() if outputs.is_quantized else outputs
    plain = plain.to_dense() if plain.layout is not torch.strided else plain
    plain = torch.view_as_real(plain) if plain.is_complex() else plain
    return plain.to(torch.float32) if plain.is_floating_point() else plain


def _flatten(outputs: torch.Tensor) -> np.ndarray:
    return outputs.reshape(-1).to(torch.float32).numpy()
