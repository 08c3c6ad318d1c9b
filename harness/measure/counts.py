"""Counting: parameters, zeros, bytes and multiply-accumulates."""

from __future__ import annotations

import contextlib
import io
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import FlopCounterMode, flop_registry

FREE = {"empty", "empty_strided", "detach", "alias", "lift_fresh", "_unsafe_view", "clone"}
"""Operators that compute nothing and so are not worth naming as uncounted."""


def count_weights(module: nn.Module) -> dict[str, float]:
    """Return parameters, non-zero parameters and the bytes of all stored tensors.

    Quantized layers keep their weights outside `parameters()`; they are counted from the state. A
    layer that stores its weight in a form of its own gives it back by `decode_weight()`: its
    numbers count as parameters, its stored tensors as bytes.
    """
    state = module.state_dict()
    packed = [t for v in state.values() if not isinstance(v, Tensor) for t in _tensors(v)]
    decoders = (getattr(layer, "decode_weight", None) for layer in module.modules())
    decoded = [decode() for decode in decoders if callable(decode)]
    weights = [*module.parameters(), *packed, *decoded]
    everything = [tensor for value in state.values() for tensor in _tensors(value)]
    return {
        "params": float(sum(tensor.numel() for tensor in _distinct(weights))),
        "nonzero_params": float(sum(_nonzero(tensor) for tensor in _distinct(weights))),
        "weight_bytes": float(sum(_stored_bytes(tensor) for tensor in _distinct(everything))),
    }


def disk_bytes(module: nn.Module) -> float:
    """Return the size of a file that holds the module's state, as torch.save writes it."""
    file = io.BytesIO()
    torch.save(module.state_dict(), file)
    return float(len(file.getvalue()))


def count_macs(module: nn.Module, inputs: tuple[Tensor, ...]) -> tuple[float, list[str]]:
    """Return multiply-accumulates for one example, and the operators that were not counted.

    A MAC is half of what `torch.utils.flop_counter` counts: one multiplication and one addition.
    Fused attention is counted by its parts. Uncounted operators are named, views left out.
    """
    one = tuple(value[:1] for value in inputs)
    names = OperatorNames()
    quantized = {torch.ops.quantized.linear_dynamic: _linear_dynamic_flops}
    counter = FlopCounterMode(display=False, custom_mapping=quantized)
    with torch.no_grad(), _unfused_attention(), counter, names:
        module.eval()(*one)
    counted = set(flop_registry) | set(quantized)
    uncounted = {
        str(packet)
        for packet, view in names.seen.items()
        if packet not in counted and not view and packet.__name__ not in FREE
    }
    return counter.get_total_flops() / 2, sorted(uncounted)


class OperatorNames(TorchDispatchMode):
    """Remembers which operators ran, and whether each only made a view."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]  # torch leaves it untyped
        self.seen: dict[Any, bool] = {}

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Note the operator and run it."""
        self.seen[func._overloadpacket] = func.is_view
        return func(*args, **(kwargs or {}))


def _linear_dynamic_flops(inputs: Any, *_: Any, out_shape: Any = None, **__: Any) -> int:
    """2 · rows · in · out of a quantized linear layer, whose packed weight has no shape here."""
    rows_and_outputs = 1
    for size in out_shape:
        rows_and_outputs *= size
    return int(2 * rows_and_outputs * inputs[-1])


@contextlib.contextmanager
def _unfused_attention() -> Iterator[None]:
    fast_path = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        with sdpa_kernel(SDPBackend.MATH):
            yield
    finally:
        torch.backends.mha.set_fastpath_enabled(fast_path)


def _tensors(value: Any) -> Iterator[Tensor]:
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, tuple | list):
        for item in value:
            yield from _tensors(item)


def _distinct(tensors: list[Tensor]) -> list[Tensor]:
    """The tensors without those that share their storage with an earlier one (tied weights)."""
    kept: dict[Any, Tensor] = {}
    for tensor in tensors:
        storage = tensor.untyped_storage()
        kept.setdefault((storage.data_ptr(), tensor.storage_offset(), tensor.numel()), tensor)
    return list(kept.values())


def _nonzero(tensor: Tensor) -> int:
    plain = tensor.dequantize() if tensor.is_quantized else tensor
    return int(torch.count_nonzero(plain.detach()))


def _stored_bytes(tensor: Tensor) -> int:
    extra = 0
    if tensor.is_quantized and tensor.qscheme() in (
        torch.per_channel_affine,
        torch.per_channel_symmetric,
    ):
        extra = tensor.q_per_channel_scales().nbytes + tensor.q_per_channel_zero_points().nbytes
    return tensor.numel() * tensor.element_size() + extra
