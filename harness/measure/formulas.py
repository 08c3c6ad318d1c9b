"""Formulas: how many multiply-accumulates an operator takes, and which ones take none.

An operator is counted, or harmless (it only moves, compares, adds up or maps single numbers), or
not known.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from math import inf, prod
from typing import Any

import torch
from torch import Tensor
from torch.utils.flop_counter import flop_registry

from harness.measure import packed

Formula = Callable[..., float]
"""Multiply-accumulates of a call: takes its output, then what it was given."""

HARMLESS_TAGS = {torch.Tag.pointwise, torch.Tag.reduction, torch.Tag.view_copy, torch.Tag.core}
"""PyTorch's own words for operators; the core set multiplies in nothing but what has a formula."""
HARMLESS = re.compile(
    r"empty.*|new_empty.*|detach|alias|lift_fresh|clone|copy|fill|zero|resize|set|record_stream|"
    r"zeros.*|ones.*|full.*|rand.*|new_.*|arange|linspace|logspace|eye|range|bernoulli.*|normal|"
    r"uniform|exponential|multinomial|stack|hstack|vstack|concat|unsafe_.*|tril.*|triu.*|roll|"
    r"softmax|log_softmax|safe_softmax|masked_softmax|.*_norm|.*batch_norm.*|.*_pool\d?d?.*|"
    r".*dropout.*|upsample.*|interpolate|.*pad\d?d?|.*pad_nd|pixel_(un)?shuffle|channel_shuffle|"
    r"one_hot|embedding.*|index.*|masked_.*|scatter.*|gather.*|take.*|put|where|nonzero.*|item|"
    r"local_scalar_dense|sort|argsort|topk|kthvalue|(nan)?median.*|mode|unique.*|bincount|histc|"
    r"bucketize|searchsorted|repeat.*|rot90|flip|cum.*|logcumsumexp|std.*|var.*|.*_loss.*|"
    r"renorm|im2col|col2im|unfold.*|diff|glu|to_.*|_?to_copy|.*quantize_per_.*|dequantize.*|"
    r"quantize_affine.*|choose_qparams.*|fake_quantize.*|fused_moving_avg.*|q_scale|"
    r"fused_sdp_choice|assert_.*|foreach_.*|fused_(adam|adamw|sgd|adagrad).*|"
    r"amp_.*|is_.*|equal|allclose|nested_.*|coalesce|sparse_.*_tensor.*|values|crow_indices|"
    r"col_indices|indices|nnz|slice(_.*)?|select(_.*)?|diagonal(_.*)?|weight_norm_interface|"
    r"hard(swish|tanh|sigmoid|shrink)|elu|leaky_relu|soft(plus|shrink)|log_sigmoid.*|prelu_kernel|"
    r"rrelu.*|add_relu|transpose|t|swap.*|(un)?squeeze|floor_divide|binary_cross_entropy.*|complex|"
    r"polar|grid_sampler.*|affine_grid.*|diag_embed|block_diag|isin|histogram.*|.*_window|trace|"
    r"max_unpool.*|segment_reduce.*|poisson|binomial|cauchy|geometric|log_normal|standard_gamma|"
    r"sample_dirichlet|q_.*|int_repr|make_per_.*|functional_.*|mkldnn_(reshape|transpose)|lift|"
    r"thnn_fused_.*|jagged_to.*|padded_dense.*|pack_padded_sequence|pin_memory|reshape_copy|"
    r"resize.*|copy_.*|chunk_cat|as_strided_scatter|linalg_cross|"
    r"sparse_(softmax|log_softmax|sum|csr_sum|mask.*|resize.*)|transform_bias_rescale_qkv"
)
"""Names (without underscores at either end) of operators that PyTorch puts no such tag on."""
HARMLESS_QUANTIZED = re.compile(
    r"add.*|mul.*|cat.*|relu.*|leaky_relu|hard.*|sigmoid|tanh|(layer|group|instance|batch)_norm.*|"
    r"c?elu|clamp|threshold|max_pool.*|embedding.*|softmax|p?relu|quantize|dropout|.*(un)?pack"
)
"""The same in `torch.ops.quantized`."""
MULTIPLYING = re.compile(r"fft.*|.*dist_forward|.*dist|convolution.*|.*mm|.*matmul")
"""Core operators that multiply, in case one is in no registry."""
KNOWN = ("aten", "prims", "quantized", "torchao", "quantized_decomposed")
"""Namespaces whose names mean what PyTorch means by them; of others nothing is known."""


