"""How models are trained and fine-tuned: seeded, one loop for every technique."""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from bench.conventions import IGNORED
from bench.data.splits import Dataset, Split
from bench.errors import Refusal
from bench.subject import Recipe, Subject, evaluating
from bench.tasks import first_tensor, predict, task_loss

Loss = Callable[..., Tensor]
EVALUATION_BATCH = 500
MOMENTUM = 0.9
ACTIVATIONS = (
    nn.ReLU, nn.Sigmoid, nn.Tanh, nn.GELU, nn.SiLU, nn.LeakyReLU, nn.ELU, nn.Hardswish, nn.ReLU6,
)  # fmt: skip
"""Modules that recipes know as activations."""
SINGLE = "Expected more than 1 value per channel when training"
"""How PyTorch says that a batch norm got a single example."""


def train(subject: Subject, way: list[float] | None = None, device: str = "cpu") -> Subject:
    """Return the subject trained by its recipe on its train split; as it is where it has none.

    `way` is given the quality on the tune split after each epoch. What was trained on another
    device comes back from it, with a note.
    """
    if subject.recipe is None or subject.data is None:
        return subject
    refuse_hooks(subject.module)
    made = dataclasses.replace(subject, module=copy.deepcopy(subject.module))
    if device != "cpu":
        made = dataclasses.replace(
            made, module=made.module.to(device), data=_move(subject.data, device)
        )
    assert made.data is not None
    examples = made.data.train

    def note() -> None:
        if way is not None:
            way.append(tune_quality(made))

    fit(made.module, examples.inputs, (examples.labels,), task_loss, subject.recipe,
        after_epoch=note)  # fmt: skip
    if device == "cpu":
        return made
    home = dataclasses.replace(made, module=made.module.to("cpu"), data=subject.data)
    return home.with_note(f"trained on {device}")


def refuse_hooks(module: nn.Module) -> None:
    """Raise Refusal where a parameter has hooks, which copies of a module do not have."""
    for name, one in module.named_parameters():
        if one._backward_hooks or getattr(one, "_post_accumulate_grad_hooks", None):
            raise Refusal(
                f"its parameter {name} has a hook, and PyTorch copies and saves none: compute "
                "what it does in forward, or by torch.nn.utils.parametrize"
            )


def _move(data: Dataset, device: str) -> Dataset:
    """Return a data set whose splits that training looks at are on a device."""
    train, tune = (
        Split(split.inputs.to(device), split.labels.to(device)) for split in (data.train, data.tune)
    )
    return dataclasses.replace(data, train=train, tune=tune)


def finetune(
    subject: Subject, epochs: int, after_step: Callable[[], None] = lambda: None
) -> Subject:
    """Train the subject's module in place for some epochs, by its recipe.

    The learning rate starts again where training began: learning-rate rewinding, which recovers
    more than a small rate does (Renda et al., "Comparing Rewinding and Fine-tuning in Neural
    Network Pruning", arXiv:2003.02389).

    `after_step` is called after each update, for constraints that training must keep. Without
    data or recipe nothing is trained and a note says so.
    """
    if epochs == 0:
        return subject
    if subject.data is None or subject.recipe is None:
        return subject.with_note(f"not fine-tuned: the model has no {subject.lacks()}")
    recipe = dataclasses.replace(subject.recipe, epochs=epochs)
    examples = subject.data.train
    fit(subject.module, examples.inputs, (examples.labels,), task_loss, recipe, after_step)
    return subject


def tune_accuracy(subject: Subject) -> float:
    """Return the share of right answers on the tune split, which techniques may look at."""
    if subject.data is None or not subject.data.classes:
        raise Refusal("the model has no labelled classes to tell its accuracy by")
    examples = subject.data.tune
    judged = examples.labels != IGNORED
    if not judged.any():
        raise Refusal("the tune split has no labelled example to tell an accuracy by")
    hits = predict(scores(subject.module, examples.inputs), examples.labels) == examples.labels
    return float(hits[judged].double().mean())


def tune_quality(subject: Subject) -> float:
    """Return the accuracy on the tune split, or R² where labels are numbers.

    NaN without any, or where these are all the same.
    """
    assert subject.data is not None
    if not (subject.data.tune.labels != IGNORED).any():
        return float("nan")
    if subject.data.classes:
        return tune_accuracy(subject)
    labels = subject.data.tune.labels
    rest = labels - predict(scores(subject.module, subject.data.tune.inputs), labels)
    spread = (labels - labels.mean(0)).square().sum()
    return float(1 - rest.square().sum() / spread) if spread > 0 else float("nan")


@torch.no_grad()
def scores(module: nn.Module, inputs: Tensor) -> Tensor:
    """Return a module's outputs over many inputs, computed in batches in evaluation mode.

    Of several outputs the first counts, here as everywhere.
    """
    module.eval()
    return torch.cat([first_tensor(module(part)) for part in inputs.split(EVALUATION_BATCH)])


def sum_gradients(subject: Subject, weights: Sequence[Tensor]) -> list[Tensor]:
    """Return Σ |∂L/∂w| of each weight over the batches of the train split, in evaluation mode.

    L is the loss of a batch. Raises Refusal where there is no data.
    """
    if subject.data is None:
        raise Refusal("the model has no training data to take gradients of")
    examples, module = subject.data.train, evaluating(subject.module)
    size = subject.recipe.batch_size if subject.recipe else EVALUATION_BATCH
    sums = [torch.zeros_like(weight) for weight in weights]
    for rows in torch.arange(len(examples)).split(size):
        loss = task_loss(first_tensor(module(examples.inputs[rows])), examples.labels[rows])
        gradients = torch.autograd.grad(loss, list(weights), allow_unused=True)
        for place, gradient in enumerate(gradients):
            if gradient is not None:  # a weight that is not used has none
                sums[place] += gradient.abs()
    return sums


