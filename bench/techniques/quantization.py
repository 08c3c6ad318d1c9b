"""Quantization of weights: fewer bits in storage, the same kernels when it runs."""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Callable
from functools import partial
from typing import Annotated, Literal

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from bench.errors import Refusal
from bench.registry import PLAIN_LAYERS, technique
from bench.spec import Range
from bench.storage import Code, StoredLayer, find_layers, replace_layers
from bench.subject import Subject, evaluating
from bench.techniques.codes import AffineCode, BinaryCode, PowerOfTwoCode, SymmetricCode
from bench.techniques.parameters import IF_TUNED, Epochs, Share
from bench.training import finetune, tune_accuracy

Bits = Annotated[int, Range(1, 8)]
SignedBits = Annotated[int, Range(2, 8)]
GroupSize = Annotated[int, Range(2)]
ERROR_LIMITS = (0.5, 0.4, 0.3, 0.2, 0.15, 0.1, 0.07, 0.05, 0.03, 0.02, 0.01, 0.005)
"""Relative errors of a layer's weight that `affine('auto')` tries, the largest first."""


@technique(
    "affine",
    stage="execution",
    realization="packed",
    needs=(
        PLAIN_LAYERS,
        "tune split for max_loss",
    ),
)
def affine(
    subject: Subject,
    bits: Bits | Literal["auto"],
    max_error: Share = 0.1,
    max_loss: Share | None = None,
) -> Subject:
    """Weights of linear layers and convolutions in 1 to 8 bits, min to max of each layer.

    q = round((w − min) / (max − min) · (2^bits − 1)), stored in that many bits and unpacked for
    every call. `auto` takes for each layer the fewest bits with ‖w − ŵ‖ ≤ max_error · ‖w‖; with
    `max_loss`, the largest error at which the accuracy on the tune split falls by no more.
    Source: Jacob et al., "Quantization and Training of Neural Networks for Efficient
    Integer-Arithmetic-Only Inference", arXiv:1712.05877.
    """
    if bits != "auto":
        return store(subject, "affine", partial(per_tensor, bits=bits))
    if max_loss is None:
        return store(subject, "affine", partial(fewest_bits, max_error=max_error))
    if subject.data is None:
        raise Refusal("affine: max_loss is of the accuracy on the tune split; there is no data")
    least = tune_accuracy(subject) - max_loss
    for limit in ERROR_LIMITS:
        stored = store(subject, "affine", partial(fewest_bits, max_error=limit))
        if tune_accuracy(stored) >= least:
            return stored.with_note(f"bits chosen for a relative error of {limit:g} in each layer")
    raise Refusal(f"affine: even 8 bits lose more than {max_loss:g} accuracy on the tune split")


@technique("power-of-two", stage="execution", realization="packed", needs=(PLAIN_LAYERS,))
def power_of_two(subject: Subject, bits: SignedBits = 8) -> Subject:
    """Weights as whole numbers of 2 to 8 bits times a power of two for each layer.

    w ≈ 2^e · q with the least e at which max|w| / 2^e fits: a shift instead of a multiplication on
    hardware that has one. Here the weights are stored so and unpacked for every call.
    Source: Gysel et al., "Hardware-oriented Approximation of Convolutional Neural Networks",
    arXiv:1604.03168 (dynamic fixed point).
    """
    return store(subject, "power-of-two", partial(PowerOfTwoCode, bits=bits))


@technique("int8-weight-only", stage="execution", realization="packed", needs=(PLAIN_LAYERS,))
def int8_weight_only(subject: Subject) -> Subject:
    """Weights in int8 with one scale for each output channel; activations stay in 32 bits.

    w ≈ s·q with q in −127..127 and s = max|w| / 127 of the channel, unpacked for every call.
    Source: Krishnamoorthi, "Quantizing deep convolutional networks", arXiv:1806.08342.
    """
    return store(subject, "int8-weight-only", partial(per_channel, bits=8))


