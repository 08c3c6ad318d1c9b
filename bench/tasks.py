"""Tasks: what a model's outputs mean, how wrong they are, and which answers they give."""

from __future__ import annotations

from torch import Tensor, nn

PROBABILITY = 0.5
"""From here on a single output in 0 … 1 means the second class."""


def task_loss(outputs: Tensor, labels: Tensor) -> Tensor:
    """Return the loss of a batch: it follows from what labels and outputs are.

    Labels that are numbers: mean squared error. A single output in 0 … 1: binary cross-entropy.
    Scores of classes: cross-entropy.
    """
    if labels.is_floating_point():
        return nn.functional.mse_loss(outputs.reshape(labels.shape), labels)
    if has_one_output(outputs):
        return nn.functional.binary_cross_entropy(outputs.flatten(), labels.to(outputs.dtype))
    return nn.functional.cross_entropy(outputs, labels)


def predict(outputs: Tensor, labels: Tensor) -> Tensor:
    """Return the answers that outputs give to a split: classes, or the numbers themselves."""
    if labels.is_floating_point():
        return outputs.reshape(labels.shape)
    return (
        (outputs.flatten() >= PROBABILITY).long() if has_one_output(outputs) else outputs.argmax(1)
    )


def has_one_output(outputs: Tensor) -> bool:
    """Tell whether a model gives a single number for an example."""
    return outputs.dim() == 1 or outputs.shape[1] == 1
