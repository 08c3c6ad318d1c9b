"""Structured pruning: channels and neurons really removed, by torch-pruning."""

from __future__ import annotations

import copy
import dataclasses
import warnings
from collections.abc import Callable
from functools import partial
from typing import Any, Literal

import torch
from torch import nn

from bench.errors import Refusal
from bench.registry import PLAIN_LAYERS, technique
from bench.storage import STORABLE
from bench.subject import Subject, evaluating
from bench.tasks import find_tensors, first_tensor
from bench.techniques.parameters import IF_TUNED, Epochs, ShareBelowOne
from bench.training import finetune, sum_gradients

Importance = Literal["l1", "random", "gradient", "batch-norm"]
NORMS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)
Kinds = tuple[type[nn.Module], ...]


@technique("prune-channels", realization="executed", needs=(PLAIN_LAYERS, *IF_TUNED))
def prune_channels(
    subject: Subject,
    fraction: ShareBelowOne,
    finetune_epochs: Epochs = 3,
    importance: Importance = "l1",
) -> Subject:
    """Channels and neurons removed for real, the least important first, then fine-tuned.

    In each layer the `fraction` (0..1) of output channels with the least `importance` goes, with
    all that depends on them; tensors become smaller. Layers that make the model's output are kept.
    l1: norm of the channel's weights; random: by lot; gradient: Σ |w·∂L/∂w| over the train split;
    batch-norm: |γ| of the batch norm behind it, where there is one.
    Source: Li et al., "Pruning Filters for Efficient ConvNets", arXiv:1608.08710; Molchanov et
    al., arXiv:1611.06440 (gradient); Liu et al., "Network Slimming", arXiv:1708.06519
    (batch-norm); dependencies by Fang et al., "DepGraph", arXiv:2301.12900 (torch-pruning).
    """
    pruned = remove_outputs(subject, fraction, importance, STORABLE)
    return finetune(pruned, finetune_epochs)


@technique("prune-neurons", realization="executed", needs=(PLAIN_LAYERS, *IF_TUNED))
def prune_neurons(
    subject: Subject,
    fraction: ShareBelowOne,
    finetune_epochs: Epochs = 3,
    importance: Importance = "l1",
) -> Subject:
    """Neurons of linear layers removed for real, the least important first, then fine-tuned.

    As prune-channels, with its importances; the outputs of convolutions are kept.
    Source: Srinivas and Babu, "Data-free Parameter Pruning for Deep Neural Networks",
    arXiv:1507.06149.
    """
    if not any(isinstance(part, nn.Linear) for part in _parts(subject)):
        raise Refusal("prune-neurons removes outputs of linear layers, and this model has none")
    pruned = remove_outputs(subject, fraction, importance, (nn.Linear,))
    return finetune(pruned, finetune_epochs)


def remove_outputs(
    subject: Subject, fraction: float, importance: Importance, kinds: Kinds
) -> Subject:
    """Return the subject without that share of the outputs of each layer of these kinds.

    Raises Refusal where nothing can be removed without changing the shape of the model's output.
    """
    if importance == "batch-norm" and not any(isinstance(m, NORMS) for m in _parts(subject)):
        raise Refusal("importance 'batch-norm' needs a batch norm, and this model has none")
    module = evaluating(copy.deepcopy(subject.module))
    remove = partial(_try_remove, subject=subject, fraction=fraction, importance=importance)
    before = sum(parameter.numel() for parameter in module.parameters())
    others = {
        name
        for name, layer in module.named_modules()
        if isinstance(layer, STORABLE) and not isinstance(layer, kinds)
    }
    fixed = others | _output_layers(module, subject)
    pruned = remove(module, fixed=fixed)
    if pruned is None:
        fixed |= _layers_that_resist(module, fixed, remove)
        pruned = remove(module, fixed=fixed)
    if pruned is None or sum(parameter.numel() for parameter in pruned.parameters()) == before:
        raise Refusal("found nothing that can be removed without changing the model's output")
    return dataclasses.replace(subject, module=pruned)


def _parts(subject: Subject) -> list[nn.Module]:
    return list(subject.module.modules())


def _output_shape(module: nn.Module, subject: Subject) -> Any:
    with torch.no_grad():
        return first_tensor(module(*(value[:2] for value in subject.inputs))).shape


def _list_tensors(outputs: Any) -> list[torch.Tensor]:
    return list(find_tensors(outputs))


def _output_layers(module: nn.Module, subject: Subject) -> set[str]:
    """Names of layers from which the output is reached without passing another weight layer."""
    import torch_pruning

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of parameters outside a layer, which are handled
        graph = torch_pruning.DependencyGraph().build_dependency(
            module, _trace_inputs(subject), output_transform=_list_tensors
        )
    weighted = {layer for layer in module.modules() if isinstance(layer, STORABLE)}
    names = {layer: name for name, layer in module.named_modules()}

    def reaches_output(node: Any, seen: set[int]) -> bool:
        if not node.outputs:
            return True
        seen.add(id(node))
        following = [after for after in node.outputs if id(after) not in seen]
        return any(
            reaches_output(after, seen) for after in following if after.module not in weighted
        )

    return {
        names[layer]
        for layer in weighted
        if layer in graph.module2node and reaches_output(graph.module2node[layer], set())
    }


def _layers_that_resist(
    module: nn.Module, fixed: set[str], remove: Callable[..., nn.Module | None]
) -> set[str]:
    """Names of layers that cannot be pruned alone: found by trying, on copies."""
    candidates = {
        name for name, layer in module.named_modules() if isinstance(layer, STORABLE)
    } - fixed
    return {
        name for name in candidates if remove(module, fixed=fixed | (candidates - {name})) is None
    }


def _try_remove(
    module: nn.Module, fixed: set[str], *, subject: Subject, fraction: float, importance: Importance
) -> nn.Module | None:
    """Return a pruned copy, or None if pruning breaks it or changes the output's shape."""
    import torch_pruning

    pruned = copy.deepcopy(module)
    ignored = [layer for name, layer in pruned.named_modules() if name in fixed]
    if importance == "gradient":
        _set_gradients(dataclasses.replace(subject, module=pruned))
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            torch_pruning.pruner.BasePruner(
                pruned,
                _trace_inputs(subject),
                importance=_make_importance(importance),
                pruning_ratio=fraction,
                ignored_layers=ignored,
                output_transform=_list_tensors,
                root_module_types=list(STORABLE),
            ).step()
        pruned.zero_grad(set_to_none=True)
        return pruned if _output_shape(pruned, subject) == _output_shape(module, subject) else None
    except Exception:  # torch-pruning fails in many ways on graphs that it cannot follow
        return None


def _make_importance(importance: Importance) -> Any:
    from torch_pruning import importance as measures

    if importance == "random":
        return measures.RandomImportance()
    if importance == "gradient":
        return measures.GroupTaylorImportance()
    if importance == "batch-norm":
        return measures.BNScaleImportance()
    return measures.GroupMagnitudeImportance(p=1)


def _set_gradients(subject: Subject) -> None:
    """Give each parameter, as its gradient, the sum of the sizes that its gradient takes."""
    parameters = [p for p in subject.module.parameters() if p.requires_grad]
    for parameter, size in zip(parameters, sum_gradients(subject, parameters), strict=True):
        parameter.grad = size


def _trace_inputs(subject: Subject) -> Any:
    inputs = tuple(value[:2] for value in subject.inputs)
    return inputs[0] if len(inputs) == 1 else inputs
