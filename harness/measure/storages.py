"""Storages: which numbers of tensors are memory of their own, and which are another's again."""

from __future__ import annotations

from collections.abc import Iterator
from math import prod
from typing import Any

import torch
from torch import Tensor


class Storages:
    """Memory that was seen: of every tensor that comes, it tells what is new in it.

    Tied weights and views share their storage; what is expanded stores a number once.
    """

    def __init__(self) -> None:
        self._kept: list[Tensor] = []  # memory that is given back would be seen again
        self._known: dict[tuple[Any, ...], list[tuple[int, int]]] = {}

    def take(self, tensor: Tensor) -> int:
        """Return how many numbers of a tensor are stored nowhere else, and remember them."""
        self._kept.append(tensor)
        if tensor.layout is not torch.strided:
            parts = list(_parts_of(tensor))
            return self.take(parts[-1]) if parts else self._take_whole(tensor)
        if tensor.numel() == 0:
            return 0
        steps = [(size, step) for size, step in zip(tensor.shape, tensor.stride(), strict=True)]
        stored = prod(size for size, step in steps if step)
        begin = int(tensor.storage_offset())
        end = begin + 1 + sum((size - 1) * step for size, step in steps)
        try:
            storage = tensor.untyped_storage()
            place = (tensor.device, storage.data_ptr() or storage._cdata, tensor.element_size())
        except (RuntimeError, NotImplementedError):  # a subclass without memory of its own
            return self._take_whole(tensor)
        known = self._known.setdefault(place, [])
        seen = sum(max(0, min(end, last) - max(begin, first)) for first, last in known)
        self._known[place] = _joined([*known, (begin, end)])
        return stored - min(stored, seen)

    def _take_whole(self, tensor: Tensor) -> int:
        known = self._known.setdefault(("object", id(tensor)), [])
        if known:
            return 0
        known.append((0, tensor.numel()))
        return tensor.numel()


def _joined(spans: list[tuple[int, int]]) -> list[tuple[int, int]]:
    """Spans without overlaps, in order."""
    joined: list[tuple[int, int]] = []
    for begin, end in sorted(spans):
        if joined and begin <= joined[-1][1]:
            joined[-1] = (joined[-1][0], max(joined[-1][1], end))
        else:
            joined.append((begin, end))
    return joined


def find_parts(tensor: Tensor) -> Iterator[Tensor]:
    """Yield the plain tensors in which a tensor's numbers lie: of a subclass or a sparse one."""
    if hasattr(tensor, "__tensor_flatten__") and type(tensor) is not Tensor:
        names, _ = tensor.__tensor_flatten__()
        for name in names:
            yield from find_parts(getattr(tensor, name))
    elif tensor.layout is not torch.strided:
        yield from _parts_of(tensor)
    else:
        yield tensor


def _parts_of(tensor: Tensor) -> Iterator[Tensor]:
    """A sparse tensor's indices, then its values."""
    if tensor.layout in (torch.sparse_csr, torch.sparse_bsr):
        yield from (tensor.crow_indices(), tensor.col_indices(), tensor.values())
    elif tensor.layout in (torch.sparse_csc, torch.sparse_bsc):
        yield from (tensor.ccol_indices(), tensor.row_indices(), tensor.values())
    elif tensor.layout is torch.sparse_coo:
        yield from (tensor._indices(), tensor._values())