def fit(
    module: nn.Module,
    inputs: Tensor,
    targets: tuple[Tensor, ...],
    loss: Loss,
    recipe: Recipe,
    after_step: Callable[[], None] = lambda: None,
    after_epoch: Callable[[], None] = lambda: None,
) -> None:
    """Train a module in place; `loss(outputs, *targets of the batch)` gives a scalar.

    Shuffles with the global generator: seed it first. Leaves the module in evaluation mode.
    Raises Refusal where there is nothing to train.
    """
    size, steps = split_epoch(recipe, len(inputs))
    optimizer = build_optimizer(module, recipe)
    # OneCycleLR divides by zero where 20 % is one step.
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, recipe.learning_rate, total_steps=max(6, recipe.epochs * steps), pct_start=0.2,
        cycle_momentum=recipe.optimizer in ("momentum", "adam", "adamw"),
    )  # fmt: skip
    with dropping(module, recipe.dropout):
        for _ in range(recipe.epochs):
            set_training(module)
            for rows in split_examples(len(inputs), size):
                optimizer.zero_grad(set_to_none=True)
                with refusing_single_examples():
                    outputs = first_tensor(module(inputs[rows]))
                cost = loss(outputs, *(target[rows] for target in targets))
                (cost + penalize(module, recipe)).backward()
                optimizer.step()
                schedule.step()
                after_step()
            after_epoch()
    module.eval()


def split_epoch(recipe: Recipe, examples: int) -> tuple[int, int]:
    """Return the examples of an update and the updates of an epoch."""
    size = examples if recipe.optimizer == "gd" else recipe.batch_size
    left = examples % size
    return size, examples // size + (left > 0 and not _is_left_out(left, size, examples))


def split_examples(examples: int, size: int) -> Iterator[Tensor]:
    """Yield the examples of each update of an epoch, in random order.

    What is left in the end is an update as well, unless it is a single example beside others, on
    which batch norm cannot train.
    """
    for rows in torch.randperm(examples).split(size):
        if not _is_left_out(len(rows), size, examples):
            yield rows


def _is_left_out(rows: int, size: int, examples: int) -> bool:
    return rows == 1 and size > 1 and examples > 1


@contextmanager
def refusing_single_examples() -> Iterator[None]:
    """Raise Refusal where a batch norm is to train on a single example."""
    try:
        yield
    except ValueError as error:
        if SINGLE not in str(error):
            raise
        raise Refusal(
            "it has a batch norm, which cannot train on a single example: train with a batch of 2 "
            "or more"
        ) from None


def updates_per_epoch(subject: Subject) -> int:
    """Return how often an epoch of the subject's recipe updates the weights."""
    assert subject.recipe is not None and subject.data is not None
    return split_epoch(subject.recipe, len(subject.data.train))[1]


def build_optimizer(module: nn.Module, recipe: Recipe) -> torch.optim.Optimizer:
    """Return the recipe's optimizer over what is trainable; raise Refusal where nothing is."""
    parameters = [parameter for parameter in module.parameters() if parameter.requires_grad]
    if not parameters:
        raise Refusal("the model has no trainable parameters")
    make: Any = {
        "gd": torch.optim.SGD,
        "sgd": torch.optim.SGD,
        "momentum": partial(torch.optim.SGD, momentum=MOMENTUM),
        "rmsprop": torch.optim.RMSprop,
        "adam": torch.optim.Adam,
        "adamw": torch.optim.AdamW,
    }[recipe.optimizer]
    decay = recipe.weight_decay if recipe.optimizer == "adamw" else 0.0  # elsewhere it is l2
    optimizer: torch.optim.Optimizer = make(parameters, lr=recipe.learning_rate, weight_decay=decay)
    return optimizer


def penalize(module: nn.Module, recipe: Recipe) -> Tensor | float:
    """Return l1 · Σ|w| + l2 · Σw² over the trainable weights that are not biases or norms."""
    if not recipe.l1 and not recipe.l2:
        return 0.0
    weights = [p for p in module.parameters() if p.requires_grad and p.dim() > 1]
    cost: Tensor | float = 0.0
    if recipe.l1:
        cost = cost + recipe.l1 * sum(weight.abs().sum() for weight in weights)
    if recipe.l2:
        cost = cost + recipe.l2 * sum(weight.square().sum() for weight in weights)
    return cost


def set_training(module: nn.Module) -> None:
    """Set a module to training mode, frozen layers left out: their norms keep their statistics."""
    module.train()
    for part in module.modules():
        own = list(part.parameters(recurse=False))
        if own and not any(parameter.requires_grad for parameter in own):
            part.eval()


@contextmanager
def dropping(module: nn.Module, rate: float) -> Iterator[None]:
    """Zero that share of every activation's outputs in training, in a `with` block."""

    def drop(part: nn.Module, _: Any, outputs: Tensor) -> Tensor:
        return nn.functional.dropout(outputs, rate, part.training)

    with ExitStack() as hooks:
        for part in module.modules() if rate else ():
            if is_activation(part):
                hooks.callback(part.register_forward_hook(drop).remove)
        yield


def is_activation(part: nn.Module) -> bool:
    """Tell whether a module is an activation that recipes know."""
    return isinstance(part, ACTIVATIONS)
