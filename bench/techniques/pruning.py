"""Pruning: weights set to zero, and channels really removed."""

from __future__ import annotations

import copy
import dataclasses
import warnings
from typing import Annotated, Any

import torch
from torch import nn
from torch.nn.utils import prune

from bench.errors import Refusal
from bench.registry import technique
from bench.spec import Range
from bench.storage import STORABLE as PRUNABLE
from bench.subject import Subject
from bench.training import finetune

Share = Annotated[float, Range(0, 1, below=True)]
Epochs = Annotated[int, Range(0)]


@technique("prune-magnitude", realization="simulated")
def prune_magnitude(subject: Subject, sparsity: Share, finetune_epochs: Epochs = 0) -> Subject:
    """The smallest weights of the whole model set to zero; the kernels stay dense.

    Zero are the `sparsity` share (0..1) of all weights of linear layers and convolutions with the
    smallest |w|. With `finetune_epochs` the others are trained on, the zeros kept.
    Source: Han et al., "Learning both Weights and Connections", arXiv:1506.02626.
    """
    module = copy.deepcopy(subject.module)
    weights = [(layer, "weight") for layer in module.modules() if isinstance(layer, PRUNABLE)]
    if not weights:
        raise Refusal("prune-magnitude prunes linear layers and convolutions; this model has none")
    prune.global_unstructured(weights, prune.L1Unstructured, amount=float(sparsity))
    subject = finetune(dataclasses.replace(subject, module=module), finetune_epochs)
    for layer, name in weights:
        prune.remove(layer, name)
    return subject


@technique("prune-channels", realization="executed")
def prune_channels(subject: Subject, fraction: Share, finetune_epochs: Epochs = 3) -> Subject:
    """Channels and neurons removed for real, by L1 norm of their group, then fine-tuned.

    In each layer the `fraction` (0..1) of output channels with the smallest L1 norm goes, with all
    that depends on them; tensors become smaller. Layers that make the model's output are kept.
    Source: Li et al., "Pruning Filters for Efficient ConvNets", arXiv:1608.08710; dependencies by
    Fang et al., "DepGraph", arXiv:2301.12900 (torch-pruning).
    """
    module = copy.deepcopy(subject.module).eval()
    before = sum(parameter.numel() for parameter in module.parameters())
    shape = _output_shape(module, subject)
    fixed = _output_layers(module, subject)
    pruned = _try_prune(module, subject, fraction, fixed, shape)
    if pruned is None:
        fixed |= _layers_that_resist(module, subject, fraction, fixed, shape)
        pruned = _try_prune(module, subject, fraction, fixed, shape)
    if pruned is None or sum(parameter.numel() for parameter in pruned.parameters()) == before:
        raise Refusal(
            "prune-channels found no channels that can be removed without changing the output"
        )
    return finetune(dataclasses.replace(subject, module=pruned), finetune_epochs)


def _output_shape(module: nn.Module, subject: Subject) -> Any:
    with torch.no_grad():
        outputs = module(*(value[:2] for value in subject.inputs))
    return outputs.shape if isinstance(outputs, torch.Tensor) else None


def _output_layers(module: nn.Module, subject: Subject) -> set[str]:
    """Names of layers from which the output is reached without passing another weight layer."""
    import torch_pruning

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of parameters outside a layer, which are handled
        graph = torch_pruning.DependencyGraph().build_dependency(module, _trace_inputs(subject))
    weighted = {layer for layer in module.modules() if isinstance(layer, PRUNABLE)}
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
    module: nn.Module, subject: Subject, fraction: float, fixed: set[str], shape: Any
) -> set[str]:
    """Names of layers that cannot be pruned alone: found by trying, on copies."""
    candidates = {
        name for name, layer in module.named_modules() if isinstance(layer, PRUNABLE)
    } - fixed
    return {
        name
        for name in candidates
        if _try_prune(module, subject, fraction, fixed | (candidates - {name}), shape) is None
    }


def _try_prune(
    module: nn.Module, subject: Subject, fraction: float, fixed: set[str], shape: Any
) -> nn.Module | None:
    """Return a pruned copy, or None if pruning breaks it or changes the output's shape."""
    import torch_pruning

    pruned = copy.deepcopy(module)
    ignored = [layer for name, layer in pruned.named_modules() if name in fixed]
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            torch_pruning.pruner.MagnitudePruner(
                pruned,
                _trace_inputs(subject),
                importance=torch_pruning.importance.GroupMagnitudeImportance(p=1),
                pruning_ratio=fraction,
                ignored_layers=ignored,
                root_module_types=list(PRUNABLE),
            ).step()
        return pruned if _output_shape(pruned, subject) == shape else None
    except Exception:  # torch-pruning fails in many ways on graphs that it cannot follow
        return None


def _trace_inputs(subject: Subject) -> Any:
    inputs = tuple(value[:2] for value in subject.inputs)
    return inputs[0] if len(inputs) == 1 else inputs
