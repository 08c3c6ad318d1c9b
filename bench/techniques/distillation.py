"""Distillation: a student learns from a teacher's outputs."""

from __future__ import annotations

import dataclasses
from typing import Annotated

from torch import Tensor, nn

from bench.errors import Refusal
from bench.registry import find, technique
from bench.spec import Range
from bench.subject import Subject, as_subject
from bench.training import fit, scores


@technique("distill", realization="executed", needs=("training data",))
def distill(
    subject: Subject,
    student: str,
    temperature: Annotated[float, Range(1e-3)] = 5.0,
    weight: Annotated[float, Range(0, 1)] = 0.7,
) -> Subject:
    """A smaller model (`student`) trained on the labels and on the teacher's softened outputs.

    Loss: weight · T² · KL(softmax(teacher/T) ‖ softmax(student/T)) + (1 − weight) · cross-entropy.
    The student is a registered model, built on the teacher's data and trained by its own recipe.
    Source: Hinton et al., "Distilling the Knowledge in a Neural Network", arXiv:1503.02531.
    """
    if subject.data is None:
        raise Refusal("distill needs training data, and this model has none")
    learner = _make_student(student, subject)
    if learner.recipe is None:
        raise Refusal(f"distill: the student {student!r} has no training recipe")
    teacher_scores = scores(subject.module, subject.data.train.inputs)

    def loss(outputs: Tensor, labels: Tensor, teacher: Tensor) -> Tensor:
        soft = nn.functional.kl_div(
            (outputs / temperature).log_softmax(1),
            (teacher / temperature).log_softmax(1),
            reduction="batchmean",
            log_target=True,
        )
        hard = nn.functional.cross_entropy(outputs, labels)
        return weight * temperature**2 * soft + (1 - weight) * hard

    examples = subject.data.train
    fit(learner.module, examples.inputs, (examples.labels, teacher_scores), loss, learner.recipe)
    return dataclasses.replace(
        learner, data=subject.data, notes=(*subject.notes, f"student of the model: {student}")
    )


def _make_student(text: str, subject: Subject) -> Subject:
    entry, call = find("model", text)
    options = dict(call.kwargs)
    named = [parameter.name for parameter in entry.parameters]
    if "data" in named[len(call.args) :]:
        options.setdefault("data", subject.data)
    student = as_subject(entry.factory(*call.args, **options), text)
    taught, learned = subject.data, student.data
    if (
        taught is None
        or learned is None
        or (learned.shape, learned.classes) != (taught.shape, taught.classes)
    ):
        raise Refusal(f"distill: the student {text!r} does not take the teacher's data")
    return student
