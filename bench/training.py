"""How models are trained and fine-tuned: seeded, one loop for every technique."""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Callable

import torch
from torch import Tensor, nn

from bench.errors import Refusal
from bench.subject import Recipe, Subject

Loss = Callable[..., Tensor]
EVALUATION_BATCH = 500


def train(subject: Subject) -> Subject:
    """Return the subject trained by its recipe on its train split; as it is where it has none."""
    if subject.recipe is None or subject.data is None:
        return subject
    module = copy.deepcopy(subject.module)
    examples = subject.data.train
    fit(module, examples.inputs, (examples.labels,), nn.functional.cross_entropy, subject.recipe)
    return dataclasses.replace(subject, module=module)


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
        return subject.with_note("not fine-tuned: the model has no training data")
    recipe = dataclasses.replace(subject.recipe, epochs=epochs)
    examples = subject.data.train
    loss = nn.functional.cross_entropy
    fit(subject.module, examples.inputs, (examples.labels,), loss, recipe, after_step)
    return subject


def tune_accuracy(subject: Subject) -> float:
    """Return the share of right answers on the tune split, which techniques may look at."""
    if subject.data is None:
        raise Refusal("the model has no data to tell its accuracy by")
    examples = subject.data.tune
    hits = scores(subject.module, examples.inputs).argmax(1) == examples.labels
    return float(hits.double().mean())


@torch.no_grad()
def scores(module: nn.Module, inputs: Tensor) -> Tensor:
    """Return a module's outputs over many inputs, computed in batches in evaluation mode."""
    module.eval()
    return torch.cat([module(part) for part in inputs.split(EVALUATION_BATCH)])


def fit(
    module: nn.Module,
    inputs: Tensor,
    targets: tuple[Tensor, ...],
    loss: Loss,
    recipe: Recipe,
    after_step: Callable[[], None] = lambda: None,
) -> None:
    """Train a module in place; `loss(outputs, *targets of the batch)` gives a scalar.

    Shuffles with the global generator: seed it first. Leaves the module in evaluation mode.
    Raises Refusal where there is nothing to train.
    """
    parameters = [parameter for parameter in module.parameters() if parameter.requires_grad]
    if not parameters:
        raise Refusal("the model has no trainable parameters")
    steps = -(-len(inputs) // recipe.batch_size)
    total_steps = max(6, recipe.epochs * steps)  # OneCycleLR divides by zero where 20 % is one step
    optimizer = torch.optim.AdamW(
        parameters, recipe.learning_rate, weight_decay=recipe.weight_decay
    )
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, recipe.learning_rate, total_steps=total_steps, pct_start=0.2
    )
    module.train()
    for _ in range(recipe.epochs):
        for rows in torch.randperm(len(inputs)).split(recipe.batch_size):
            if len(rows) == 1 and len(inputs) > 1:
                continue  # batch norm cannot train on a single example
            optimizer.zero_grad(set_to_none=True)
            loss(module(inputs[rows]), *(target[rows] for target in targets)).backward()
            optimizer.step()
            schedule.step()
            after_step()
    module.eval()
