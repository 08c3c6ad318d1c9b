"""Distillation: a student learns from a teacher's outputs."""

from __future__ import annotations

import dataclasses
from typing import Annotated, Literal

import torch
from torch import Tensor, nn

from bench.errors import Refusal
from bench.registry import find, technique
from bench.spec import Range, name_arguments, parse_call
from bench.subject import Subject, as_subject
from bench.tasks import task_loss
from bench.techniques.parameters import Epochs, Share
from bench.techniques.structure import shrink_untrained
from bench.training import finetune, fit, scores


def check_student(subject: Subject, student: str, **_: object) -> None:
    """Raise Refusal where the student has more parameters than its teacher."""
    with torch.random.fork_rng(devices=[]):  # a check draws nothing from what follows
        learner = make_student(student, subject)
    sizes = [sum(p.numel() for p in one.module.parameters()) for one in (learner, subject)]
    if sizes[0] > sizes[1]:
        raise Refusal(
            f"distill: the student {student!r} has {sizes[0]:,} parameters, more than its teacher "
            f"({sizes[1]:,}); name a smaller one"
        )


@technique("distill", realization="executed", needs=("training data",), check=check_student)
def distill(
    subject: Subject,
    student: str,
    temperature: Annotated[float, Range(1e-3)] = 5.0,
    weight: Share = 0.7,
    loss: Literal["kl", "mse"] = "kl",
    labels: bool = True,
    finetune_epochs: Epochs = 0,
) -> Subject:
    """A smaller model (`student`) trained on the labels and on the teacher's softened outputs.

    Loss: weight · soft + (1 − weight) · task loss, with soft = T² · KL(softmax(teacher/T) ‖
    softmax(student/T)), or for mse the mean squared error of the scores. Without `labels` soft
    alone: inputs suffice, those that few-labels has left too. `finetune_epochs` on the labels
    follow. The student is a registered model on the teacher's data, trained by its own recipe, or
    `shrink(width, depth)` of the teacher, by the teacher's.
    Source: Hinton et al., "Distilling the Knowledge in a Neural Network", arXiv:1503.02531; Ba and
    Caruana, "Do Deep Nets Really Need to be Deep?", arXiv:1312.6184 (mse, without labels).
    """
    assert subject.data is not None
    learner = make_student(student, subject)
    if learner.recipe is None:
        raise Refusal(f"distill: the student {student!r} has no training recipe")
    examples = subject.data.train if labels else subject.data.unlabelled
    teacher_scores = scores(subject.module, examples.inputs)

    def total(outputs: Tensor, answers: Tensor, teacher: Tensor) -> Tensor:
        soft = soften(outputs, teacher, temperature) if loss == "kl" else square(outputs, teacher)
        return weight * soft + (1 - weight) * task_loss(outputs, answers) if labels else soft

    fit(learner.module, examples.inputs, (examples.labels, teacher_scores), total, learner.recipe)
    made = dataclasses.replace(
        learner, data=subject.data, notes=(*subject.notes, f"student of the model: {student}")
    )
    return finetune(made, finetune_epochs)


def soften(outputs: Tensor, teacher: Tensor, temperature: float) -> Tensor:
    """Return T² · KL(softmax(teacher/T) ‖ softmax(outputs/T)), a mean over examples."""
    if outputs.shape[1] == 1:
        raise Refusal("distill: kl compares scores of classes, and there is one output; use mse")
    divergence = nn.functional.kl_div(
        (outputs / temperature).log_softmax(1),
        (teacher / temperature).log_softmax(1),
        reduction="batchmean",
        log_target=True,
    )
    return temperature**2 * divergence


def square(outputs: Tensor, teacher: Tensor) -> Tensor:
    """Return the mean squared difference of scores."""
    return nn.functional.mse_loss(outputs, teacher)


def make_student(text: str, subject: Subject) -> Subject:
    """Return the untrained student: a registered model on the teacher's data, or it shrunk.

    Raises SpecError for an unknown one, Refusal for one that does not take the teacher's data.
    """
    if parse_call(text).name == "shrink":
        shrinking, call = find("technique", text)
        return shrink_untrained(subject, **name_arguments(call, shrinking.parameters))
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
