"""Products: the elementwise ones that are summed, which are multiply-accumulates as a matrix's are.

`(x * w).sum(-1)` is a matrix product that no operator is called after. Squares do not count: they
are a norm's.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from bench.tasks import find_tensors

aten = torch.ops.aten
FACTORS = {aten.mul: 0, aten.mul_: 0, aten.addcmul: 1, aten.addcmul_: 1}
"""What multiplies number by number, and which argument is the first factor."""
SUMS = {
    aten.sum: 0, aten.mean: 0, aten.nansum: 0, aten.cumsum: 0, aten.cumsum_: 0,
    aten.index_add: 3, aten.index_add_: 3, aten.scatter_add: 3, aten.scatter_add_: 3,
    aten.scatter_reduce: 3, aten.scatter_reduce_: 3, aten.index_put: 2, aten.index_put_: 2,
    aten.put: 2, aten.put_: 2, aten.avg_pool1d: 0, aten.avg_pool2d: 0,
    aten.avg_pool3d: 0, aten._adaptive_avg_pool2d: 0, aten._adaptive_avg_pool3d: 0,
    aten.mkldnn_adaptive_avg_pool2d: 0,
}  # fmt: skip
"""What adds numbers of one tensor up, and which argument that is."""
SUMMING = {
    aten.scatter_reduce: (4, ("sum", "mean")), aten.scatter_reduce_: (4, ("sum", "mean")),
    aten.index_put: (3, (True,)), aten.index_put_: (3, (True,)),
    aten.put: (3, (True,)), aten.put_: (3, (True,)),
}  # fmt: skip
"""What does so only where one of its arguments is one of these values."""
ADDITIONS = (aten.add, aten.add_, aten.sub, aten.sub_, aten.rsub)
ALL, FIRST, SECOND = slice(None), slice(1), slice(1, 2)
KEEPING = {
    aten.div: FIRST, aten.div_: FIRST, aten.copy_: SECOND,
} | dict.fromkeys(
    (*ADDITIONS, *FACTORS, aten.neg, aten.neg_, aten._to_copy, aten.clone, aten.where,
     aten.masked_fill, aten.masked_fill_, aten.cat, aten.stack, aten.flip, aten.roll, aten.gather,
     aten.constant_pad_nd, aten.index_select, aten.index, aten.nan_to_num, aten._unsafe_view,
     aten.squeeze_, aten.unsqueeze_, aten.transpose_, aten.t_, aten.repeat, aten.rot90, aten.take,
     aten.tril, aten.tril_, aten.triu, aten.triu_, aten.masked_select, aten.diag_embed,
     aten.pixel_shuffle, aten.pixel_unshuffle, aten.channel_shuffle, aten.native_channel_shuffle,
     aten.im2col, aten.col2im, aten.reflection_pad1d, aten.reflection_pad2d, aten.reflection_pad3d,
     aten.replication_pad1d, aten.replication_pad2d, aten.replication_pad3d,
     aten.index_put, aten.index_put_, aten.put, aten.put_, aten.index_copy, aten.index_copy_,
     aten.scatter, aten.scatter_, aten.masked_scatter, aten.masked_scatter_, aten.slice_scatter,
     aten.select_scatter, aten.diagonal_scatter, aten.as_strided_scatter, aten.index_fill,
     aten.index_fill_),
    ALL,
)  # fmt: skip
"""What may come between a product and its sum (it scales, casts, moves, or adds something else),
and whose products its result has."""
_storage_of = Tensor.untyped_storage  # what others put in its place is not asked
FEW = 2
"""A sum of so many is a gate's mixture or a rotation, which nobody counts, of an LSTM either."""


@dataclass(eq=False)
class Products:
    """What one operator multiplied, and how many of its products no sum has had yet."""

    left: int

    def take(self, most: int) -> int:
        """Return how many are left, so many at the most; they are left no more."""
        taken = min(self.left, most)
        self.left -= taken
        return taken


@dataclass(frozen=True)
class Mark:
    """The products that a piece of memory is made of, and how many were added for each number."""

    parts: tuple[Products, ...]
    terms: int = 1

    def take(self, numbers: int | None = None) -> int:
        """Return how many products nobody has counted yet: all, or those of so many numbers."""
        wanted = sum(part.left for part in self.parts) if numbers is None else numbers * self.terms
        taken = 0
        for part in self.parts:
            taken += part.take(wanted - taken)
        return taken


