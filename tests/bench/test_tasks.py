"""Labels and outputs of any shape, type and container: judged right, or refused with a reason."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from bench import SpecError
from bench.conventions import IGNORED
from bench.data.splits import Dataset, Split
from bench.subject import Recipe, Subject, as_subject
from bench.tasks import as_tensor, first_tensor, predict, task_loss
from bench.training import train

CLASSES = torch.tensor([0, 1, 2, 1, 0, 2])
CONTAINERS: dict[str, Callable[[torch.Tensor], Any]] = {
    "int64": lambda y: y,
    "uint8": lambda y: y.to(torch.uint8),
    "int32 array": lambda y: y.numpy().astype(np.int32),
    "uint16 array": lambda y: y.numpy().astype(np.uint16),
    "list": lambda y: y.tolist(),
    "column": lambda y: y[:, None],
    "table's column": lambda y: pd.Series(y.numpy()),
    "whole floats": lambda y: y.double(),
    "one-hot": lambda y: nn.functional.one_hot(y, 3),
    "one-hot floats": lambda y: nn.functional.one_hot(y, 3).float(),
}


def make(labels: Any, classes: int = 3) -> Dataset:
    split = Split(torch.zeros(len(labels), 2), labels)
    return Dataset("made", split, split, split, classes)


@pytest.mark.parametrize("container", CONTAINERS)
def test_classes_are_read_from_any_container(container: str) -> None:
    data = make(CONTAINERS[container](CLASSES))
    for split in (data.train, data.tune, data.test):
        assert torch.equal(split.labels, CLASSES)
        assert split.labels.dtype == torch.int64


def test_booleans_are_two_classes_and_whole_numbers_without_classes_are_numbers() -> None:
    assert make(CLASSES == 1, 2).test.labels.tolist() == [0, 1, 0, 1, 0, 0]
    assert make(CLASSES, 0).test.labels.dtype == torch.float32
    assert make([0.5, 2.0], 0).test.labels.tolist() == [0.5, 2.0]


@pytest.mark.parametrize("labels", [[0, 3], [-1, 0], [0.5, 1.0], ["a", "b"]])
def test_labels_that_are_no_class_are_refused_by_name(labels: Any) -> None:
    with pytest.raises(SpecError, match=r"label|Labels"):
        make(labels)


SHAPES = st.sampled_from([(7,), (5, 3), (4, 3, 2), (1,), (0,)])


@settings(max_examples=60)
@given(
    SHAPES, st.integers(2, 4), st.sampled_from(["second", "last", "ids", "column"]), st.randoms()
)
def test_right_outputs_of_any_form_are_right(
    shape: tuple[int, ...], classes: int, form: str, random: Any
) -> None:
    torch.manual_seed(random.randrange(1000))
    labels = torch.randint(0, classes, shape)
    scores = nn.functional.one_hot(labels, classes).float().movedim(-1, 1) + torch.rand(1) * 0.1
    outputs = {"second": scores, "last": scores.movedim(1, -1), "ids": labels,
               "column": labels[..., None]}[form]  # fmt: skip
    if (
        form == "last"
        and labels.dim() > 1
        and scores.shape[2:] == labels.shape[1:]
        and (scores.movedim(1, -1).shape[:1] + scores.movedim(1, -1).shape[2:] == labels.shape)
    ):
        return  # as many classes as places: either reading fits, and the second dimension is taken
    assert torch.equal(predict(outputs, labels), labels)


@pytest.mark.parametrize("column", [False, True])
def test_a_single_output_is_a_probability_or_a_logit(column: bool) -> None:
    labels = torch.tensor([0, 1, 1, 0])
    logits = torch.tensor([-3.0, 0.2, 4.0, -0.1])
    for outputs in (logits, logits.sigmoid()):
        assert predict(outputs[:, None] if column else outputs, labels).tolist() == labels.tolist()


def test_the_loss_of_a_logit_and_of_its_probability_are_the_same() -> None:
    labels = torch.tensor([0, 1, 1, 0])
    logits = torch.tensor([-3.0, 0.2, 4.0, 0.4], requires_grad=True)
    wanted = nn.functional.binary_cross_entropy_with_logits(logits, labels.float())
    for outputs in (logits * 1, logits.sigmoid(), logits[:, None].sigmoid().squeeze(1)[:, None]):
        torch.testing.assert_close(task_loss(outputs, labels), wanted)


def test_dense_labels_have_a_loss_and_what_is_ignored_has_none() -> None:
    scores = torch.randn(3, 2, 4, requires_grad=True)
    labels = torch.randint(0, 2, (3, 4))
    labels[0] = IGNORED
    loss = task_loss(scores, labels)
    torch.testing.assert_close(loss, nn.functional.cross_entropy(scores[1:], labels[1:]))
    torch.testing.assert_close(task_loss(scores.movedim(1, -1), labels), loss)


@pytest.mark.parametrize("labels", [torch.zeros(4, dtype=torch.long), torch.zeros(4)])
def test_outputs_that_answer_nothing_are_refused_with_both_shapes(labels: torch.Tensor) -> None:
    with pytest.raises(SpecError, match=r"\(3, 2\).*\(4,\)"):
        predict(torch.randn(3, 2), labels)
    with pytest.raises(SpecError, match=r"\(3, 2\).*\(4,\)"):
        task_loss(torch.randn(3, 2), labels)


@pytest.mark.parametrize("judge", [task_loss, predict])
def test_a_label_without_a_score_is_refused_by_name(judge: Any) -> None:
    labels = torch.tensor([0, 2, 1])
    with pytest.raises(SpecError, match="scores of 2 classes do not answer the label 2"):
        judge(torch.randn(3, 2), labels)
    judge(torch.randn(3, 3), labels)
    judge(torch.randn(0, 2), labels[:0])


@pytest.mark.parametrize(
    ("values", "kind"),
    [(["cat", "dog"], "text"), ([b"cat"], "bytes"), ([None, 1], "Python objects"),
     (np.array(["2026-01-01"], "datetime64[D]"), r"datetime64\[D\]")],
)  # fmt: skip
def test_what_is_no_number_is_told_in_our_words(values: Any, kind: str) -> None:
    with pytest.raises(SpecError, match=f"^Labels cannot be read as numbers: they are {kind}"):
        as_tensor(values, "Labels")


@pytest.mark.parametrize("scores", [torch.rand(1, 3), torch.rand(4, 3), torch.rand(4)])
def test_a_loss_beside_the_scores_is_not_the_answer(scores: torch.Tensor) -> None:
    loss = torch.tensor(0.5)
    for outputs in ({"loss": loss, "logits": scores}, (loss, scores), [None, [loss], (scores,)]):
        assert first_tensor(outputs) is scores
    assert first_tensor((scores, loss)) is scores
    assert first_tensor({"energy": loss}) is loss
    with pytest.raises(SpecError, match="holds no tensor"):
        first_tensor({"loss": 0.5})


NUMBERS: dict[str, Callable[[np.ndarray], Any]] = {
    "array": lambda rows: rows,
    "list": lambda rows: rows.tolist(),
    "table": pd.DataFrame,
    "float32 array": lambda rows: rows.astype(np.float32),
}


@pytest.mark.parametrize("container", NUMBERS)
@pytest.mark.parametrize("target", [*NUMBERS, "float64 tensor"])
def test_numbers_of_any_container_train_a_model_as_it_is(container: str, target: str) -> None:
    """Arrays and lists have 64 bits a number, and models have 32."""
    rows = np.random.default_rng(0).standard_normal((12, 3))
    sums = rows.sum(1, keepdims=True)
    labels = NUMBERS[target](sums) if target in NUMBERS else torch.from_numpy(sums)
    split = Split(NUMBERS[container](rows), labels)
    data = Dataset("sums", split, split, split, 0)
    recipe = Recipe(epochs=60, batch_size=4, learning_rate=0.1)
    made = train(Subject(nn.Linear(3, 1), (split.inputs[:2],), data, recipe))
    assert task_loss(made.module(split.inputs), data.test.labels) < 0.1


def test_a_tensor_of_64_bits_stays_one() -> None:
    assert as_tensor(torch.ones(2, dtype=torch.float64), "Inputs").dtype == torch.float64


@pytest.mark.parametrize("classes", [np.int64(3), torch.tensor(3), 3.0, np.float64(3)])
def test_classes_that_are_counted_from_labels_are_a_number_of_them(classes: Any) -> None:
    split = Split(torch.zeros(6, 1), CLASSES)
    made = Dataset("three", split, split, split, classes)
    assert made.classes == 3
    assert type(made.classes) is int


@pytest.mark.parametrize("classes", [2.5, -1, "3", None, float("nan"), torch.zeros(2)])
def test_classes_that_are_no_count_are_refused(classes: Any) -> None:
    split = Split(torch.zeros(6, 1), CLASSES)
    with pytest.raises(SpecError, match="some: classes must be a whole number"):
        Dataset("some", split, split, split, classes)


@pytest.mark.parametrize("name", ["train", "test"])
def test_an_empty_split_is_refused_by_name(name: str) -> None:
    whole, none = (Split(torch.zeros(count, 1), CLASSES[:count]) for count in (6, 0))
    splits = {one: none if one == name else whole for one in ("train", "tune", "test")}
    with pytest.raises(SpecError, match=f"some: the {name} split is empty"):
        Dataset("some", **splits, classes=3)


def test_a_data_set_for_a_model_of_several_inputs_is_refused_with_what_would_work() -> None:
    split = Split(torch.zeros(6, 1), CLASSES)
    made = Subject(nn.Bilinear(1, 1, 3), (torch.zeros(2, 1),) * 2,
                   Dataset("some", split, split, split, 3))  # fmt: skip
    with pytest.raises(SpecError, match="has 2 example inputs, and a data set feeds one"):
        as_subject(made, "two")
