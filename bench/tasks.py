"""Tasks: what a model's outputs mean, how wrong they are, and which answers they give."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import fields, is_dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from bench.conventions import IGNORED, PROBABILITY
from bench.errors import SpecError

RESHAPING = ("View", "Squeeze", "Unsqueeze", "Select", "Slice", "Reshape", "Alias", "Clone", "Copy")


def as_tensor(values: Any, what: str) -> Tensor:
    """Return a tensor of what a person has: a tensor, an array, a list, a column of a table.

    Arrays and lists have 64 bits a number whether that was meant or not: they become PyTorch's
    default type. Raises SpecError where these are no numbers.
    """
    if isinstance(values, Tensor):
        return values
    values = getattr(values, "to_numpy", lambda: values)()
    try:
        array = np.asarray(values)
    except (TypeError, ValueError, RuntimeError) as error:  # rows of unequal lengths, or worse
        raise SpecError(f"{what} cannot be read as numbers: {error}") from None
    try:
        made = torch.from_numpy(array if array.flags.writeable else array.copy())
        return made.to(torch.get_default_dtype()) if made.dtype == torch.float64 else made
    except (TypeError, ValueError, RuntimeError):
        kind = {"U": "text", "S": "bytes", "O": "Python objects"}.get(array.dtype.kind)
        raise SpecError(
            f"{what} cannot be read as numbers: they are {kind or array.dtype}. Give a tensor, an "
            "array or a list of numbers."
        ) from None


def read_labels(labels: Tensor, classes: int) -> Tensor:
    """Return labels as they are judged: whole numbers of classes (int64), or numbers (float).

    Classes may come as any kind of number, as a column (N, 1), or as rows with a one for the class.
    With classes = 0 labels are numbers. Raises SpecError for labels that are no class.
    """
    if not classes:
        wide = labels.dtype in (torch.float32, torch.float64)
        return labels if wide else labels.to(torch.float32)
    labels = labels if labels.is_floating_point() else labels.to(torch.int64)
    if labels.dim() == 2 and labels.shape[1] == classes and classes > 1:
        found = labels.argmax(1)
        if torch.equal(labels.to(torch.int64), nn.functional.one_hot(found, classes)):
            return found
    if labels.dim() >= 2 and labels.shape[1] == 1:
        labels = labels.squeeze(1)
    whole = labels.to(torch.int64)
    wrong = (whole != labels) | (((whole < 0) | (whole >= classes)) & (whole != IGNORED))
    if wrong.any():
        raise SpecError(
            f"the label {labels[wrong][0].item():g} is none of the {classes} classes, "
            f"0 to {classes - 1}. What is not to be judged has the label {IGNORED}."
        )
    return whole


def task_loss(outputs: Tensor, labels: Tensor) -> Tensor:
    """Return the loss of a batch: it follows from what labels and outputs are.

    Labels that are numbers: mean squared error. One output for each label: binary cross-entropy, of
    a probability where the model ends in a sigmoid, of a logit otherwise. Scores of classes:
    cross-entropy. Raises SpecError where the outputs do not answer the labels.
    """
    if labels.is_floating_point():
        return nn.functional.mse_loss(_like(outputs, labels), labels.to(outputs.dtype))
    if has_one_output(outputs, labels):
        if (labels > 1).any():
            raise _misfit(outputs, labels)
        judged = labels != IGNORED
        single, wanted = outputs.reshape(labels.shape)[judged], labels[judged].to(outputs.dtype)
        if ends_in_probability(outputs):
            return nn.functional.binary_cross_entropy(single, wanted)
        return nn.functional.binary_cross_entropy_with_logits(single, wanted)
    return nn.functional.cross_entropy(_scores(outputs, labels), labels, ignore_index=IGNORED)


def predict(outputs: Tensor, labels: Tensor) -> Tensor:
    """Return the answers that outputs give to a split, in the shape of its labels.

    Outputs are numbers, where the labels are; the classes themselves, as whole numbers; of two
    classes one number for each label (a probability where all are in 0 … 1, a logit otherwise); or
    scores of classes, along the second dimension or the last. Raises SpecError where they are none
    of these.
    """
    if labels.is_floating_point():
        return _like(outputs, labels)
    if not outputs.is_floating_point():
        return _like(outputs, labels).long()
    if has_one_output(outputs, labels):
        if (labels > 1).any():  # no single number says which of many: these are the classes
            if not torch.equal(outputs, outputs.round()):
                raise _misfit(outputs, labels)
            return outputs.reshape(labels.shape).long()
        low, high = torch.aminmax(outputs) if outputs.numel() else (outputs, outputs)
        threshold = PROBABILITY if bool((low >= 0).all() and (high <= 1).all()) else 0.0
        return (outputs.reshape(labels.shape) >= threshold).long()
    return _scores(outputs, labels).argmax(1)


def first_tensor(outputs: Any) -> Tensor:
    """Return the first tensor in whatever a model returned; raise SpecError if there is none.

    A single number (a loss beside the scores) only where there is nothing else.
    """
    found = [*find_tensors(outputs)]
    for tensor in found:
        if tensor.dim():
            return tensor
    if found:
        return found[0]
    raise SpecError(f"the model returned {type(outputs).__name__}, which holds no tensor")


def find_tensors(outputs: Any) -> Iterator[Tensor]:
    """Yield the tensors in tuples, lists, dictionaries and dataclasses, in their order."""
    if isinstance(outputs, Tensor):
        yield outputs
        return
    if isinstance(outputs, Mapping):
        outputs = list(outputs.values())
    elif is_dataclass(outputs):
        outputs = [getattr(outputs, field.name, None) for field in fields(outputs)]
    if isinstance(outputs, tuple | list):
        for one in outputs:
            yield from find_tensors(one)


def has_one_output(outputs: Tensor, labels: Tensor) -> bool:
    """Tell whether a model gives a single number for each label."""
    return outputs.numel() == labels.numel()


def ends_in_probability(outputs: Tensor) -> bool:
    """Tell whether outputs come from a sigmoid; without a gradient, whether all are in 0 … 1."""
    node: Any = outputs.grad_fn
    if node is None:
        return bool(((outputs >= 0) & (outputs <= 1)).all())
    while type(node).__name__.startswith(RESHAPING) and node.next_functions:
        node = node.next_functions[0][0]
    return type(node).__name__.startswith("Sigmoid")


def _scores(outputs: Tensor, labels: Tensor) -> Tensor:
    """Scores with the classes along the second dimension, the rest in the shape of the labels."""
    if outputs.dim() == labels.dim() + 1:
        if outputs.shape[:1] + outputs.shape[2:] == labels.shape:
            return _wide_enough(outputs, labels)
        if outputs.shape[:-1] == labels.shape:
            return _wide_enough(outputs.movedim(-1, 1), labels)
    raise _misfit(outputs, labels)


def _wide_enough(scores: Tensor, labels: Tensor) -> Tensor:
    """The scores, if there is one for each label's class."""
    if labels.numel() and int(labels.max()) >= scores.shape[1]:
        raise SpecError(
            f"Outputs with scores of {scores.shape[1]} classes do not answer the label "
            f"{int(labels.max())}: give a score for each class of the data."
        )
    return scores


def _like(outputs: Tensor, labels: Tensor) -> Tensor:
    if outputs.numel() != labels.numel():
        raise _misfit(outputs, labels)
    return outputs.reshape(labels.shape)


def _misfit(outputs: Tensor, labels: Tensor) -> SpecError:
    return SpecError(
        f"Outputs of the shape {tuple(outputs.shape)} do not answer labels of the shape "
        f"{tuple(labels.shape)}: give a number for each label, or scores of the classes along the "
        "second dimension or the last."
    )
