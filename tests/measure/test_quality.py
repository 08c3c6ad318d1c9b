"""Answers of models without labels: the classes are chosen along the right axis."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from bench.subject import as_subject
from harness.measure.devices import CpuDevice
from harness.measure.quality import collect_answers, find_class_axis


class Fixed(nn.Module):
    """A model with outputs of a shape, the first dimension the examples'."""

    def __init__(self, *shape: int) -> None:
        super().__init__()
        self.scores = nn.Parameter(torch.randn(*shape), requires_grad=False)

    def forward(self, x: Tensor) -> Tensor:
        return self.scores + 0 * x.sum()


def test_outputs_of_which_each_batch_has_another_number_are_compared_in_a_row() -> None:
    class Finds(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x[x > 0]

    inputs = torch.tensor([[1.0, -1, 2], [-1, 3, -1], [-1, -1, -1], [4, 5, 6]])
    subject = as_subject((Finds(), inputs), "a test")
    answers = collect_answers(subject, subject.module, CpuDevice(), batch=1)
    assert answers is not None
    assert answers["outputs"].tolist() == [1, 2, 3, 4, 5, 6]
    assert collect_answers(subject, subject.module, CpuDevice(), 1, answers["outputs"]) is None


@pytest.mark.parametrize(
    ("shape", "axis"),
    [
        ((4, 10), 1),  # a class for each example
        ((4, 6, 10), 2),  # for each place of a sequence
        ((4, 10, 6, 6), 1),  # for each point of a picture
        ((4, 10, 3, 6, 6), 1),  # of a volume
        ((4,), None),
        ((4, 1), None),  # one number: nobody says that it is a class
        ((4, 6, 1), None),
    ],
)
def test_the_answer_is_the_best_class_of_every_place(
    shape: tuple[int, ...], axis: int | None
) -> None:
    module = Fixed(*shape)
    subject = as_subject((module, torch.zeros(4, 3)), "a test")
    answers = collect_answers(subject, module, CpuDevice(), batch=4)
    assert answers is not None
    assert find_class_axis(shape) == axis
    if axis is None:
        assert "predicted" not in answers
    else:
        wanted = module.scores.numpy().argmax(axis)
        np.testing.assert_array_equal(answers["predicted"], wanted.reshape(-1))
