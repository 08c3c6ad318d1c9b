"""Fully connected networks."""

from __future__ import annotations

import math
from typing import Annotated

from torch import nn

from bench.data import Dataset, load_dataset
from bench.registry import model
from bench.spec import Range
from bench.subject import Recipe, Subject

Size = Annotated[int, Range(1)]


@model("digits-mlp")
def digits_mlp(data: str | Dataset = "digits", width: Size = 128) -> Subject:
    """MLP with two hidden layers; takes examples of any shape."""
    return _mlp(load_dataset(data), width)


@model("mnist1d-mlp")
def mnist1d_mlp(data: str | Dataset = "mnist1d", width: Size = 100) -> Subject:
    """The MLP that the authors of MNIST-1D compare with; takes examples of any shape."""
    return _mlp(load_dataset(data), width)


def _mlp(examples: Dataset, width: int) -> Subject:
    features = math.prod(examples.shape)
    module = nn.Sequential(
        nn.Flatten(),
        nn.Linear(features, width),
        nn.ReLU(),
        nn.Linear(width, width),
        nn.ReLU(),
        nn.Linear(width, examples.classes),
    )
    return Subject(module, (examples.train.inputs[:64],), examples, Recipe(epochs=40))
