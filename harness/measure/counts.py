"""Counting: parameters, zeros, bytes and multiply-accumulates."""

from __future__ import annotations

import contextlib
import io
from collections.abc import Iterator
from math import prod
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import FlopCounterMode, flop_registry

from harness.measure.runtimes import Program, TrainingStep, ready

FREE = {"empty", "empty_strided", "detach", "alias", "lift_fresh", "_unsafe_view", "clone"}
"""Operators that compute nothing and so are not worth naming as uncounted."""
PACKED = ("linear_dynamic", "linear", "linear_relu", "conv1d", "conv1d_relu", "conv2d",
          "conv2d_relu", "linear_with_input_q_dq_qweight_dq_output_fp32",
          "linear_with_input_q_dq_qweight_dq_relu_output_fp32")  # fmt: skip
"""Operators in `torch.ops.quantized` that multiply by packed weights."""


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


def count_macs(program: Program, inputs: tuple[Tensor, ...]) -> tuple[float, list[str]]:
    """Return multiply-accumulates for one example, and the operators that were not counted.

    Of a training step they are those of the whole step, forward and backward, for one example.

    A MAC is half of what `torch.utils.flop_counter` counts: one multiplication and one addition.
    Fused attention is counted by its parts. Uncounted operators are named, views left out.
    """
    training = isinstance(program, TrainingStep)
    few = inputs if training else tuple(value[:1] for value in inputs)
    names = OperatorNames()
    quantized = {getattr(torch.ops.quantized, name): _packed_flops for name in PACKED}
    own = {**quantized, torch.ops.aten.mm: _mm_flops}
    counter = FlopCounterMode(display=False, custom_mapping=own)
    with torch.set_grad_enabled(training), _unfused_attention(), counter, names:
        ready(program)(*few)
    counted = set(flop_registry) | set(quantized)
    uncounted = {
        str(packet)
        for packet, view in names.seen.items()
        if packet not in counted and not view and packet.__name__ not in FREE
    }
    return counter.get_total_flops() / 2 / len(few[0]), sorted(uncounted)


class OperatorNames(TorchDispatchMode):
    """Remembers which operators ran, and whether each only made a view."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]  # torch leaves it untyped
        self.seen: dict[Any, bool] = {}

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Note the operator and run it."""
        self.seen[func._overloadpacket] = func.is_view
        return func(*args, **(kwargs or {}))


def _packed_flops(*given: Any, out_shape: Any = None, **_: Any) -> int:
    """2 · outputs · weights that make each of them; a packed weight tells its shape itself."""
    packed: Any = next(value for value in given if isinstance(value, torch.ScriptObject))
    return int(2 * prod(out_shape) * prod(packed.unpack()[0].shape[1:]))


def _mm_flops(first: Tensor, second: Tensor, *_: Any, **__: Any) -> int:
    """2 · rows · inner · columns; of a sparse matrix only what is not zero is multiplied."""
    stored = first._nnz() if first.layout is torch.sparse_csr else first.numel()
    return 2 * stored * second.shape[1]


_mm_flops._get_raw = True  # type: ignore[attr-defined]  # how PyTorch asks for tensors, not shapes


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
