"""Touched: how much of a large tensor is read by a look-up, or written in place."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from math import prod
from typing import Any

import torch
from torch import Tensor

LOOK_UPS = {"index", "index_select", "gather", "take"}
"""Operators that read no more of their first tensor than they write."""
ROW_LOOK_UPS = {"embedding", "_embedding_bag", "_embedding_bag_forward_only"} | {
    f"embedding_{kind}"
    for kind in ("byte", "4bit", "2bit", "bag_byte", "bag_4bit", "bag_2bit",
                 "bag_byte_rowwise_offsets", "bag_4bit_rowwise_offsets", "bag_2bit_rowwise_offsets")
}  # fmt: skip
"""Those that read the rows of it that their second tensor names, though they may add them up."""


def limit_look_up(name: str, given: Sequence[Any], read: Sequence[Tensor], size: int,
                  written: int) -> int:  # fmt: skip
    """Return how many bytes an operator reads of its first tensor, which has this size."""
    if name in LOOK_UPS:
        return min(size, written)
    if name in ROW_LOOK_UPS and len(read[0]):
        rows: int = given[1].numel()
        return min(size, rows * (size // len(read[0])))
    return size


def count_touched(name: str, given: Sequence[Any]) -> int | None:
    """Return how many numbers of its first tensor an operator writes over; None if all."""
    if name not in PARTIAL:
        return None
    most: int = given[0].numel()
    return min(PARTIAL[name](*given), most)


def reads_touched(name: str, given: Sequence[Any], named: Mapping[str, Any]) -> bool:
    """Tell whether an operator that writes over a part of a tensor reads that before."""
    return name in ADDING or "reduce" in named or (name in MAY_ADD and True in given[3:4])


def _count_source(_: Tensor, __: int, ___: Tensor, source: Tensor, *____: Any) -> int:
    return source.numel()


def _count_slices(tensor: Tensor, axis: int, index: Tensor, *_: Any) -> int:
    return index.numel() * tensor.numel() // max(1, tensor.shape[axis] if tensor.dim() else 1)


def _count_places(_: Tensor, __: int, index: Tensor, *___: Any) -> int:
    return index.numel()


def _count_masked(tensor: Tensor, mask: Tensor, *_: Any) -> int:
    return int(mask.count_nonzero()) * tensor.numel() // max(1, mask.numel())


def _count_indexed(tensor: Tensor, indices: Sequence[Tensor | None], *_: Any) -> int:
    """Return how many numbers `tensor[indices]` has."""
    kept, axis = 1, 0
    shapes: list[Sequence[int]] = []
    for index in indices:
        if index is None:
            kept *= tensor.shape[axis]
        elif index.dtype in (torch.bool, torch.uint8):
            shapes.append((int(index.count_nonzero()),))
            axis += index.dim() - 1
        else:
            shapes.append(index.shape)
        axis += 1
    together: Sequence[int] = torch.broadcast_shapes(*shapes)
    return prod(together) * kept * prod(tensor.shape[axis:])


PARTIAL: dict[str, Callable[..., int]] = {
    "index_copy_": _count_source, "index_add_": _count_source, "index_reduce_": _count_source,
    "index_fill_": _count_slices, "index_put_": _count_indexed, "_index_put_impl_": _count_indexed,
    "scatter_": _count_places, "scatter_add_": _count_places, "scatter_reduce_": _count_places,
    "put_": lambda _, index, *__: index.numel(), "masked_scatter_": _count_masked,
    "fill_diagonal_": lambda tensor, *_: min(tensor.shape),
    "embedding_renorm_": lambda table, rows, *_: rows.numel() * table.shape[1],
}  # fmt: skip
"""Operators in place that write over a part of their first tensor, and how many numbers that is."""
ADDING = {"index_add_", "index_reduce_", "scatter_add_", "scatter_reduce_", "embedding_renorm_"}
"""Those of them that read what they write over."""
MAY_ADD = {"index_put_", "_index_put_impl_", "put_"}
"""Those that do so where their fourth argument asks for it."""
