"""Unstructured pruning: weights set to zero by a score, at once or step by step."""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize, prune

from bench.errors import Refusal, SpecError
from bench.registry import PLAIN_LAYERS, technique
from bench.storage import STORABLE
from bench.subject import Subject
from bench.tasks import task_loss
from bench.techniques.parameters import IF_TUNED, Count, Epochs, ShareBelowOne
from bench.training import finetune, fit, sum_gradients, updates_per_epoch

Scores = dict[tuple[nn.Module, str], Tensor]
"""How much each weight matters, by layer and name, in the weight's shape."""
Scorer = Callable[[Subject, list[Any]], list[Tensor]]

GATE_LOW, GATE_HIGH, GATE_TEMPERATURE = -0.1, 1.1, 2 / 3
"""Stretch and temperature of the hard concrete distribution, as in its paper."""
GATE_START = 2.0
"""Logarithm of the odds that a gate is open before it learns: 95 % are."""
GATE_SPEED = 30.0
"""How much faster than weights gates learn: they have further to go, in few epochs."""
GATE_COST = 0.004
"""Of each gate that is expected to be open beyond as many as asked for, in the loss."""


def check_steps(
    subject: Subject, sparsity: float, finetune_epochs: int = 0, steps: int = 1
) -> None:
    """Raise SpecError where there are more steps than epochs to share out between them."""
    if steps > max(1, finetune_epochs):
        raise SpecError(
            f"steps={steps} needs finetune_epochs={steps} or more: each step is followed by "
            "training."
        )


@technique(
    "prune-magnitude", realization="simulated", needs=(PLAIN_LAYERS, *IF_TUNED), check=check_steps
)
def prune_magnitude(
    subject: Subject, sparsity: ShareBelowOne, finetune_epochs: Epochs = 0, steps: Count = 1
) -> Subject:
    """The smallest weights of the whole model set to zero; the kernels stay dense.

    Zero are the `sparsity` share (0..1) of all weights of linear layers and convolutions with the
    smallest |w|. With `finetune_epochs` the others are trained on, the zeros kept. In several
    `steps` the share grows by s·(1 − (1 − t/n)³), the epochs shared out between them.
    Source: Han et al., "Learning both Weights and Connections", arXiv:1506.02626; Zhu and Gupta,
    "To prune, or not to prune", arXiv:1710.01878 (steps).
    """
    return prune_by(score_magnitude, subject, sparsity, finetune_epochs, steps)


@technique(
    "prune-random", realization="simulated", needs=(PLAIN_LAYERS, *IF_TUNED), check=check_steps
)
def prune_random(
    subject: Subject, sparsity: ShareBelowOne, finetune_epochs: Epochs = 0, steps: Count = 1
) -> Subject:
    """Weights drawn by lot set to zero: what every other way of pruning has to beat.

    Parameters and steps are those of prune-magnitude.
    Source: Blalock et al., "What is the State of Neural Network Pruning?", arXiv:2003.03033.
    """
    return prune_by(score_at_random, subject, sparsity, finetune_epochs, steps)


@technique(
    "prune-gradient",
    realization="simulated",
    needs=(
        PLAIN_LAYERS,
        "training data",
    ),
    check=check_steps,
)
def prune_gradient(
    subject: Subject, sparsity: ShareBelowOne, finetune_epochs: Epochs = 0, steps: Count = 1
) -> Subject:
    """Weights set to zero that change the training loss least: by |w·∂L/∂w|.

    The first-order estimate of what a weight's absence does to the loss, its size summed over the
    batches of the train split. Parameters and steps are those of prune-magnitude.
    Source: Molchanov et al., "Pruning Convolutional Neural Networks", arXiv:1611.06440; Lee et
    al., "SNIP", arXiv:1810.02340.
    """
    return prune_by(score_by_gradient, subject, sparsity, finetune_epochs, steps)


@technique(
    "prune-l0",
    realization="simulated",
    needs=(
        PLAIN_LAYERS,
        "training data",
    ),
)
def prune_l0(
    subject: Subject, sparsity: ShareBelowOne, gate_epochs: Count = 5, finetune_epochs: Epochs = 0
) -> Subject:
    """Weights set to zero that learned gates leave shut: an L0 penalty made differentiable.

    Each weight is multiplied by a hard concrete gate z = min(1, max(0, 1.2·σ((ln u − ln(1 − u) +
    α) / β) − 0.1)); for `gate_epochs` weights and gates are trained on loss + 0.004·|Σ P(open) −
    n|, where n falls from all weights to a share of 1 − sparsity. Those of the least α are shut.
    Source: Louizos et al., "Learning Sparse Neural Networks through L0 Regularization",
    arXiv:1712.01312; target density: Wang et al., arXiv:1910.04732.
    """
    if subject.data is None or subject.recipe is None:
        raise Refusal(f"prune-l0 learns its gates, and this model has no {subject.lacks()}")
    gated = copy.deepcopy(subject.module)
    odds = train_gates(dataclasses.replace(subject, module=gated), 1 - sparsity, gate_epochs)
    return prune_by(
        lambda _, layers: odds, dataclasses.replace(subject, module=gated), sparsity,
        finetune_epochs, 1,
    )  # fmt: skip


