"""Build: make a variant by its steps: the model's function, its recipes, a technique."""

from __future__ import annotations

import contextlib
import dataclasses
import inspect
import sys
from dataclasses import dataclass

import torch
from torch.nn.parameter import is_lazy

from bench import registry
from bench.errors import Refusal, SpecError
from bench.spec import find_files, parse_call
from bench.subject import Subject, as_subject, evaluating
from harness.prepare.seeding import seed_everything
from harness.prepare.users import find_imported


@dataclass(frozen=True)
class Steps:
    """How a variant is made: by what is built again where it cannot be serialized.

    base: the variant that `technique` was applied to, or empty for a model with its recipes.
    device: where the model is trained.
    """

    model: str = ""
    recipes: tuple[str, ...] = ()
    batch: int | None = None
    base: str = ""
    technique: str = ""
    seed: int = 0
    device: str = "cpu"


built: dict[Steps, Subject] = {}
"""What was made in this process: a function that patches something runs once in it."""
imported: dict[Steps, frozenset[str]] = {}
"""Which of the user's modules were first imported when a model was made."""


def build_base(steps: Steps) -> Subject:
    """Return a model as its function and recipes make it, before it is trained."""
    if steps not in built:
        before = {*sys.modules}
        built[steps] = _build_base(steps)
        imported[steps] = find_imported(before)
    return built[steps]


def _build_base(steps: Steps) -> Subject:
    model = steps.model
    seed_everything(steps.seed, model)
    subject = dataclasses.replace(as_subject(registry.build("model", model), model), origin=model)
    settle_shapes(subject)
    for recipe in steps.recipes:
        subject = registry.build("technique", recipe, subject)
    return subject if steps.batch is None else with_batch(subject, steps.batch, model)


def settle_shapes(subject: Subject) -> None:
    """Let lazy layers learn their shapes from the example inputs, in place."""
    if any(map(is_lazy, [*subject.module.parameters(), *subject.module.buffers()])):
        training = {part: part.training for part in subject.module.modules()}
        with torch.no_grad():
            evaluating(subject.module)(*(value.clone() for value in subject.inputs))
        for part, was in training.items():
            part.training = was


def with_batch(subject: Subject, batch: int, model: str) -> Subject:
    """Return the subject with a recipe of that batch; Refusal where it is not trained."""
    if subject.recipe is None or subject.data is None:
        raise Refusal(f"task = 'training' needs data and a recipe, and {model} has none")
    return dataclasses.replace(
        subject, recipe=dataclasses.replace(subject.recipe, batch_size=batch)
    )


def apply_step(subject: Subject, steps: Steps) -> Subject:
    """Return a subject with a technique applied; raise SpecError where it returns none."""
    seed_everything(steps.seed, steps.technique)
    made = registry.build("technique", steps.technique, subject)
    if not isinstance(made, Subject):
        raise SpecError(
            f"Technique {steps.technique!r} returned {type(made).__name__}; it must return a "
            "Subject."
        )
    return made


def makers_of(step: str) -> set[str]:
    """Return the modules in which a technique, and each model that it names, are defined."""
    call = parse_call(step)
    found = {factory_module("technique", step)}
    for value in (*call.args, *dict(call.kwargs).values()):
        if isinstance(value, str) and not find_files(value):
            with contextlib.suppress(SpecError):
                found.add(factory_module("model", value))
    return found


def factory_module(kind: registry.Kind, text: str) -> str:
    """Return the name of the module in which a model or technique is defined."""
    entry, _ = registry.find(kind, text)
    return str(inspect.unwrap(entry.factory).__module__)
