"""Weights stored in few bits: layers that keep codes and make their weight anew for every call."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from bench.errors import Refusal

CONVOLUTIONS = (nn.Conv1d, nn.Conv2d, nn.Conv3d)
STORABLE = (*CONVOLUTIONS, nn.Linear)
"""Layers whose weights techniques prune, share or store otherwise."""
MOST_NAMED = 3


def pack_bits(codes: Tensor, bits: int) -> Tensor:
    """Return whole numbers 0 … 2^bits − 1 as a row of bytes, `bits` (1 … 8) each, without gaps."""
    flat = codes.flatten().to(torch.uint8)
    if bits == 8:
        return flat
    # Eight numbers are so many bytes: they meet in a word of 64 bits.
    eights = nn.functional.pad(flat, (0, -len(flat) % 8)).view(-1, 8).long()
    words = (eights << bits * torch.arange(8)).sum(1)
    packed = (words[:, None] >> 8 * torch.arange(bits)) & 255
    return packed.to(torch.uint8).flatten()[: -(-len(flat) * bits // 8)].clone()


def unpack_bits(packed: Tensor, bits: int, count: int) -> Tensor:
    """Return the first `count` numbers that `pack_bits` has packed."""
    if bits == 8:
        return packed[:count]
    places = torch.arange(8, device=packed.device)
    padded = nn.functional.pad(packed, (0, -len(packed) % bits)).view(-1, bits).long()
    words = (padded << 8 * places[:bits]).sum(1)
    codes: Tensor = (words[:, None] >> bits * places) & (2**bits - 1)
    return codes.flatten()[:count]


class Code(nn.Module):
    """A weight in another form, held in buffers; `forward()` gives it back in 32 bits."""

    def forward(self) -> Tensor:
        """Return the weight."""
        raise NotImplementedError


class StoredLayer(nn.Module):
    """A linear layer or convolution whose weight is held by a code: smaller, not faster."""

    def __init__(self, layer: nn.Module, code: Code) -> None:
        super().__init__()
        self.layer = copy.deepcopy(layer)
        self.layer.register_parameter("weight", None)
        self.code = code

    def forward(self, inputs: Tensor) -> Tensor:
        """Return the layer's outputs, with the weight made anew."""
        layer: Any = self.layer
        if isinstance(layer, nn.Linear):
            return nn.functional.linear(inputs, self.code(), layer.bias)
        outputs: Tensor = layer._conv_forward(inputs, self.code(), layer.bias)
        return outputs

    def decode_weight(self) -> Tensor:
        """Return the weight as the layer uses it: what counts as its parameters."""
        with torch.no_grad():
            weight: Tensor = self.code()
        return weight


def require_plain_layers(module: nn.Module, name: str, linear: bool) -> None:
    """Raise Refusal where the weight of some layer is no parameter: something makes it anew.

    What a technique would do to such a weight is undone in the next call, or it finds none. linear:
    it takes no others than linear layers.
    """
    kinds = nn.Linear if linear else STORABLE
    named = [(path, part) for path, part in module.named_modules() if isinstance(part, kinds)]
    made = [path or type(part).__name__ for path, part in named if "weight" not in part._parameters]
    if made:
        some = ", ".join(made[:MOST_NAMED]) + (", ..." if len(made) > MOST_NAMED else "")
        raise Refusal(
            f"{name} changes weights that are parameters, and those of {some} are none: a mask or "
            "parametrization makes them anew for every call. Make them plain in the model's "
            "function: prune.remove, remove_weight_norm or parametrize.remove_parametrizations of "
            "torch.nn.utils"
        )
    other = [part for _, part in named if isinstance(part.weight, Tensor)]
    if any(part.weight.layout is not torch.strided for part in other):
        raise Refusal(f"{name} changes dense weights, and those of this model are stored sparsely")


def find_layers(module: nn.Module) -> list[nn.Module]:
    """Return the layers whose weights can be stored otherwise; no subclasses of them.

    A subclass may use its weight in a way of its own, as nn.MultiheadAttention's output does.
    """
    return [layer for layer in module.modules() if type(layer) in STORABLE]


def replace_layers(module: nn.Module, make: Callable[[Any], nn.Module]) -> nn.Module:
    """Return a copy of a module with `make(layer)` in the place of each storable layer.

    A layer that is used in several places is replaced by one and the same in all of them.
    """
    whole = nn.Sequential(copy.deepcopy(module))  # the module itself may be a linear layer
    put_layers(whole, {layer: make(layer) for layer in find_layers(whole)})
    return whole[0]


def put_layers(whole: nn.Module, made: Mapping[nn.Module, nn.Module]) -> None:
    """Put what is made of layers in their places, in all places of each, in place."""
    for parent in list(whole.modules()):
        # Not `named_children`: it names a layer that has two places in one parent once.
        for name, child in list(parent._modules.items()):
            if child is not None and child in made:
                setattr(parent, name, made[child])
