"""Traffic: the bytes that a module's operators move, counted while it runs once."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from math import isnan, nan, prod
from typing import Any

import torch
from torch import Tensor, nn

from harness.measure.dispatch import OperatorMode, forget_traces
from harness.measure.formulas import find_formulas
from harness.measure.roofline import Traffic
from harness.measure.runtimes import Program, TrainingStep, ready
from harness.measure.storages import find_tensors
from harness.measure.tf32 import may_run_in_tf32
from harness.measure.touched import count_touched, limit_look_up, reads_touched

PLAIN = {Tensor, nn.Parameter}
"""Types of which no subclass runs operators in its own way."""
IDLE = {"empty", "empty_strided", "detach", "alias", "lift_fresh", "_unsafe_view", "empty_like",
        "new_empty", "new_empty_strided", "_fused_sdp_choice"}  # fmt: skip
"""Operators that move no data, beside those that PyTorch itself calls views."""
OVERWRITING = {"copy_", "fill_", "zero_"}
"""Operators in place that do not read what they overwrite."""
FUSED = {"_native_multi_head_attention", "_transformer_encoder_layer_fwd", "_cudnn_rnn",
         "_cslt_sparse_mm", "cusparselt_mm"}  # fmt: skip
"""Operators that multiply and have no formula."""

DISPATCH_BYTES, FLOPS_PER_BYTE = 30_000, 8
"""In the time that dispatching an operator takes, or so many operations of a product, so much is
moved: near enough on processors of today to tell in what a call spends its time."""


def count_traffic(program: Program, inputs: tuple[Tensor, ...]) -> Traffic:
    """Return what one call with these inputs moves, operator by operator, as it really runs.

    Each operator reads its inputs once and writes its outputs once, in bytes; views are free.
    Whatever an operator does inside (fused attention) stays in the caches and is not counted, nor
    is it counted that a cache may keep an output until the next operator reads it. `products` are
    by the type in which each computes. The work of an operator is reckoned in bytes. Of a call that
    fails only where its operators are seen (it brings a compiler of its own) nothing is known.
    """
    counter = _Counter()
    with torch.set_grad_enabled(isinstance(program, TrainingStep)):
        try:
            with counter:
                ready(program)(*inputs)
        except Exception:
            forget_traces()
            ready(program)(*inputs)  # raises what is the model's own failure
            return Traffic(nan, 0, {}, {})
    work = sum(counter.work.values())
    shares = {kind: part / work for kind, part in counter.work.items()}
    return Traffic(counter.bytes_moved, counter.operators, dict(counter.products), shares)


class _Counter(OperatorMode):
    """Adds up what every operator reads and writes."""

    def __init__(self) -> None:
        super().__init__()
        self.bytes_moved = 0
        self.operators = 0
        self.products: dict[str, float] = defaultdict(float)
        self.work: dict[str, float] = defaultdict(float)
        self._formulas = find_formulas()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Run the operator and add its traffic."""
        if not PLAIN.issuperset(types):
            return NotImplemented  # the operators on what such a tensor is made of come here
        kwargs = kwargs or {}
        outputs = func(*args, **kwargs)
        packet = func._overloadpacket
        if func.is_view or packet.__name__ in IDLE:
            return outputs
        read, overwritten = _sort_arguments(func, args, kwargs)
        moved = _count_moved(
            packet.__name__, args, kwargs, read, [*overwritten, *_tensors(outputs)]
        )
        self.operators += 1
        self.bytes_moved += moved
        kind = describe_operator(packet.__name__, read)
        self.work[kind] += DISPATCH_BYTES + moved
        packed = _has_packed_weights(args)
        if packed or packet in self._formulas or packet.__name__ in FUSED:
            dtype = _computing_type(packet.__name__, read, packed)
            if dtype:
                flops = self._count_flops(packet, outputs, args, kwargs)
                if flops != 0:
                    self.products[dtype] += flops
                self.work[kind] += 0.0 if isnan(flops) else flops / FLOPS_PER_BYTE
        return outputs

    def _count_flops(self, packet: Any, outputs: Any, args: Any, kwargs: Any) -> float:
        """FLOPs of a product; NaN where it has no formula, or an unexpected shape."""
        try:
            return 2 * self._formulas[packet](outputs, *args, **kwargs)
        except Exception:
            return nan


