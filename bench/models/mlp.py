"""Fully connected networks."""

from __future__ import annotations

import math
from itertools import pairwise
from typing import Annotated

from torch import nn

from bench.data import Dataset, load_dataset
from bench.errors import Refusal
from bench.registry import model
from bench.spec import Range
from bench.subject import Recipe, Subject

Size = Annotated[int, Range(1)]


@model("digits-mlp")
def digits_mlp(data: str | Dataset = "digits", width: Size = 128, depth: Size = 2) -> Subject:
    """MLP with `depth` hidden layers; takes examples of any shape."""
    return _mlp(load_dataset(data), width, depth)


@model("mnist1d-mlp")
def mnist1d_mlp(data: str | Dataset = "mnist1d", width: Size = 100, depth: Size = 2) -> Subject:
    """The MLP that the authors of MNIST-1D compare with; takes examples of any shape."""
    return _mlp(load_dataset(data), width, depth)


@model("mlp-100")
def mlp_100(data: str | Dataset = "digits", width: Size = 100) -> Subject:
    """The MLP features–100–10 of the literature (784–100–10 on images of 28×28 pixels).

    Its student is `linear-classifier`. Source: Hinton et al., arXiv:1503.02531 (MNIST).
    """
    return _mlp(load_dataset(data), width, depth=1)


@model("linear-classifier")
def linear_classifier(data: str | Dataset = "digits") -> Subject:
    """One linear layer from features to classes (784–10 on images of 28×28 pixels)."""
    return _mlp(load_dataset(data), width=1, depth=0)


@model("digits-dense-16")
def digits_dense_16(data: str | Dataset = "digits-standardised", width: Size = 16) -> Subject:
    """Dense 16–10 on standardised digits: 1,210 parameters."""
    return _mlp(load_dataset(data), width, depth=1)


@model("dense-64-32-1")
def dense_64_32_1(data: str | Dataset = "tumours") -> Subject:
    """Dense 64–32–1 with a sigmoid output, for two classes."""
    examples = load_dataset(data)
    if examples.classes != 2:
        raise Refusal(f"dense-64-32-1 needs two classes; {examples.name} has {examples.classes}.")
    module = nn.Sequential(
        nn.Flatten(),
        nn.Linear(math.prod(examples.shape), 64),
        nn.ReLU(),
        nn.Linear(64, 32),
        nn.ReLU(),
        nn.Linear(32, 1),
        nn.Sigmoid(),
    )
    recipe = Recipe(epochs=30, batch_size=32, learning_rate=5e-3)
    return Subject(module, (examples.train.inputs[:64],), examples, recipe)


@model("linear-regression")
def linear_regression(data: str | Dataset = "diabetes") -> Subject:
    """One linear layer to a number, by gradient descent over all examples."""
    examples = load_dataset(data)
    if examples.classes:
        raise Refusal(
            f"linear-regression needs labels that are numbers; {examples.name} has "
            f"{examples.classes} classes."
        )
    module = nn.Sequential(nn.Flatten(), nn.Linear(math.prod(examples.shape), 1))
    recipe = Recipe(epochs=300, learning_rate=0.1, optimizer="gd")
    return Subject(module, (examples.train.inputs[:64],), examples, recipe)


def _mlp(examples: Dataset, width: int, depth: int) -> Subject:
    sizes = [math.prod(examples.shape), *(width for _ in range(depth))]
    layers: list[nn.Module] = [nn.Flatten()]
    for inputs, outputs in pairwise(sizes):
        layers += [nn.Linear(inputs, outputs), nn.ReLU()]
    module = nn.Sequential(*layers, nn.Linear(sizes[-1], examples.classes))
    return Subject(module, (examples.train.inputs[:64],), examples, Recipe(epochs=40))