def count_stored(tensor: Tensor) -> int:
    """Return how many numbers a tensor stores: all, or those that a sparse one keeps."""
    if tensor.layout is torch.strided:
        return tensor.numel()
    values = tensor._values() if tensor.layout is torch.sparse_coo else tensor.values()
    return values.numel()


def count_product(_: Any, first: Tensor, second: Tensor, *__: Any) -> int:
    """Rows · inner · columns; of a sparse matrix only what is stored is multiplied."""
    if torch.strided not in (first.layout, second.layout):
        raise NotImplementedError("which of two sparse matrices' numbers meet")
    if second.layout is not torch.strided:
        return first.shape[-2] * count_stored(second)
    return count_stored(first) * second.shape[-1]


def count_vector_product(_: Any, first: Tensor, *__: Any) -> int:
    """One for every number of the matrix, or of the first vector."""
    return count_stored(first)


def added(count: Formula) -> Formula:
    """Return the formula of a product that is added to a first argument."""
    return lambda out, _, *factors: count(out, *factors)


def count_rows_to_columns(out: Tensor, rows: Tensor, *_: Any) -> int:
    """Of a linear layer whose weights are packed: every input meets every output of its row."""
    return rows.numel() * out.shape[-1]


def count_convolution(out: Tensor, _: Any, weight: Tensor, *__: Any) -> int:
    """Outputs · weights that make each of them."""
    return out.numel() * prod(weight.shape[1:])


def count_convolution_backward(_: Any, slope: Tensor, inputs: Tensor, weight: Tensor,
                               *rest: Any) -> int:  # fmt: skip
    """As much as forward for each of the gradients that are wanted: of inputs, of weights."""
    transposed, wanted = rest[4], rest[-1]
    forward = (inputs if transposed else slope).numel() * prod(weight.shape[1:])
    gradients: int = wanted[0] + wanted[1]
    return forward * gradients


def count_time_convolution(out: Tensor, _: Any, weight: Tensor, *__: Any) -> int:
    """Outputs · weights of a convolution over (time, batch, channels): (kernel, in, out)."""
    return out.numel() * prod(weight.shape[:2])


def count_attention(_: Any, query: Tensor, key: Tensor, value: Tensor, *__: Any) -> int:
    """Two products: of queries with keys, and of the weights with values."""
    return prod(query.shape[:-1]) * key.shape[-2] * (query.shape[-1] + value.shape[-1])


def count_recurrent(_: Any, steps: Tensor, inner: Tensor, hidden: Tensor, *__: Any) -> int:
    """Of one layer in one direction: steps (time, batch, in) meet all weights of both matrices."""
    return prod(steps.shape[:2]) * (inner.numel() + hidden.numel())


def count_trilinear(_: Any, *given: Any) -> int:
    """Of nn.Bilinear: batch · out · first inputs · second inputs."""
    shapes = []
    for factor, added_axes in zip(given[:3], given[3:6], strict=True):
        shape = list(factor.shape)
        for axis in sorted(added_axes):
            shape.insert(axis, 1)
        shapes.append(shape)
    combined: tuple[int, ...] = torch.broadcast_shapes(*shapes)
    return prod(combined)


def count_distances(out: Tensor, first: Tensor, *rest: Any) -> int:
    """Of every pair of rows: one for every column, unless its size is all that is taken of it."""
    powers = [power for power in rest if isinstance(power, float)]
    return 0 if powers and powers[0] in (0, 1, inf) else out.numel() * first.shape[-1]


def count_bag(_: Any, table: Tensor, indices: Tensor, *rest: Any) -> int:
    """Of rows that are added up, each times a weight of its own where there are such weights."""
    weights = rest[4] if len(rest) > 4 else None
    return 0 if weights is None else indices.numel() * table.shape[1]


def count_bag_slope(place: int) -> Formula:
    """Of a bag's table: each row that was looked up times its own weight, which is in that place.

    Nothing where there are no such weights.
    """

    def formula(_: Any, slope: Tensor, *rest: Any) -> int:
        weights = rest[place] if len(rest) > place else None
        return 0 if weights is None else rest[0].numel() * slope.shape[1]

    return formula


def count_bag_weights_slope(_: Any, slope: Tensor, __: Tensor, indices: Tensor, *___: Any) -> int:
    """Of the rows' own weights: each row that was looked up with the slope."""
    return indices.numel() * slope.shape[1]


def count_grouped(out: Tensor, first: Tensor, second: Tensor, *_: Any) -> int:
    """Of groups of rows, or of columns, each group with its own matrix."""
    macs = count_product(out, first, second)
    return macs // len(first) if (first.dim(), second.dim()) == (3, 2) else macs


