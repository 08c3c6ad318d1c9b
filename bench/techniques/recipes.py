"""Training recipes: what changes how a model is trained, before it is."""

from __future__ import annotations

import copy
import dataclasses
from typing import Annotated, Literal

from torch import nn

from bench.data.splits import Split, stratify
from bench.errors import Refusal
from bench.registry import build, find, technique
from bench.spec import Call, Range, name_arguments
from bench.subject import Optimizer, Recipe, Subject, as_subject
from bench.training import is_activation, split_epoch

Strength = Annotated[float, Range(0)]
LEARNING_RATES: dict[Optimizer, float] = {
    "gd": 0.5, "sgd": 0.1, "momentum": 0.05, "rmsprop": 2e-3, "adam": 5e-3, "adamw": 1e-2,
}  # fmt: skip
"""Peaks of the one-cycle schedule that suit the built-in models."""
ACTIVATIONS: dict[str, type[nn.Module]] = {
    "relu": nn.ReLU, "sigmoid": nn.Sigmoid, "tanh": nn.Tanh, "gelu": nn.GELU,
}  # fmt: skip


@technique("optimizer", stage="recipe", needs=("training data",))
def optimizer(
    subject: Subject,
    name: Optimizer,
    learning_rate: Annotated[float, Range(1e-9)] | None = None,
    epochs: Annotated[int, Range(1)] | None = None,
) -> Subject:
    """Trained by gd, sgd, momentum, rmsprop, adam or adamw, with a one-cycle learning rate.

    gd takes all examples for each update: as many updates as epochs. momentum is 0.9. The peak of
    the learning rate is one that suits the built-in models unless it is given.
    Source: Robbins and Monro (1951); Polyak (1964); Tieleman and Hinton (2012); Kingma and Ba,
    arXiv:1412.6980; Loshchilov and Hutter, arXiv:1711.05101; Smith, arXiv:1708.07120 (one cycle).
    """
    recipe = require_recipe(subject, "optimizer")
    return dataclasses.replace(
        subject,
        recipe=dataclasses.replace(
            recipe,
            optimizer=name,
            learning_rate=learning_rate or LEARNING_RATES[name],
            epochs=epochs or recipe.epochs,
        ),
    )


@technique("l1", stage="recipe", needs=("training data",))
def l1(subject: Subject, strength: Strength) -> Subject:
    """Trained with strength · Σ|w| added to the loss, over all weights but biases and norms.

    Source: Tibshirani, "Regression Shrinkage and Selection via the Lasso", JRSS B 58 (1996).
    """
    recipe = require_recipe(subject, "l1")
    return dataclasses.replace(subject, recipe=dataclasses.replace(recipe, l1=strength))


@technique("l2", stage="recipe", needs=("training data",))
def l2(subject: Subject, strength: Strength) -> Subject:
    """Trained with strength · Σw² added to the loss, instead of the recipe's weight decay.

    Source: Krogh and Hertz, "A Simple Weight Decay Can Improve Generalization", NIPS 1991.
    """
    recipe = require_recipe(subject, "l2")
    changed = dataclasses.replace(recipe, l2=strength, weight_decay=0.0)
    return dataclasses.replace(subject, recipe=changed)


@technique("dropout", stage="recipe", needs=("training data",))
def dropout(subject: Subject, rate: Annotated[float, Range(0, 1, below=True)] = 0.5) -> Subject:
    """Trained with that share of every activation layer's outputs set to zero by lot.

    Nothing of it is left in the trained model. For models whose activations are modules.
    Source: Srivastava et al., "Dropout", JMLR 15 (2014).
    """
    recipe = require_recipe(subject, "dropout")
    _require_activations(subject, "dropout")
    return dataclasses.replace(subject, recipe=dataclasses.replace(recipe, dropout=rate))


