"""Real data that needs no download: what scikit-learn ships, and the generated MNIST-1D."""

from __future__ import annotations

import os
import tempfile
import zipfile
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import torch

from bench.cache import cache_folder
from bench.data.splits import Dataset, Split, divide
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


@dataset("digits-standardised")
def digits_standardised() -> Dataset:
    """The digits as 64 features, each with mean 0 and deviation 1 over the train split.

    Source: as `digits`; features that never change are 0.
    """
    plain = digits()
    features = plain.train.inputs.flatten(1)
    mean, deviation = features.mean(0), features.std(0, correction=0)
    scale = torch.where(deviation > 0, deviation, torch.ones_like(deviation))
    train, tune, test = (
        Split((split.inputs.flatten(1) - mean) / scale, split.labels)
        for split in (plain.train, plain.tune, plain.test)
    )
    return Dataset("digits-standardised", train, tune, test, 10)


@dataset("tumours")
def tumours() -> Dataset:
    """569 tumours by 30 standardised features, malignant or benign (350 train, 70 tune, 149 test).

    Source: UCI "Breast Cancer Wisconsin (Diagnostic)", as shipped by scikit-learn.
    """
    inputs, labels = _cached("tumours-1", partial(_load_table, "load_breast_cancer", np.int64))
    return divide(
        "tumours", torch.from_numpy(inputs), torch.from_numpy(labels), tune=70, test=149, classes=2
    )


@dataset("diabetes")
def diabetes() -> Dataset:
    """442 patients by 10 standardised features; the label is the disease's progress, a number.

    272 train, 60 tune, 110 test; the progress is standardised too. Source: Efron et al., "Least
    Angle Regression", Annals of Statistics 32 (2004), as shipped by scikit-learn.
    """
    inputs, labels = _cached("diabetes-1", partial(_load_table, "load_diabetes", np.float32))
    labels = (labels - labels.mean()) / labels.std()
    return divide(
        "diabetes", torch.from_numpy(inputs), torch.from_numpy(labels), tune=60, test=110, classes=0
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


def _load_table(loader: str, label_type: type[np.generic]) -> Arrays:
    import sklearn.datasets

    features, labels = getattr(sklearn.datasets, loader)(return_X_y=True)
    standard = (features - features.mean(0)) / features.std(0)
    return standard.astype(np.float32), labels.astype(label_type)


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