@technique("int4-weight-only", stage="execution", realization="packed", needs=(PLAIN_LAYERS,))
def int4_weight_only(subject: Subject, group: GroupSize = 32) -> Subject:
    """Weights in 4 bits, min to max of each `group` of consecutive weights.

    w ≈ min + s·q with q in 0..15 and s = (max − min) / 15 of the group, both in bfloat16, unpacked
    for every call. Source: Shen et al., "Q-BERT", arXiv:1909.05840 (groups); Dettmers and
    Zettlemoyer, "The case for 4-bit precision", arXiv:2212.09720.
    """
    code = partial(AffineCode, bits=4, row_length=group, bounds=torch.bfloat16)
    return store(subject, "int4-weight-only", code)


@technique("binary", stage="execution", realization="packed", needs=(PLAIN_LAYERS, *IF_TUNED))
def binary(subject: Subject, finetune_epochs: Epochs = 0) -> Subject:
    """Weights of +α or −α: one bit each, with α the mean of |w| of the output channel.

    With `finetune_epochs` the weights behind the signs are trained on, the gradient passed straight
    through the sign. Source: Rastegari et al., "XNOR-Net", arXiv:1603.05279 (binary weights);
    Courbariaux et al., "BinaryConnect", arXiv:1511.00363.
    """
    trained = train_through(subject, BinaryCode, finetune_epochs)
    return store(trained, "binary", BinaryCode)


@technique(
    "qat",
    stage="execution",
    realization="packed",
    needs=(
        PLAIN_LAYERS,
        "training data",
    ),
)
def qat(subject: Subject, bits: SignedBits = 4, finetune_epochs: Epochs = 3) -> Subject:
    """Weights of 2 to 8 bits, one scale for each output channel, trained while they are quantized.

    The forward pass sees s·round(w/s), the gradient passes straight through to w. Activations stay
    in 32 bits. Source: Jacob et al., arXiv:1712.05877; Bengio et al., "Estimating or Propagating
    Gradients Through Stochastic Neurons", arXiv:1308.3432.
    """
    trained = train_through(subject, partial(per_channel, bits=bits), finetune_epochs)
    return store(trained, "qat", partial(per_channel, bits=bits))


def store(subject: Subject, name: str, make_code: Callable[[Tensor], Code]) -> Subject:
    """Return the subject with the weights of its linear layers and convolutions held by codes."""
    if not find_layers(subject.module):
        raise Refusal(f"{name} stores linear layers and convolutions; this model has none")
    module = replace_layers(
        subject.module, lambda layer: StoredLayer(layer, make_code(layer.weight))
    )
    return dataclasses.replace(subject, module=evaluating(module))


def train_through(subject: Subject, make_code: Callable[[Tensor], Code], epochs: int) -> Subject:
    """Return the subject fine-tuned with coded weights; its weights are those behind the codes."""
    if epochs == 0:
        return subject
    module = copy.deepcopy(subject.module)
    layers = find_layers(module)
    for layer in layers:
        parametrize.register_parametrization(layer, "weight", StraightThrough(make_code))
    trained = finetune(dataclasses.replace(subject, module=module), epochs)
    for layer in layers:
        parametrize.remove_parametrizations(layer, "weight", leave_parametrized=False)
    return trained


class StraightThrough(nn.Module):
    """Makes a weight pass through its code and back; the gradient does not notice."""

    def __init__(self, make_code: Callable[[Tensor], Code]) -> None:
        super().__init__()
        self._make_code = make_code

    def forward(self, weight: Tensor) -> Tensor:
        """Return the coded weight; its gradient is the weight's own."""
        with torch.no_grad():
            change: Tensor = self._make_code(weight)() - weight
        return weight + change


def per_tensor(weight: Tensor, bits: int) -> AffineCode:
    """Return the code of so many bits with one range for the whole weight."""
    return AffineCode(weight, bits, weight.numel())


def per_channel(weight: Tensor, bits: int) -> SymmetricCode:
    """Return the code of so many bits with one scale for each output channel."""
    return SymmetricCode(weight, bits, weight[0].numel())


def fewest_bits(weight: Tensor, max_error: float) -> AffineCode:
    """Return the code of the fewest bits whose relative error is small enough; 8 at most."""
    norm = torch.linalg.vector_norm
    codes = (per_tensor(weight, bits) for bits in range(1, 8))
    fitting = (code for code in codes if norm(code() - weight) <= max_error * norm(weight))
    return next(fitting, None) or per_tensor(weight, 8)