def prune_by(
    score: Scorer, subject: Subject, sparsity: float, finetune_epochs: int, steps: int
) -> Subject:
    """Return the subject with exactly that share of its weights zero: those of the least score.

    `score(subject, layers)` gives a tensor for each layer, in its weight's shape.
    """
    module = copy.deepcopy(subject.module)
    layers: list[Any] = [layer for layer in module.modules() if isinstance(layer, STORABLE)]
    if not layers:
        raise Refusal("pruning sets weights of linear layers and convolutions; this model has none")
    pruned = dataclasses.replace(subject, module=module)
    weights = [(layer, "weight") for layer in layers]
    total, zero = sum(layer.weight.numel() for layer in layers), 0
    for step in range(1, steps + 1):
        wanted = round(sparsity * (1 - (1 - step / steps) ** 3) * total)
        scores = dict(zip(weights, score(pruned, layers), strict=True))
        prune.global_unstructured(
            weights, prune.L1Unstructured, importance_scores=scores, amount=wanted - zero
        )
        zero = wanted
        epochs = finetune_epochs * step // steps - finetune_epochs * (step - 1) // steps
        pruned = finetune(pruned, epochs)
    for layer, name in weights:
        prune.remove(layer, name)
    return pruned


def score_magnitude(_: Subject, layers: list[Any]) -> list[Tensor]:
    """Return |w| of each weight."""
    return [layer.weight.detach().abs() for layer in layers]


def score_at_random(_: Subject, layers: list[Any]) -> list[Tensor]:
    """Return a random number for each weight."""
    return [torch.rand_like(layer.weight) for layer in layers]


def score_by_gradient(subject: Subject, layers: list[Any]) -> list[Tensor]:
    """Return Σ |w·∂L/∂w| of each weight over the batches of the train split."""
    weights = [layer.weight_orig if prune.is_pruned(layer) else layer.weight for layer in layers]
    return [
        (weight * gradient).detach().abs()
        for weight, gradient in zip(weights, sum_gradients(subject, weights), strict=True)
    ]


def train_gates(subject: Subject, density: float, epochs: int) -> list[Tensor]:
    """Train the subject's weights behind gates in place; return each gate's α, layer by layer."""
    assert subject.data is not None and subject.recipe is not None
    layers: list[Any] = [m for m in subject.module.modules() if isinstance(m, STORABLE)]
    gates = [Gate(layer.weight) for layer in layers]
    for layer, gate in zip(layers, gates, strict=True):
        parametrize.register_parametrization(layer, "weight", gate)
    examples = subject.data.train
    recipe = dataclasses.replace(subject.recipe, epochs=epochs)
    steps = epochs * updates_per_epoch(subject)
    step = 0

    def count_step() -> None:
        nonlocal step
        step += 1

    def loss(outputs: Tensor, labels: Tensor) -> Tensor:
        wanted = 1 - (1 - density) * min(1.0, 1.5 * step / steps)  # the last third holds it
        opened = torch.cat([gate.open_chance().flatten() for gate in gates])
        surplus = (opened.sum() - wanted * len(opened)).abs()
        return task_loss(outputs, labels) + GATE_COST * surplus

    fit(subject.module, examples.inputs, (examples.labels,), loss, recipe, count_step)
    for layer in layers:
        parametrize.remove_parametrizations(layer, "weight", leave_parametrized=True)
    return [gate.odds.detach() - gate.odds.detach().min() for gate in gates]


class Gate(nn.Module):
    """A hard concrete gate for each weight: drawn in training, its median otherwise."""

    def __init__(self, weight: Tensor) -> None:
        super().__init__()
        self.place = nn.Parameter(torch.full_like(weight, GATE_START / GATE_SPEED))

    @property
    def odds(self) -> Tensor:
        """The logarithm of the odds that each gate is open."""
        return GATE_SPEED * self.place

    def forward(self, weight: Tensor) -> Tensor:
        """Return the weight behind its gate."""
        noise = torch.zeros_like(weight)
        if self.training:
            uniform = torch.rand_like(weight).clamp(1e-6, 1 - 1e-6)
            noise = uniform.logit()
        drawn = ((noise + self.odds) / GATE_TEMPERATURE).sigmoid()
        return weight * (drawn * (GATE_HIGH - GATE_LOW) + GATE_LOW).clamp(0, 1)

    def open_chance(self) -> Tensor:
        """Return for each weight how likely its gate is not shut."""
        shut = GATE_TEMPERATURE * torch.tensor(-GATE_LOW / GATE_HIGH).log()
        chance: Tensor = (self.odds - shut).sigmoid()
        return chance
