"""Distillation: which loss, from which inputs, into which student."""

import dataclasses
from collections.abc import Callable

import pytest
import torch
from torch import nn

from bench import Refusal, Subject, registry
from bench.techniques.distillation import soften, square
from bench.training import scores

pytestmark = pytest.mark.slow


def apply(technique: str, subject: Subject, seed: int = 0) -> Subject:
    torch.manual_seed(seed)
    made: Subject = registry.build("technique", technique, subject)
    return made


def agreement(teacher: Subject, student: Subject) -> float:
    assert teacher.data is not None
    inputs = teacher.data.test.inputs
    answers = [scores(one.module, inputs).argmax(1) for one in (teacher, student)]
    return float((answers[0] == answers[1]).double().mean())


def test_the_soft_loss_is_the_divergence_of_softened_scores() -> None:
    teacher, student = torch.tensor([[2.0, 0.0]]), torch.tensor([[0.0, 1.0]])
    p, q = ((one / 4).softmax(1) for one in (teacher, student))
    expected = 16 * float((p * (p / q).log()).sum())
    assert float(soften(student, teacher, 4.0)) == pytest.approx(expected, rel=1e-5)
    assert float(square(student, teacher)) == pytest.approx((4 + 1) / 2)


@pytest.mark.parametrize("loss", ["kl", "mse"])
def test_without_labels_a_student_learns_from_the_teacher_alone(
    trained: Callable[[str], Subject], loss: str
) -> None:
    teacher = trained("digits-mlp")
    assert teacher.data is not None
    wrong = dataclasses.replace(teacher.data.train, labels=(teacher.data.train.labels + 1) % 10)
    misled = dataclasses.replace(teacher, data=dataclasses.replace(teacher.data, train=wrong))
    made = apply(f"distill('digits-mlp(width=32)', loss={loss!r}, labels=False)", misled)
    assert agreement(teacher, made) > 0.9
    with_labels = apply("distill('digits-mlp(width=32)', weight=0.0)", misled)
    assert agreement(teacher, with_labels) < 0.1


def test_without_labels_it_learns_from_what_few_labels_has_left(
    trained: Callable[[str], Subject], monkeypatch: pytest.MonkeyPatch
) -> None:
    from bench.techniques import distillation

    seen: list[int] = []
    fit = distillation.fit
    monkeypatch.setattr(
        distillation, "fit", lambda module, inputs, *rest: (seen.append(len(inputs)),
                                                            fit(module, inputs, *rest)),
    )  # fmt: skip
    few = apply("few-labels(0.1)", trained("digits-mlp"))
    apply("distill('digits-mlp(width=4)')", few)
    apply("distill('digits-mlp(width=4)', labels=False)", few)
    assert seen == [100, 1000]


def test_a_student_may_be_the_teacher_shrunk() -> None:
    teacher = registry.build("model", "mnist1d-transformer")
    made = apply("distill('shrink(0.5, depth=1)', finetune_epochs=1)", teacher)
    linear = [m for m in made.module.modules() if isinstance(m, nn.Linear)]
    before = [m for m in teacher.module.modules() if isinstance(m, nn.Linear)]
    assert len(linear) == len(before) - 6
    size = sum(p.numel() for p in made.module.parameters())
    assert size < 0.5 * sum(p.numel() for p in teacher.module.parameters())


def test_a_shrunk_model_begins_anew(trained: Callable[[str], Subject]) -> None:
    from bench.techniques.structure import shrink_untrained

    teacher = trained("mnist1d-cnn")
    torch.manual_seed(0)
    first = shrink_untrained(teacher, width=0.5)
    assert [tuple(p.shape) for p in first.module.parameters() if p.dim() > 1] == [
        (8, 1, 5), (16, 8, 3), (16, 16, 3), (64, 80), (10, 64),
    ]  # fmt: skip
    assert (first.module[1].running_mean == 0).all(), "norms begin anew too"
    torch.manual_seed(1)
    other = shrink_untrained(teacher, width=0.5)
    assert not torch.equal(first.module[0].weight, other.module[0].weight)


def test_a_student_larger_than_its_teacher_is_refused(
    trained: Callable[[str], Subject],
) -> None:
    with pytest.raises(Refusal, match="more than its teacher"):
        registry.check_technique("distill('mnist1d-cnn-wide')", trained("mnist1d-cnn"))
    registry.check_technique("distill('mnist1d-cnn')", trained("mnist1d-cnn"))
