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
        self._known: dict[tuple[Any, ...], list[tuple[int, int, Tensor]]] = {}

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
        end = _span(tensor)
        try:
            storage = tensor.untyped_storage()
            place = (tensor.device, storage.data_ptr() or storage._cdata, tensor.element_size())
        except (RuntimeError, NotImplementedError):  # a subclass without memory of its own
            return self._take_whole(tensor)
        known = self._known.setdefault(place, [])
        known.append((begin, end, tensor))
        if not any(begin < last and first < end for first, last, _ in known[:-1]):
            return stored
        return self._count_new(tensor, [one for _, _, one in known[:-1]])

    def _count_new(self, tensor: Tensor, others: list[Tensor]) -> int:
        """Count exactly where ranges overlap: views may interleave, as the columns of a matrix."""
        spans = [_span(one) for one in (tensor, *others)]
        taken = torch.zeros(max(spans), dtype=torch.bool)
        for other in others:
            _mark(taken, other).fill_(True)
        return int((~_mark(taken, tensor)).sum())

    def _take_whole(self, tensor: Tensor) -> int:
        known = self._known.setdefault(("object", id(tensor)), [])
        if known:
            return 0
        known.append((0, tensor.numel(), tensor))
        return tensor.numel()


def _span(tensor: Tensor) -> int:
    """How far into its storage a tensor reaches, in elements."""
    steps = zip(tensor.shape, tensor.stride(), strict=True)
    return int(tensor.storage_offset()) + 1 + sum((size - 1) * step for size, step in steps)


def _mark(taken: Tensor, tensor: Tensor) -> Tensor:
    """The places of a tensor's numbers in its storage, of an expanded dimension once."""
    steps = [(size if step else 1, step)
             for size, step in zip(tensor.shape, tensor.stride(), strict=True)]  # fmt: skip
    sizes, strides = [size for size, _ in steps], [step for _, step in steps]
    return taken.as_strided(sizes, strides, int(tensor.storage_offset()))


def find_tensors(value: Any) -> Iterator[Tensor]:
    """Yield all tensors in a value: in lists, and in packed quantized weights."""
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, torch.ScriptObject):
        yield from find_tensors(unpack(value))
    elif isinstance(value, tuple | list):
        for item in value:
            yield from find_tensors(item)


def unpack(packed: torch.ScriptObject) -> Any:
    """Return what a packed object of quantized kernels holds; nothing of what is none."""
    held: Any = packed  # its methods are registered at run time
    for name in ("unpack", "__getstate__"):
        if held._has_method(name):  # a profiler's record has neither, and no tensors
            return getattr(held, name)()
    return None


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
