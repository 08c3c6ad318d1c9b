"""Dataset and its three splits; how undivided examples are divided."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from bench.errors import SpecError

SPLIT_SEED = 20_240_229


@dataclass(frozen=True)
class Split:
    """Inputs (examples first) and as many labels: whole numbers of classes, or numbers."""

    inputs: Tensor
    labels: Tensor

    def __post_init__(self) -> None:
        if len(self.inputs) != len(self.labels):
            raise SpecError(f"{len(self.inputs)} inputs but {len(self.labels)} labels.")

    def __len__(self) -> int:
        return len(self.labels)


@dataclass(frozen=True)
class Dataset:
    """Training examples, examples to tune on, and test examples that no technique sees.

    classes: 0 where the labels are numbers. spare: examples that training leaves to pretraining.
    """

    name: str
    train: Split
    tune: Split
    test: Split
    classes: int
    spare: Split | None = None

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


def divide(
    name: str, inputs: Tensor, labels: Tensor, *, tune: int, test: int, classes: int
) -> Dataset:
    """Return the examples in a fixed stratified division; `tune` and `test` count examples.

    Labels that are numbers are divided by lot.
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
    kinds = np.zeros(len(labels)) if labels.is_floating_point() else shuffled
    for kind in np.unique(kinds):
        rows = np.flatnonzero(kinds == kind)
        position[rows] = (np.arange(len(rows)) + 0.5) / len(rows)
    ranked = order[np.argsort(position, kind="stable")]
    return torch.from_numpy(np.sort(ranked[held:])), torch.from_numpy(np.sort(ranked[:held]))