class SummedProducts:
    """Tells how many products were summed, each once, as it sees one operator after the other."""

    def __init__(self) -> None:
        self._marks: dict[int, Mark] = {}
        """By where memory begins: a view has the products of what it is a view of."""

    def count(self, packet: Any, given: Sequence[Any], out: Any, view: bool, changes: bool) -> int:
        """Return how many products an operator has summed.

        view: its result is a part of what was given. changes: it writes into something given.
        """
        if packet in SUMS and _adds_up(packet, given):
            return self._count_sum(packet, given, out, changes)
        if view and packet is not aten.lift_fresh:  # which makes tensors of Python's numbers
            return 0
        marks = self._find_marks(packet, given, out)
        if changes and not all(map(_is_whole, find_tensors(out))):  # beside what else there is
            marks = [*dict.fromkeys(self._find(out) + marks)]
        if not marks:
            self.forget(out, changes)
            return 0
        added = packet in ADDITIONS or packet in (aten.addcmul, aten.addcmul_)
        mark = marks[0] if len(marks) == 1 else _join(marks, added)
        self._mark(out, mark)
        return mark.take() if added and mark.terms > FEW else 0

    def _mark(self, out: Any, mark: Mark) -> None:
        for tensor in find_tensors(out):
            if place := place_of(tensor):
                self._marks[place] = mark

    def forget(self, out: Any, changes: bool = False) -> None:
        """Note that what an operator made, or wrote over, has no products in it."""
        for tensor in find_tensors(out):
            if not changes or _is_whole(tensor):
                self._marks.pop(place_of(tensor), None)

    def _count_sum(self, packet: Any, given: Sequence[Any], out: Any, changes: bool) -> int:
        (summed,) = given[SUMS[packet] :][:1]
        found = sum(mark.take(summed.numel()) for mark in self._find(summed))
        others = self._find(given[: SUMS[packet]])  # to which it is added
        self.forget(out, changes)
        if others:
            self._mark(out, _join(others, added=False))
        return found

    def _find_marks(self, packet: Any, given: Sequence[Any], out: Any) -> list[Mark]:
        """Return what is known of an operator's result by what was given, and by what it does."""
        first = FACTORS.get(packet)
        factors = () if first is None else given[first : first + 2]
        if _are_numbers(factors):
            made = [] if _are_same(*factors) else [Mark((Products(out.numel()),))]
            return self._find(given[:first]) + made
        return self._find(given[KEEPING[packet]]) if packet in KEEPING else []

    def _find(self, given: Any) -> list[Mark]:
        """Return the marks of tensors, each once."""
        marks = (self._marks.get(place_of(tensor)) for tensor in find_tensors(given))
        return [*{id(mark): mark for mark in marks if mark is not None}.values()]


def _adds_up(packet: Any, given: Sequence[Any]) -> bool:
    """Tell whether an operator that may add numbers up does so, as it was called."""
    place, values = SUMMING.get(packet, (0, None))
    return values is None or any(one in values for one in given[place : place + 1])


def _join(marks: Sequence[Mark], added: bool) -> Mark:
    """Return what all products are of memory that comes of several, added up or side by side."""
    terms = [mark.terms for mark in marks]
    parts = dict.fromkeys(part for mark in marks for part in mark.parts if part.left)
    return Mark(tuple(parts), sum(terms) if added else max(terms))


def _is_whole(tensor: Tensor) -> bool:
    """Tell whether a tensor is all that its memory holds."""
    if not place_of(tensor):
        return True
    return tensor.numel() * tensor.element_size() >= _storage_of(tensor).nbytes()


def place_of(tensor: Tensor) -> int:
    """Return where a tensor's memory begins; 0 where it has none of its own."""
    if type(tensor) not in (Tensor, nn.Parameter) or tensor.layout is not torch.strided:
        return 0
    return _storage_of(tensor).data_ptr()


def _are_numbers(factors: Sequence[Any]) -> bool:
    """Tell whether these are two tensors of several numbers each."""
    tensors = [one for one in factors if isinstance(one, Tensor)]
    return len(tensors) == 2 and min(one.numel() for one in tensors) > 1


def _are_same(one: Tensor, other: Tensor) -> bool:
    """Tell whether two tensors are the same numbers of the same memory, as a square's are."""
    if one is other:
        return True
    place = place_of(one)
    return place == place_of(other) != 0 and _lies(one) == _lies(other)


def _lies(tensor: Tensor) -> tuple[Any, ...]:
    return tensor.storage_offset(), tensor.shape, tensor.stride(), tensor.dtype