@technique("activation", stage="recipe", needs=("training data",))
def activation(subject: Subject, name: Literal["relu", "sigmoid", "tanh", "gelu"]) -> Subject:
    """Every activation layer replaced by relu, sigmoid, tanh or gelu before training.

    For models whose activations are modules; a model's own output activation is kept.
    Source: Glorot et al., AISTATS 2011 (relu); Hendrycks and Gimpel, arXiv:1606.08415 (gelu).
    """
    require_recipe(subject, "activation")
    _require_activations(subject, "activation")
    module = nn.Sequential(copy.deepcopy(subject.module))
    named = [(path, part) for path, part in module.named_modules() if is_activation(part)]
    last = list(module.modules())[-1]
    for path, part in named:
        if part is not last:
            module.set_submodule(path, ACTIVATIONS[name]())
    return dataclasses.replace(subject, module=module[0], origin="")


@technique("width", stage="recipe", needs=("training data",))
def width(subject: Subject, factor: Annotated[float, Range(0.01, 100)]) -> Subject:
    """The model built with so many times its `width`, and trained by the same recipe.

    For registered models with a parameter `width`. Before recipes that change the model.
    Source: Zagoruyko and Komodakis, "Wide Residual Networks", arXiv:1605.07146.
    """
    return _rebuild(subject, "width", factor)


@technique("depth", stage="recipe", needs=("training data",))
def depth(subject: Subject, factor: Annotated[float, Range(0.01, 100)]) -> Subject:
    """The model built with so many times its `depth`, and trained by the same recipe.

    For registered models with a parameter `depth`. Before recipes that change the model.
    Source: Simonyan and Zisserman, "Very Deep Convolutional Networks", arXiv:1409.1556.
    """
    return _rebuild(subject, "depth", factor)


@technique("few-labels", stage="recipe", needs=("training data",))
def few_labels(
    subject: Subject, share: Annotated[float, Range(0, 1)], same_updates: bool = True
) -> Subject:
    """Trained on that share of the labels; the other examples are left for `pretrain`.

    The share is stratified and always the same. With `same_updates` the epochs grow so that the
    model is updated as often as with all labels.
    Source: Oliver et al., "Realistic Evaluation of Deep Semi-Supervised Learning Algorithms",
    arXiv:1804.09170.
    """
    recipe = require_recipe(subject, "few-labels")
    assert subject.data is not None
    examples = subject.data.train
    count = max(1, subject.data.classes, round(share * len(examples)))
    spare, kept = stratify(examples.labels, count)
    train, rest = (Split(examples.inputs[rows], examples.labels[rows]) for rows in (kept, spare))
    if same_updates:
        updates = [split_epoch(recipe, len(split))[1] for split in (examples, train)]
        epochs = round(recipe.epochs * updates[0] / updates[1])
        recipe = dataclasses.replace(recipe, epochs=epochs)
    data = dataclasses.replace(subject.data, train=train, spare=rest)
    return dataclasses.replace(subject, data=data, recipe=recipe)


def require_recipe(subject: Subject, name: str) -> Recipe:
    """Return the subject's recipe; raise Refusal where it is not trained."""
    if subject.data is None or subject.recipe is None:
        raise Refusal(f"{name} changes the training, and this model is not trained")
    return subject.recipe


def _require_activations(subject: Subject, name: str) -> None:
    if not any(is_activation(part) for part in subject.module.modules()):
        raise Refusal(f"{name} finds activations that are modules, and this model has none")


def _rebuild(subject: Subject, parameter: str, factor: float) -> Subject:
    recipe = require_recipe(subject, parameter)
    if not subject.origin:
        raise Refusal(f"{parameter} builds the model anew: write it before other recipes")
    entry, call = find("model", subject.origin)
    given = name_arguments(call, entry.parameters)
    defaults = {p.name: p.default for p in entry.parameters}
    value = given.get(parameter, defaults.get(parameter))
    if not isinstance(value, int):
        raise Refusal(f"{parameter}: the model {entry.name!r} has no parameter {parameter!r}")
    given[parameter] = max(1, round(value * factor))
    text = str(Call(call.name, (), tuple(given.items())))
    made = as_subject(build("model", text), text)
    return dataclasses.replace(made, data=subject.data, recipe=recipe, origin=text)
