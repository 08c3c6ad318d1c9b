"""Low rank: a layer as the product of two thinner ones."""

from __future__ import annotations

import dataclasses
from typing import Any

import torch
from torch import Tensor, nn

from bench.errors import Refusal
from bench.registry import PLAIN_LAYERS, technique
from bench.storage import replace_layers
from bench.subject import Subject, evaluating
from bench.techniques.parameters import IF_TUNED, Count, Epochs, Share
from bench.training import finetune


@technique("low-rank", realization="executed", needs=(PLAIN_LAYERS, *IF_TUNED))
def low_rank(
    subject: Subject,
    energy: Share = 0.9,
    rank: Count | None = None,
    finetune_epochs: Epochs = 0,
) -> Subject:
    """Linear layers and convolutions split in two by SVD, where that takes fewer weights.

    W ≈ (U·√S)(√S·Vᵀ) with the least rank that keeps the share `energy` of Σ s², or with `rank`. A
    convolution becomes one with so many output channels and a 1×1 convolution behind it.
    Source: Zhang et al., "Accelerating Very Deep Convolutional Networks for Classification and
    Detection", arXiv:1505.06798; Denton et al., arXiv:1404.0736.
    """
    split = 0

    def replace(layer: Any) -> nn.Module:
        nonlocal split
        made = split_layer(layer, energy, rank)
        split += made is not layer
        return made

    module = evaluating(replace_layers(subject.module, replace))
    if not split:
        raise Refusal("low-rank found no layer that becomes smaller when it is split in two")
    return finetune(dataclasses.replace(subject, module=module), finetune_epochs)


def split_layer(layer: nn.Module, energy: float, rank: int | None) -> nn.Module:
    """Return the layer as two, or as it is where two would not be smaller."""
    one: Any = layer
    if isinstance(layer, nn.Linear):
        rows = layer.weight.detach()
    elif one.groups == 1:
        rows = one.weight.detach().flatten(1)
    else:
        return layer
    left, values, right = torch.linalg.svd(rows, full_matrices=False)
    kept = min(rank, len(values)) if rank else _least_rank(values, energy)
    if kept * sum(rows.shape) >= rows.numel():
        return layer
    root = values[:kept].sqrt()
    first, second = _make_pair(layer, kept)
    with torch.no_grad():
        first.weight.copy_((root[:, None] * right[:kept]).view_as(first.weight))
        second.weight.copy_((left[:, :kept] * root).view_as(second.weight))
        if one.bias is not None:
            second.bias.copy_(one.bias)
    return nn.Sequential(first, second)


def _least_rank(values: Tensor, energy: float) -> int:
    kept = values.square().cumsum(0)
    return min(len(values), int((kept < energy * kept[-1]).sum()) + 1)


def _make_pair(layer: Any, rank: int) -> tuple[Any, Any]:
    bias = layer.bias is not None
    if isinstance(layer, nn.Linear):
        return (
            nn.Linear(layer.in_features, rank, bias=False),
            nn.Linear(rank, layer.out_features, bias),
        )
    make = type(layer)
    spatial = make(
        layer.in_channels, rank, layer.kernel_size, layer.stride, layer.padding, layer.dilation,
        bias=False, padding_mode=layer.padding_mode,
    )  # fmt: skip
    return spatial, make(rank, layer.out_channels, 1, bias=bias)