def _count_moved(name: str, args: Any, kwargs: Any, read: list[Tensor],
                 written: list[Tensor]) -> int:  # fmt: skip
    """Return the bytes that an operator reads and writes; of a large tensor what it touches."""
    touched = count_touched(name, args)
    if touched is not None:
        part: int = touched * args[0].element_size()
        others = sum(_bytes([one for one in read if one is not args[0]]).values())
        return others + part * (2 if reads_touched(name, args, kwargs) else 1)
    put_out, sizes = sum(_bytes(written).values()), _bytes(read)
    if sizes:
        first = next(iter(sizes))
        sizes[first] = limit_look_up(name, args, read, sizes[first], put_out)
    return sum(sizes.values()) + put_out


def describe_operator(name: str, read: list[Tensor]) -> str:
    """Return an operator with the types and shapes of what it reads: alike ones run alike."""
    return " ".join([name, *(_describe(tensor) for tensor in read)])


def _describe(tensor: Tensor) -> str:
    dtype, shape = str(tensor.dtype).removeprefix("torch."), "x".join(map(str, tensor.shape))
    plain = tensor.layout is not torch.strided or tensor.is_contiguous()
    order = "" if plain else "/" + "x".join(map(str, tensor.stride()))
    return f"{dtype}[{shape}{order}]"


def _sort_arguments(func: Any, args: Any, kwargs: Any) -> tuple[list[Tensor], list[Tensor]]:
    """The tensors that an operator reads, and those it overwrites; in-place ones are in both."""
    read: list[Tensor] = []
    overwritten: list[Tensor] = []
    specifications = func._schema.arguments
    given = [*zip(specifications, args, strict=False)]
    given += [(spec, kwargs[spec.name]) for spec in specifications if spec.name in kwargs]
    for spec, value in given:
        writes = spec.alias_info is not None and spec.alias_info.is_write
        blindly = spec.is_out or func._overloadpacket.__name__ in OVERWRITING
        tensors = list(_tensors(value))
        if writes:
            overwritten += tensors
        if not (writes and blindly):
            read += tensors
    return read, overwritten


def _tensors(value: Any) -> Iterator[Tensor]:
    """All plain tensors in a value: in lists, in sparse tensors, in packed quantized weights."""
    for tensor in find_tensors(value):
        if tensor.layout in (torch.sparse_csr, torch.sparse_bsr):
            yield from (tensor.crow_indices(), tensor.col_indices(), tensor.values())
        elif tensor.layout is torch.sparse_coo:
            yield from (tensor._indices(), tensor._values())
        else:
            yield tensor


def _bytes(tensors: list[Tensor]) -> dict[Any, int]:
    """Bytes of each piece of memory that the tensors lie in, every piece once."""
    sizes: dict[Any, int] = {}
    for tensor in tensors:
        if tensor.layout is not torch.strided:  # without an address: blocked for oneDNN
            sizes[id(tensor)] = tensor.numel() * tensor.element_size()
            continue
        # A dimension that is expanded (stride 0) is the same memory again.
        steps = zip(tensor.shape, tensor.stride(), strict=True)
        elements = prod(size for size, stride in steps if stride) if tensor.numel() else 0
        sizes[(tensor.data_ptr(), elements)] = elements * tensor.element_size()
    return sizes


def _has_packed_weights(args: Any) -> bool:
    """Whether weights among the arguments are packed for quantized kernels."""
    flat = (item for value in args for item in (value if isinstance(value, list) else [value]))
    return any(isinstance(item, torch.ScriptObject) for item in flat)


def _computing_type(name: str, read: list[Tensor], packed: bool) -> str:
    """Name of the type in which a product multiplies, or nothing; a bias or mask does not decide.

    Where factors are of several types, the smaller one is unpacked first: weights in int8 beside
    floats are multiplied as floats. Factors in 8-bit floats come with scales that are wider.
    """
    factors = [t for t in read if t.dim() >= 2 and t.dtype is not torch.bool]
    if packed and any(tensor.is_quantized for tensor in factors):
        return "int8"  # the other factor is quantized on the way
    floats = [tensor for tensor in factors if tensor.is_floating_point()]
    small = [tensor for tensor in floats if tensor.dtype.itemsize == 1]
    deciding = small or floats or factors
    if not deciding:
        return ""
    widest = max(deciding, key=lambda tensor: tensor.dtype.itemsize)
    if widest.dtype is torch.float32 and widest.is_cuda and may_run_in_tf32(name):
        return "tf32"
    return str(widest.dtype).removeprefix("torch.")
