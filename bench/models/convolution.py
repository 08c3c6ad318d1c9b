"""Convolutional networks for images and for signals."""

from __future__ import annotations

from typing import Annotated

from torch import nn

from bench.data import Dataset, load_dataset
from bench.errors import Refusal
from bench.registry import model
from bench.spec import Range
from bench.subject import Recipe, Subject

Size = Annotated[int, Range(1)]


@model("digits-cnn")
def digits_cnn(data: str | Dataset = "digits", width: Size = 16) -> Subject:
    """2-D CNN of three convolutions with batch norm; takes images of 8×8 pixels and more."""
    examples = _load_images("digits-cnn", data)
    module = nn.Sequential(
        *_layer_2d(examples.shape[0], width),
        *_layer_2d(width, 2 * width, stride=2),
        *_layer_2d(2 * width, 2 * width, stride=2),
        nn.AdaptiveAvgPool2d(2),
        nn.Flatten(),
        nn.Linear(2 * width * 4, 64),
        nn.ReLU(),
        nn.Linear(64, examples.classes),
    )
    return Subject(module, (examples.train.inputs[:64],), examples, Recipe(epochs=20))


@model("cnn-64-128")
def cnn_64_128(data: str | Dataset = "digits", hidden: Size = 1024) -> Subject:
    """The network of the literature: convolutions of 64 and 128, pooled, and a layer of 1,024.

    Takes images of 8×8 pixels and more.
    """
    examples = _load_images("cnn-64-128", data)
    channels, height, width = examples.shape
    module = nn.Sequential(
        nn.Conv2d(channels, 64, 3, padding=1),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Conv2d(64, 128, 3, padding=1),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Flatten(),
        nn.Linear(128 * (height // 4) * (width // 4), hidden),
        nn.ReLU(),
        nn.Linear(hidden, examples.classes),
    )
    recipe = Recipe(epochs=10, learning_rate=2e-3)
    return Subject(module, (examples.train.inputs[:64],), examples, recipe)


@model("mnist1d-cnn")
def mnist1d_cnn(data: str | Dataset = "mnist1d", width: Size = 16) -> Subject:
    """Small 1-D CNN of three convolutions with batch norm; takes (channels, samples ≥ 20)."""
    return _signal_cnn("mnist1d-cnn", load_dataset(data), width, Recipe(epochs=15))


@model("mnist1d-cnn-wide")
def mnist1d_cnn_wide(data: str | Dataset = "mnist1d", width: Size = 64) -> Subject:
    """The 1-D CNN at four times the width."""
    recipe = Recipe(epochs=12, learning_rate=5e-3)
    return _signal_cnn("mnist1d-cnn-wide", load_dataset(data), width, recipe)


def _load_images(name: str, data: str | Dataset) -> Dataset:
    examples = load_dataset(data)
    if len(examples.shape) != 3 or min(examples.shape[1:]) < 8:
        raise Refusal(
            f"{name} needs images (channels, height, width) of 8×8 and more; "
            f"{examples.name} has the shape {examples.shape}."
        )
    return examples


def _signal_cnn(name: str, examples: Dataset, width: int, recipe: Recipe) -> Subject:
    if len(examples.shape) != 2 or examples.shape[1] < 20:
        raise Refusal(
            f"{name} needs signals (channels, samples) of 20 samples and more; "
            f"{examples.name} has the shape {examples.shape}."
        )
    module = nn.Sequential(
        *_layer_1d(examples.shape[0], width, kernel=5, stride=2),
        *_layer_1d(width, 2 * width, kernel=3, stride=1),
        *_layer_1d(2 * width, 2 * width, kernel=3, stride=2),
        nn.AdaptiveAvgPool1d(5),
        nn.Flatten(),
        nn.Linear(2 * width * 5, 128),
        nn.ReLU(),
        nn.Linear(128, examples.classes),
    )
    return Subject(module, (examples.train.inputs[:64],), examples, recipe)


def _layer_1d(inputs: int, outputs: int, kernel: int, stride: int) -> tuple[nn.Module, ...]:
    convolution = nn.Conv1d(inputs, outputs, kernel, stride, kernel // 2, bias=False)
    return convolution, nn.BatchNorm1d(outputs), nn.ReLU()


def _layer_2d(inputs: int, outputs: int, stride: int = 1) -> tuple[nn.Module, ...]:
    convolution = nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False)
    return convolution, nn.BatchNorm2d(outputs), nn.ReLU()
