"""Tensor cores: number formats and a sparsity that only NVIDIA cards multiply."""

from __future__ import annotations

import copy
import dataclasses
import warnings
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from bench.errors import Refusal
from bench.registry import PLAIN_LINEAR, technique
from bench.storage import find_layers, pack_bits, replace_layers, unpack_bits
from bench.subject import Subject
from bench.techniques.precision import CastModule
from bench.techniques.sparse import keep_two_of_four

FP8 = torch.float8_e4m3fn
FP8_LARGEST = torch.finfo(FP8).max
MULTIPLE = 16
"""Sizes of fp8 products (cuBLAS) and of sparse ones (cuSPARSELt) must be multiples of it."""
Move = Callable[[Tensor], Tensor]


@technique("tf32", stage="execution", realization="executed", devices=("cuda",))
def tf32(subject: Subject) -> Subject:
    """Products of 32-bit numbers by tensor cores, which read 10 of the 23 bits of a mantissa.

    Weights, activations and sums stay in 32 bits. PyTorch allows this in convolutions by default:
    only other products become faster. Needs compute capability 8.0.
    Source: NVIDIA, "A100 Tensor Core GPU Architecture", 2020; PyTorch, `fp32_precision`.
    """
    return dataclasses.replace(subject, module=Tf32Module(subject.module).eval())


def check_fp8(subject: Subject) -> None:
    """Raise Refusal where no linear layer has a shape that products in fp8 take."""
    _require_multiples(subject, "fp8")


@technique(
    "fp8",
    stage="execution",
    realization="executed",
    needs=(PLAIN_LINEAR,),
    devices=("cuda",),
    check=check_fp8,
)
def fp8(subject: Subject) -> Subject:
    """Linear layers with weights and activations in 8-bit floats (e4m3); all else in bfloat16.

    y = s_x·s_w·(q_x·q_wᵀ) + b with s = max|·| / 448 per tensor, for activations at each call.
    Layers whose sizes are no multiples of 16 stay in bfloat16; the interface stays in 32 bits.
    Needs compute capability 8.9.
    Source: Micikevicius et al., "FP8 Formats for Deep Learning", arXiv:2209.05433.
    """
    inner = replace_layers(
        subject.module, lambda layer: Fp8Linear(layer) if _has_multiples(layer) else layer
    )
    return dataclasses.replace(subject, module=CastModule(inner, torch.bfloat16).eval())


def check_sparse_2_4(subject: Subject) -> None:
    """Raise Refusal where no linear layer has a shape that sparse products take."""
    _require_multiples(subject, "sparse-2-4")


@technique(
    "sparse-2-4", stage="execution", realization="executed", devices=("cuda",),
    needs=(PLAIN_LINEAR,), check=check_sparse_2_4,
)  # fmt: skip
def sparse_2_4(subject: Subject) -> Subject:
    """Linear layers keep the two largest of each four weights and skip the others; all in fp16.

    Stored are the kept weights and their places, 2 bits each; sparse tensor cores multiply them.
    Layers whose sizes are no multiples of 16 stay dense. Follows prune-2-4, which fine-tunes.
    Needs compute capability 8.0 and cuSPARSELt.
    Source: Mishra et al., "Accelerating Sparse Deep Neural Networks", arXiv:2104.08378.
    """
    inner = replace_layers(
        subject.module, lambda layer: TwoOfFourLinear(layer) if _has_multiples(layer) else layer
    )
    return dataclasses.replace(subject, module=CastModule(inner, torch.float16).eval())


def _has_multiples(layer: Any) -> bool:
    """Whether a layer is linear and both of its sizes fit the kernels."""
    return type(layer) is nn.Linear and not any(size % MULTIPLE for size in layer.weight.shape)


def _require_multiples(subject: Subject, name: str) -> None:
    if not any(_has_multiples(layer) for layer in find_layers(subject.module)):
        raise Refusal(
            f"{name} needs a linear layer whose sizes are multiples of {MULTIPLE}, "
            "and this model has none"
        )


def require_card(device: torch.device, capability: tuple[int, int], name: str) -> None:
    """Raise Refusal where a device is a card that has no such tensor cores."""
    if device.type == "cuda" and (found := torch.cuda.get_device_capability(device)) < capability:
        wanted, has = (".".join(map(str, version)) for version in (capability, found))
        card = torch.cuda.get_device_name(device)
        raise Refusal(f"{name} needs compute capability {wanted}; {card} has {has}")


def _target(move: Move) -> torch.device:
    """The device to which a module is being moved."""
    return move(torch.empty(0)).device


class Tf32Module(nn.Module):
    """A module whose products on a card may read their factors in TF32 while it runs."""

    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self.module = copy.deepcopy(module)

    def forward(self, *inputs: Tensor) -> Any:
        """Return the module's outputs; the settings are afterwards what they were."""
        cudnn: Any = torch.backends.cudnn  # torch declares no types for its members
        # Not `allow_tf32`, the older name: it raises once anybody has used this one.
        places: list[Any] = [torch.backends.cuda.matmul, cudnn.conv, cudnn.rnn]
        before = [place.fp32_precision for place in places]
        try:
            for place in places:
                place.fp32_precision = "tf32"
            return self.module(*inputs)
        finally:
            for place, precision in zip(places, before, strict=True):
                place.fp32_precision = precision

    def _apply(self, move: Move, recurse: bool = True) -> Tf32Module:
        require_card(_target(move), (8, 0), "tf32")
        super()._apply(move, recurse)  # type: ignore[no-untyped-call]  # torch leaves it untyped
        return self


