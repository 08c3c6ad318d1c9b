"""Real data that needs no download: scikit-learn's digits, and the generated MNIST-1D."""

from __future__ import annotations

import os
import tempfile
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch

from bench.cache import cache_folder
from bench.data.splits import Dataset, divide
from bench.registry import dataset

Arrays = tuple[np.ndarray, np.ndarray]


@dataset("digits")
def digits() -> Dataset:
    """1,797 handwritten digits of 8×8 pixels in 10 classes (1,000 train, 200 tune, 597 test).

    Source: UCI "Optical Recognition of Handwritten Digits", as shipped by scikit-learn.
    """
    inputs, labels = _cached("digits-1", _load_digits)
    return divide(
        "digits", torch.from_numpy(inputs), torch.from_numpy(labels), tune=200, test=597, classes=10
    )


@dataset("mnist1d")
def mnist1d() -> Dataset:
    """10,000 generated signals of 40 samples in 10 classes (4,000 train, 1,000 tune, 5,000 test).

    Source: Greydanus and Kobak, "Scaling Down Deep Learning with MNIST-1D", arXiv:2011.14439;
    their generator with its default parameters and seed 42.
    """
    inputs, labels = _cached("mnist1d-10000-1", _generate_mnist1d)
    return divide(
        "mnist1d",
        torch.from_numpy(inputs),
        torch.from_numpy(labels),
        tune=1_000,
        test=5_000,
        classes=10,
    )


def _load_digits() -> Arrays:
    from sklearn.datasets import load_digits

    images, labels = load_digits(return_X_y=True)
    return (images.reshape(-1, 1, 8, 8) / 16).astype(np.float32), labels.astype(np.int64)


def _generate_mnist1d() -> Arrays:
    from mnist1d.data import get_dataset_args, make_dataset

    arguments = get_dataset_args()
    arguments.num_samples = 10_000
    made = make_dataset(arguments)
    signals = np.concatenate([made["x"], made["x_test"]])
    labels = np.concatenate([made["y"], made["y_test"]])
    return signals[:, None].astype(np.float32), labels.astype(np.int64)


def _cached(name: str, make: Callable[[], Arrays]) -> Arrays:
    path = cache_folder() / "data" / f"{name}.npz"
    try:
        with np.load(path) as stored:
            return stored["inputs"], stored["labels"]
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile):
        pass  # absent, or cut short by a full disk
    inputs, labels = make()
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, temporary = tempfile.mkstemp(dir=path.parent, suffix=".tmp")
    with os.fdopen(handle, "wb") as file:
        np.savez(file, inputs=inputs, labels=labels)
    Path(temporary).replace(path)
    return inputs, labels
