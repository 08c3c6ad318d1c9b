"""Subject: a model, its example inputs and its data; what every technique transforms."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, TypeVar

from bench.errors import SpecError

if TYPE_CHECKING:
    from torch import Tensor, nn

    from bench.data.splits import Dataset


Module = TypeVar("Module", bound="nn.Module")
Optimizer = Literal["gd", "sgd", "momentum", "rmsprop", "adam", "adamw"]


@dataclass(frozen=True)
class Recipe:
    """How a model is trained: by an optimizer with a one-cycle learning rate.

    learning_rate: its peak. weight_decay: of adamw. gd takes all examples for each update. l1 and
    l2: added to the loss, times Σ|w| and Σw². dropout: share of activations set to zero.
    """

    epochs: int
    batch_size: int = 100
    learning_rate: float = 1e-2
    weight_decay: float = 1e-2
    optimizer: Optimizer = "adamw"
    l1: float = 0.0
    l2: float = 0.0
    dropout: float = 0.0


@dataclass(frozen=True)
class Subject:
    """A module with example inputs (first dimension: batch), and what it is judged by.

    data: labelled splits, or None: then there is no accuracy. recipe: how to train the module;
    None means that it is used as it is. notes: what a person should know of this variant. origin:
    the registered model as it is written, until a recipe changes its module.
    """

    module: nn.Module
    inputs: tuple[Tensor, ...]
    data: Dataset | None = None
    recipe: Recipe | None = None
    notes: tuple[str, ...] = ()
    origin: str = ""

    def task(self, model: str) -> str:
        """Return what the model is judged by: its data's name, its own where there is none."""
        return self.data.name if self.data else model

    def lacks(self) -> str:
        """Return what it has not and cannot be trained without; empty where it has all."""
        if self.data is None:
            return "training data"
        return "" if self.recipe else "recipe to train by"

    def with_note(self, note: str) -> Subject:
        """Return the subject with one more note."""
        return dataclasses.replace(self, notes=(*self.notes, note))


def evaluating(module: Module) -> Module:
    """Return the module itself, set to evaluation mode.

    Not `module.eval()`: that returns what `train` returns, and an override may return nothing. A
    program of `torch.export` has no modes; its neighbours have.
    """
    try:
        module.eval()
    except NotImplementedError:
        for part in module.children():
            evaluating(part)
    return module


def as_subject(made: Any, name: str) -> Subject:
    """Return what a model function returned as a Subject.

    Accepts a Subject, or (module, example inputs) where the inputs are a tensor or a tuple of
    tensors. Raises SpecError for anything else.
    """
    import torch

    wanted = "It must return a torch.nn.Module and example inputs, or a bench.Subject."
    pair = (made.module, made.inputs) if isinstance(made, Subject) else made
    if not isinstance(pair, tuple | list) or len(pair) != 2:
        raise SpecError(f"Model {name!r} returned {type(made).__name__}. {wanted}")
    module, inputs = pair
    if not isinstance(module, torch.nn.Module):
        raise SpecError(f"Model {name!r} returned {type(module).__name__} as its module. {wanted}")
    inputs = (inputs,) if isinstance(inputs, torch.Tensor) else inputs
    if isinstance(inputs, Mapping):
        wanted = (
            "It must return them as a tuple in the order of forward; where forward wants them by "
            f"name, wrap the module: forward(self, {', '.join(map(str, inputs))})."
        )
    if not isinstance(inputs, tuple | list) or not inputs:
        raise SpecError(f"Model {name!r} returned {type(inputs).__name__} as its inputs. {wanted}")
    _check_inputs(inputs, name)
    if isinstance(made, Subject) and made.data is not None and len(inputs) > 1:
        raise SpecError(
            f"Model {name!r} has {len(inputs)} example inputs, and a data set feeds one. Wrap the "
            "module in one that takes them as one tensor and divides it, or leave the data out."
        )
    if not isinstance(made, Subject):
        return Subject(module, tuple(inputs))
    known = isinstance(made.inputs, tuple)
    return made if known else dataclasses.replace(made, inputs=tuple(inputs))


def _check_inputs(inputs: Sequence[Any], name: str) -> None:
    """Raise SpecError for example inputs that are no tensors with the same batch."""
    import torch

    for number, value in enumerate(inputs, 1):
        if not isinstance(value, torch.Tensor):
            raise SpecError(
                f"Model {name!r}: every example input must be a tensor, and input {number} is "
                f"{type(value).__name__}. Wrap the module in one that passes it on by itself."
            )
    if any(value.dim() == 0 or value.shape[0] != inputs[0].shape[0] for value in inputs):
        shapes = [tuple(value.shape) for value in inputs]
        raise SpecError(
            f"Model {name!r}: example inputs have the shapes {shapes}; "
            "the first dimension of each must be the same batch."
        )
    if not len(inputs[0]):
        raise SpecError(
            f"Model {name!r}: its example inputs have no row. Give one example or more."
        )