class Fp8Linear(nn.Module):
    """A linear layer with weights in fp8; takes and returns bfloat16."""

    def __init__(self, layer: nn.Linear) -> None:
        super().__init__()
        self.bias = copy.deepcopy(layer.bias)
        self.codes: Tensor
        self.scale: Tensor
        codes, scale = to_fp8(layer.weight.detach().float())
        self.register_buffer("codes", codes)
        self.register_buffer("scale", scale)

    def forward(self, inputs: Tensor) -> Tensor:
        """Return the layer's outputs."""
        codes, scale = to_fp8(inputs.reshape(-1, inputs.shape[-1]))
        # Not torch.nn.functional.scaled_mm: flop counters do not know what it calls.
        outputs: Tensor = torch._scaled_mm(
            codes, self.codes.t(), scale_a=scale, scale_b=self.scale, bias=self.bias,
            out_dtype=inputs.dtype,
        )  # fmt: skip
        return outputs.reshape(*inputs.shape[:-1], outputs.shape[-1])

    def decode_weight(self) -> Tensor:
        """Return the weight in 32 bits: what counts as its parameters."""
        return self.codes.float() * self.scale

    def _apply(self, move: Move, recurse: bool = True) -> Fp8Linear:
        device, kept = _target(move), (self.codes, self.scale)
        require_card(device, (8, 9), "fp8")

        def move_or_cast(tensor: Tensor) -> Tensor:
            own = any(tensor is one for one in kept)  # whose types are what the kernels take
            return tensor.to(device) if own else move(tensor)

        super()._apply(move_or_cast, recurse)  # type: ignore[no-untyped-call]  # torch leaves it untyped
        return self


def to_fp8(values: Tensor) -> tuple[Tensor, Tensor]:
    """Return q and s of values ≈ s·q, with s = max|values| / 448 in 32 bits."""
    scale = values.abs().amax().float() / FP8_LARGEST
    scale = scale.clamp(min=torch.finfo(torch.float32).tiny)
    return (values / scale).to(FP8), scale


class TwoOfFourLinear(nn.Module):
    """A linear layer that holds two of each four weights, and their places in 2 bits each.

    On a card they are turned into the form that its sparse tensor cores read; on the host the
    weight is made anew, with its zeros, for every call.
    """

    def __init__(self, layer: nn.Linear) -> None:
        super().__init__()
        self.shape = layer.weight.shape
        self.bias = copy.deepcopy(layer.bias)
        kept = keep_two_of_four(layer.weight.detach()).bool()  # before they are rounded
        self.values: Tensor
        self.places: Tensor
        self.register_buffer("values", layer.weight.detach()[kept].half())
        self.register_buffer("places", pack_bits(kept.view(-1, 4).nonzero()[:, 1], 2))
        self.sparse: Tensor | None = None

    def forward(self, inputs: Tensor) -> Tensor:
        """Return the layer's outputs."""
        if not inputs.is_cuda:
            return nn.functional.linear(inputs, self.decode_weight(), self.bias)
        if self.sparse is None:  # a copy of a layer that is on a card
            self.sparse = self._sparse_on(inputs.device)
        return nn.functional.linear(inputs.contiguous(), self.sparse, self.bias)

    def decode_weight(self) -> Tensor:
        """Return the weight with its zeros: what counts as its parameters."""
        places = unpack_bits(self.places, 2, self.values.numel()).long().view(-1, 2)
        fours = torch.zeros(len(places), 4, dtype=self.values.dtype, device=self.values.device)
        return fours.scatter_(1, places, self.values.view(-1, 2)).view(self.shape)

    def _apply(self, move: Move, recurse: bool = True) -> TwoOfFourLinear:
        device, kept = _target(move), (self.values, self.places)
        require_card(device, (8, 0), "sparse-2-4")

        def leave_or_move(tensor: Tensor) -> Tensor:
            own = any(tensor is one for one in kept)  # stay on the host: the card holds `sparse`
            return tensor if own else move(tensor)

        super()._apply(leave_or_move, recurse)  # type: ignore[no-untyped-call]  # torch leaves it untyped
        self.sparse = self._sparse_on(device) if device.type == "cuda" else None
        return self

    def _sparse_on(self, device: torch.device) -> Tensor:
        if not torch.backends.cusparselt.is_available():
            raise Refusal("sparse-2-4 needs cuSPARSELt, which this build of torch lacks")
        with warnings.catch_warnings(), torch.inference_mode(False):
            warnings.simplefilter("ignore")  # that the interface is a prototype
            sparse: Tensor = torch.sparse.to_sparse_semi_structured(
                self.decode_weight().to(device, torch.float16)
            )
        return sparse

    def __getstate__(self) -> dict[str, Any]:
        return {**vars(self), "sparse": None}
