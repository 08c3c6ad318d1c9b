"""Runtimes: how a module is executed: PyTorch's eager mode, for inference or a training step."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import ExitStack
from functools import partial
from math import ceil, prod
from typing import Any

import torch
from torch import Tensor, nn

from bench.subject import Recipe, evaluating
from bench.tasks import first_tensor, task_loss
from bench.training import build_optimizer, dropping, penalize, set_training
from harness.errors import WorkerRefusal
from harness.measure.devices import Device

Program = Callable[..., Any]
TRAINING = "training"


def build_program(module: nn.Module, runtime: str) -> Program:
    """Return what runs the module in the named runtime, to be called with inputs."""
    if runtime != "eager":
        raise WorkerRefusal(f"no runtime {runtime!r}")
    return evaluating(module)


class TrainingStep:
    """One update of a module by its recipe: forward, loss, backward, optimizer.

    At a learning rate of 0 the update is computed and the weights stay: every step does the same
    work, however often it is timed. Dropout is in force as long as the step exists.
    """

    def __init__(self, module: nn.Module, recipe: Recipe, labels: Tensor) -> None:
        self.module, self.recipe, self.labels = module, recipe, labels
        self.optimizer = build_optimizer(module, recipe)
        for group in self.optimizer.param_groups:
            group["lr"] = 0.0
        self._hooks = ExitStack()
        self._hooks.enter_context(dropping(module, recipe.dropout))
        set_training(module)

    def __call__(self, *inputs: Tensor) -> Tensor:
        """Return the loss of the inputs, after an update."""
        self.optimizer.zero_grad(set_to_none=True)
        loss = task_loss(first_tensor(self.module(*inputs)), self.labels)
        cost = loss + penalize(self.module, self.recipe)
        cost.backward()
        self.optimizer.step()
        return cost.detach()


def ready(program: Program) -> Program:
    """Return a program as it is run to be counted: a module in evaluation mode."""
    return evaluating(program) if isinstance(program, nn.Module) else program


def make_labels(classes: int, batch: int, shape: Sequence[int] = ()) -> Tensor:
    """Return labels for a batch, the classes in turn, or zeros where labels are numbers.

    shape: of one example's label; () for a single one.
    """
    if not classes:
        return torch.zeros(batch, *shape, device="cpu")
    return (torch.arange(batch * prod(shape), device="cpu") % classes).reshape(batch, *shape)


def bind_inputs(program: Program, inputs: tuple[Tensor, ...], device: Device) -> Callable[[], Any]:
    """Return the timed call: inputs resident on the device, outputs ready when it returns."""
    return device.finish(partial(program, *inputs))


MOST_WITH_GAPS = 2**30
"""More memory than this no inputs take for the sake of their gaps."""
PAGE_BYTES = 4096
"""What lies further apart is on another page in any case."""


def take_batch(inputs: tuple[Tensor, ...], batch: int) -> tuple[Tensor, ...]:
    """Return example inputs of exactly `batch` rows, the given rows repeated in order.

    Each keeps how its memory is laid out: a transposed, channels-last or sliced input stays one,
    whatever the batch.
    """
    rows = torch.arange(batch, device="cpu") % len(inputs[0])
    return tuple(like_strides(take_rows(value.detach(), rows), value) for value in inputs)


def take_rows(value: Tensor, rows: Tensor) -> Tensor:
    """Return rows of an input; raise WorkerRefusal where its layout has none to be taken."""
    if value.layout is torch.strided and not value.is_nested:
        return value[rows]
    try:
        return value.index_select(0, rows)
    except RuntimeError:
        kind = "nested" if value.is_nested else str(value.layout).removeprefix("torch.")
        raise WorkerRefusal(
            f"An example input is {kind}, of which no batch can be made. Give a dense one, and "
            "convert it in the model's forward."
        ) from None


def like_strides(value: Tensor, model: Tensor) -> Tensor:
    """Return a tensor that lies in memory as the model does: in its order, with its gaps.

    Gaps (a slice of something larger) are as large a part as the model's, and hold zeros; of one
    that is larger than two pages, less than two are kept, by which it ends at the same place of a
    page. Where gaps would take more than MOST_WITH_GAPS bytes, there are none. Where the model
    repeats one value along a dimension (expanded, stride 0), a value that does so too is stored
    once. Only strided tensors have such an order; others are returned as they are.
    """
    if model.layout is not torch.strided or value.dim() != model.dim():
        return value
    laid, steps = value, model.stride()
    for axis in range(model.dim()):
        first = laid.narrow(axis, 0, min(1, laid.shape[axis]))
        if steps[axis] == 0 and model.shape[axis] > 1 and _are_equal(first, laid):
            laid = first

    def outermost_first(axis: int) -> tuple[bool, int]:
        # A batch of one has any stride: it says nothing of where a larger batch would lie.
        return (axis > 0 or model.shape[0] > 1, -steps[axis])

    order = sorted(range(model.dim()), key=outermost_first)
    wanted = _find_strides(laid.shape, model, order, PAGE_BYTES // laid.element_size())
    needed = 1 + sum((size - 1) * step for size, step in zip(laid.shape, wanted, strict=True))
    if laid.numel() < needed <= MOST_WITH_GAPS / laid.element_size() and not laid.is_quantized:
        made = torch.zeros(needed, dtype=laid.dtype, device=laid.device)
        return made.as_strided(laid.shape, wanted).copy_(laid).expand(value.shape)
    back = sorted(range(model.dim()), key=order.__getitem__)
    return laid.permute(order).contiguous().permute(back).expand(value.shape)


def _are_equal(first: Tensor, others: Tensor) -> bool:
    """Tell whether all values along a dimension are the first one, NaN among them."""
    if torch.equal(first.expand_as(others), others):
        return True
    if not (others.is_floating_point() or others.is_complex()):
        return False
    return bool(((first == others) | (first.isnan() & others.isnan())).all())


def _find_strides(
    shape: Sequence[int], model: Tensor, order: Sequence[int], page: int
) -> list[int]:
    """Return strides of a shape in the order of a model, with gaps as large a part as its are.

    order: the dimensions, outermost first. page: in elements. Windows that overlap are laid out
    beside each other.
    """
    strides = [1] * len(shape)
    theirs = ours = after = 1  # the reach of the dimensions further in; where the next may begin
    for axis in reversed(order):
        size, step = model.shape[axis], model.stride(axis)
        if size > 1 and step > 0:
            same = ours == theirs and step >= theirs
            strides[axis] = step if same else ceil(ours * max(1.0, step / theirs))
            strides[axis] -= max(0, (strides[axis] - ours) // page - 1) * page
            theirs += (size - 1) * max(step, theirs)
        else:  # of one value nothing is told
            strides[axis] = after
        ours += max(0, shape[axis] - 1) * strides[axis]
        after = max(ours, strides[axis] * shape[axis])
    return strides