aten = torch.ops.aten
OWN: dict[str, Formula] = {
    "mm": count_product, "bmm": count_product, "_sparse_mm": count_product,
    "_int_mm": count_product, "_grouped_mm": count_grouped,
    "addmm": added(count_product), "addbmm": added(count_product), "baddbmm": added(count_product),
    "_sparse_addmm": added(count_product), "sspaddmm": added(count_product),
    "mv": count_vector_product, "dot": count_vector_product, "vdot": count_vector_product,
    "addmv": added(count_vector_product),
    "_scaled_mm_v2": count_product, "_addmm_activation": added(count_product),
    "addr": lambda out, *_: out.numel(),
    "mkldnn_rnn_layer_backward": lambda *given: 2 * count_recurrent(*given),
    "mkldnn_linear": count_rows_to_columns, "_weight_int8pack_mm": count_rows_to_columns,
    "_weight_int4pack_mm_for_cpu": count_rows_to_columns,
    "_weight_int4pack_mm": count_rows_to_columns,
    "_dyn_quant_matmul_4bit": count_rows_to_columns,
    "convolution_backward": count_convolution_backward, "mkldnn_convolution": count_convolution,
    "conv_tbc": count_time_convolution,
    "_scaled_dot_product_flash_attention_for_cpu": count_attention,
    "mkldnn_rnn_layer": count_recurrent, "_trilinear": count_trilinear,
    "_cdist_forward": count_distances, "_pdist_forward": count_distances,
    "_euclidean_dist": count_distances, "_embedding_bag": count_bag,
    "_embedding_bag_forward_only": count_bag,
    "_embedding_bag_backward": count_bag_slope(9),
    "_embedding_bag_dense_backward": count_bag_slope(7),
    "_embedding_bag_sparse_backward": count_bag_slope(7),
    "_embedding_bag_per_sample_weights_backward": count_bag_weights_slope,
    "quantized_lstm": packed.count_packed_recurrent(4),
    "quantized_gru": packed.count_packed_recurrent(3),
}  # fmt: skip
"""Operators of `torch.ops.aten` that multiply, with formulas of ours; the others are PyTorch's."""


def find_formulas() -> dict[Any, Formula]:
    """Return the formula of every operator that is counted."""
    found: dict[Any, Formula] = {name: halve(flops) for name, flops in flop_registry.items()}
    found |= {
        getattr(torch.ops.quantized, name): of_positions(count)
        for name, count in packed.FORMULAS.items()
        if hasattr(torch.ops.quantized, name)
    }
    in_place = {f"{name}_": count for name, count in OWN.items()}
    own = (OWN | in_place).items()
    return found | {
        getattr(aten, name): of_positions(count) for name, count in own if hasattr(aten, name)
    }


def of_positions(count: Formula) -> Formula:
    """Return a formula that leaves out what is given by name: scales, and where the result goes."""

    def formula(out: Any, /, *given: Any, **_: Any) -> float:
        return count(out, *given)

    return formula


def halve(flops: Callable[..., Any]) -> Formula:
    """Return a formula of PyTorch's, which counts multiplications and additions, as one of ours."""

    def formula(out: Any, /, *given: Any, **named: Any) -> float:
        named.pop("out", None)
        return float(flops(*given, **named, out_val=out)) / 2

    return formula


def is_harmless(func: Any, given: Any) -> bool:
    """Tell whether an operator multiplies nothing that counts: it moves, maps or adds up."""
    if getattr(func, "is_view", False) or getattr(func, "namespace", "") == "profiler":
        return True
    packet = getattr(func, "_overloadpacket", None)
    if packet is None or func.namespace not in KNOWN or _has_packed(given):
        return False
    name = packet.__name__.strip("_")
    forward = re.sub(r"_backward(_data)?$", "", name)
    if MULTIPLYING.fullmatch(forward):
        return False
    if func.namespace == "quantized":
        return HARMLESS_QUANTIZED.fullmatch(forward) is not None
    same = (packet, getattr(aten, name, None))  # of relu_ holds what holds for relu
    tags = {tag for one in same if hasattr(one, "overloads") for tag in _tags(one)}
    return bool(tags & HARMLESS_TAGS) or HARMLESS.fullmatch(forward) is not None


def _tags(packet: Any) -> set[torch.Tag]:
    return {tag for name in packet.overloads() for tag in getattr(packet, name).tags}


def _has_packed(given: Any) -> bool:
    """Whether weights among the arguments are packed for quantized kernels."""
    flat = (one for value in given for one in (value if isinstance(value, list) else [value]))
    return any(isinstance(one, torch.ScriptObject) for one in flat)
