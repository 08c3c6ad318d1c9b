"""Packed: what operators take whose weights are packed, and tell their shapes themselves."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from math import prod
from typing import Any

import torch
from torch import Tensor

from bench.tasks import find_tensors

PACKED = (
    "linear", "linear_relu", "linear_leaky_relu", "linear_tanh", "linear_dynamic",
    "linear_relu_dynamic", "linear_dynamic_fp16", "linear_relu_dynamic_fp16",
    "linear_with_input_q_dq_qweight_dq_output_fp32",
    "linear_with_input_q_dq_qweight_dq_relu_output_fp32", "conv1d", "conv1d_relu", "conv1d_dynamic",
    "conv2d", "conv2d_relu", "conv2d_add", "conv2d_add_relu", "conv2d_dynamic", "conv3d",
    "conv3d_relu", "conv3d_dynamic",
)  # fmt: skip
"""Operators in `torch.ops.quantized` that multiply by packed weights."""
PACKED_TRANSPOSED = tuple(
    f"conv_transpose{axes}d{ending}" for axes in (1, 2, 3) for ending in ("", "_dynamic")
)
PACKED_CELLS = ("quantized_lstm_cell_dynamic", "quantized_gru_cell_dynamic",
                "quantized_rnn_tanh_cell_dynamic", "quantized_rnn_relu_cell_dynamic")  # fmt: skip
PACKED_TABLES = ("embedding_byte", "embedding_4bit")
PACKED_BAGS = tuple(
    f"embedding_bag_{width}{ending}"
    for width in ("byte", "4bit", "2bit") for ending in ("", "_rowwise_offsets")
)  # fmt: skip


def count_packed(out: Tensor, *given: Any) -> int:
    """Outputs · weights that make each of them; a packed weight tells its shape itself."""
    return out.numel() * prod(_find_packed(given)[0][1:])


def _find_packed(given: Sequence[Any]) -> list[tuple[int, ...]]:
    """Return the shapes of packed weights."""
    packed: list[Any] = [value for value in given if isinstance(value, torch.ScriptObject)]
    return [tuple(one.unpack()[0].shape) for one in packed]


def count_packed_transposed(_: Any, inputs: Tensor, *given: Any) -> int:
    """Inputs · weights that each of them meets: a packed weight is (in, out / groups, kernel)."""
    return inputs.numel() * prod(_find_packed(given)[0][1:])


def count_packed_cell(_: Any, inputs: Tensor, *given: Any) -> int:
    """Of one step of a recurrent layer: rows meet all weights of both packed matrices."""
    return prod(inputs.shape[:-1]) * sum(map(prod, _find_packed(given)))


def count_packed_recurrent(gates: int) -> Callable[..., float]:
    """Return the formula of recurrent layers with so many gates, whose weights are packed.

    Rows meet all weights of each layer in each direction. Beside the weights stand the states,
    before them, and after them biases, layers, dropout, training, and whether there is a way back.
    """

    def count(_: Any, rows: Tensor, *given: Any) -> int:
        at = next(n for n, one in enumerate(given) if len(_find_cells(one)))
        states, layers, directions = given[at - 1], given[at + 2], 1 + given[at + 5]
        hidden = next(find_tensors(states)).shape[-1]
        inputs = rows.shape[-1] + (layers - 1) * directions * hidden
        weights = directions * gates * hidden * (inputs + layers * hidden)
        rows_met: int = prod(rows.shape[:-1])
        return rows_met * int(weights)

    return count


def _find_cells(value: Any) -> list[Any]:
    several = value if isinstance(value, list | tuple) else ()
    return [one for one in several if isinstance(one, torch.ScriptObject)]


def count_nothing(*_: Any) -> int:
    """Of rows that are looked up."""
    return 0


def count_packed_bag(out: Tensor, _: Any, indices: Tensor, *rest: Any) -> int:
    """Of rows that are added up, each times a weight of its own where there are such weights."""
    weights = rest[4] if len(rest) > 4 else None
    return 0 if weights is None else indices.numel() * out.shape[-1]


FORMULAS: dict[str, Callable[..., float]] = {
    name: count
    for count, names in (
        (count_packed, PACKED), (count_packed_transposed, PACKED_TRANSPOSED),
        (count_packed_cell, PACKED_CELLS), (count_packed_bag, PACKED_BAGS),
        (count_nothing, PACKED_TABLES),
    )
    for name in names
}  # fmt: skip
"""Formulas of operators in `torch.ops.quantized`."""
