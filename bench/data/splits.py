"""Dataset and its three splits; how undivided examples are divided."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from bench.errors import SpecError
from bench.tasks import as_tensor, read_labels

SPLIT_SEED = 20_240_229


@dataclass(frozen=True)
class Split:
    """Inputs (examples first) and as many labels: whole numbers of classes, or numbers.

    Either may be an array, a list or a table's column; it becomes a tensor.
    """

    inputs: Tensor
    labels: Tensor

    def __post_init__(self) -> None:
        object.__setattr__(self, "inputs", as_tensor(self.inputs, "Inputs"))
        object.__setattr__(self, "labels", as_tensor(self.labels, "Labels"))
        if self.inputs.dim() == 0 or self.labels.dim() == 0:
            raise SpecError("Inputs and labels need a first dimension: the examples.")
        if len(self.inputs) != len(self.labels):
            shapes = f"inputs {tuple(self.inputs.shape)}, labels {tuple(self.labels.shape)}"
            raise SpecError(
                f"{len(self.inputs)} inputs but {len(self.labels)} of labels ({shapes}): the first "
                "dimension of both is the examples, and as long."
            )

    def __len__(self) -> int:
        return len(self.labels)


@dataclass(frozen=True)
class Dataset:
    """Training examples, examples to tune on, and test examples that no technique sees.

    classes: 0 where the labels are numbers. spare: examples that training leaves to pretraining.
    Raises SpecError where there is nothing to train on or to test with.
    """

    name: str
    train: Split
    tune: Split
    test: Split
    classes: int
    spare: Split | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "classes", _read_count(self.classes, self.name))
        for name in ("train", "tune", "test", "spare"):
            split = getattr(self, name)
            if split is None:
                continue
            if not len(split) and name in ("train", "test"):
                raise SpecError(
                    f"{self.name}: the {name} split is empty. Give one example or more."
                )
            try:
                labels = read_labels(split.labels, self.classes)
            except SpecError as mistake:
                raise SpecError(f"{self.name}, {name} split: {mistake}") from None
            if labels is not split.labels:
                object.__setattr__(self, name, Split(split.inputs, labels))

    @property
    def shape(self) -> tuple[int, ...]:
        """The shape of one example."""
        return tuple(self.test.inputs.shape[1:])

    @property
    def unlabelled(self) -> Split:
        """All inputs that may be learned from without their labels; the labels come along."""
        if self.spare is None:
            return self.train
        inputs = torch.cat([self.train.inputs, self.spare.inputs])
        return Split(inputs, torch.cat([self.train.labels, self.spare.labels]))


def _read_count(classes: Any, name: str) -> int:
    """Return the number of classes as Python's: it may have been reckoned from the labels."""
    try:
        count = int(classes)
    except (TypeError, ValueError, RuntimeError):
        count = -1
    if count < 0 or count != classes:
        raise SpecError(
            f"{name}: classes must be a whole number, 0 where labels are numbers; got {classes!r}."
        )
    return count


def divide(
    name: str, inputs: Tensor, labels: Tensor, *, tune: int, test: int, classes: int
) -> Dataset:
    """Return the examples in a fixed stratified division; `tune` and `test` count examples.

    Labels that are numbers, or several an example, are divided by lot.
    """
    train_rows, held_rows = stratify(labels, tune + test)
    tune_part, test_part = stratify(labels[held_rows], test)
    train, tuning, testing = (
        Split(inputs[rows], labels[rows])
        for rows in (train_rows, held_rows[tune_part], held_rows[test_part])
    )
    return Dataset(name, train, tuning, testing, classes)


def stratify(labels: Tensor, held: int) -> tuple[Tensor, Tensor]:
    """Return row numbers (kept, held) with every class shared out in proportion; always the same.

    Every class is shuffled, its rows are spread evenly over [0, 1), and the first `held` rows of
    that common order are held.
    """
    order = np.random.default_rng(SPLIT_SEED).permutation(len(labels))
    shuffled = labels.numpy()[order]
    position = np.empty(len(labels))
    by_lot = labels.is_floating_point() or labels.dim() > 1
    kinds = np.zeros(len(labels)) if by_lot else shuffled
    for kind in np.unique(kinds):
        rows = np.flatnonzero(kinds == kind)
        position[rows] = (np.arange(len(rows)) + 0.5) / len(rows)
    ranked = order[np.argsort(position, kind="stable")]
    return torch.from_numpy(np.sort(ranked[held:])), torch.from_numpy(np.sort(ranked[:held]))
