"""Input features removed: from the data and from the layer that reads them."""

from __future__ import annotations

import copy
import dataclasses

import torch
from torch import Tensor, nn

from bench.data.splits import Dataset, Split
from bench.errors import Refusal
from bench.registry import PLAIN_LAYERS, technique
from bench.subject import Subject, evaluating
from bench.techniques.parameters import Epochs, ShareBelowOne
from bench.training import finetune, scores


@technique(
    "prune-inputs",
    realization="executed",
    needs=(
        PLAIN_LAYERS,
        "training data",
    ),
)
def prune_inputs(subject: Subject, fraction: ShareBelowOne, finetune_epochs: Epochs = 3) -> Subject:
    """The least useful input features removed from the data and from the first layer.

    A feature's use is σ(x)·‖w‖₁: its spread over the train split times the weights that read it.
    The mean of what goes is folded into the bias. For models whose first layer is linear and reads
    all features. Source: Le Cun et al., "Optimal Brain Damage", NIPS 1989 (saliency); Guyon and
    Elisseeff, "An Introduction to Variable and Feature Selection", JMLR 2003.
    """
    assert subject.data is not None
    module = nn.Sequential(evaluating(copy.deepcopy(subject.module)))
    name = _first_layer(module, subject.inputs)
    if name is None:
        raise Refusal("prune-inputs needs a linear layer that reads all input features first")
    layer = module.get_submodule(name)
    assert isinstance(layer, nn.Linear)
    features = subject.data.train.inputs.flatten(1)
    use = features.std(0, correction=0) * layer.weight.detach().abs().sum(0)
    count = max(1, len(use) - round(fraction * len(use)))
    kept = use.topk(count).indices.sort().values
    means = features.mean(0)
    module.set_submodule(name, _read_fewer(layer, means, kept))
    inputs = (subject.inputs[0].flatten(1)[:, kept].contiguous(),)
    if not _answers_alike(module, inputs[0], subject, means, kept):
        raise Refusal("prune-inputs needs a model whose first layer alone reads its input")
    made = dataclasses.replace(
        subject, module=module[0], inputs=inputs, data=_select(subject.data, kept)
    )
    return finetune(made.with_note(f"reads {count} of {len(use)} features"), finetune_epochs)


def _answers_alike(
    pruned: nn.Module, few: Tensor, subject: Subject, means: Tensor, kept: Tensor
) -> bool:
    """Tell whether a model answers what the whole one does where what it lost is the mean."""
    whole = means.repeat(len(few), 1)
    whole[:, kept] = few
    wanted = scores(subject.module, whole.view_as(subject.inputs[0]))
    try:
        found = scores(pruned, few)
    except Exception:  # something else reads the input too, and misses what is gone
        return False
    size = float(wanted.abs().max()) if wanted.numel() else 0.0
    return found.shape == wanted.shape and torch.allclose(
        found, wanted, rtol=1e-3, atol=1e-3 * size, equal_nan=True
    )


def _first_layer(module: nn.Module, inputs: tuple[Tensor, ...]) -> str | None:
    """Name of the linear layer that reads the model's only input, flat, and nothing else does."""
    if len(inputs) != 1:
        return None
    reads: list[tuple[str, bool]] = []

    def note(name: str, part: nn.Module) -> None:
        def hook(_: nn.Module, given: tuple[Tensor, ...]) -> None:
            whole = torch.equal(given[0].flatten(1), flat) if given[0].dim() > 1 else False
            reads.append((name, whole and isinstance(part, nn.Linear) and given[0].dim() == 2))

        hooks.append(part.register_forward_pre_hook(hook))

    flat = inputs[0].flatten(1)
    hooks: list[torch.utils.hooks.RemovableHandle] = []
    for name, part in module.named_modules():
        if any(True for _ in part.parameters(recurse=False)):
            note(name, part)
    with torch.no_grad():
        module(*inputs)
    for hook in hooks:
        hook.remove()
    whole = [name for name, is_whole in reads if is_whole]
    return reads[0][0] if len(whole) == 1 and reads[0][1] else None


def _read_fewer(layer: nn.Linear, means: Tensor, kept: Tensor) -> nn.Linear:
    """The layer reading only some features; the others count as their mean."""
    weight = layer.weight.detach()
    gone = torch.ones(len(means), dtype=torch.bool)
    gone[kept] = False
    fewer = nn.Linear(len(kept), layer.out_features)
    with torch.no_grad():
        fewer.weight.copy_(weight[:, kept])
        fewer.bias.copy_(weight[:, gone] @ means[gone])
        if layer.bias is not None:
            fewer.bias.add_(layer.bias)
    return fewer


def _select(data: Dataset, kept: Tensor) -> Dataset:
    train, tune, test = (
        Split(split.inputs.flatten(1)[:, kept].contiguous(), split.labels)
        for split in (data.train, data.tune, data.test)
    )
    return dataclasses.replace(data, train=train, tune=tune, test=test)
