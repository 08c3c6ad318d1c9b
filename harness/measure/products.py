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
from torch.utils.weak import WeakTensorKeyDictionary

from bench.tasks import find_tensors

aten = torch.ops.aten
FACTORS = {aten.mul: 0, aten.mul_: 0, aten.addcmul: 1, aten.addcmul_: 1}
"""What multiplies number by number, and which argument is the first factor."""
SUMS = {
    aten.sum: 0, aten.mean: 0, aten.nansum: 0, aten.cumsum: 0, aten.index_add: 3,
    aten.index_add_: 3, aten.scatter_add: 3, aten.scatter_add_: 3, aten.scatter_reduce: 3,
}  # fmt: skip
"""What adds numbers of one tensor up, and which argument that is."""
ADDITIONS = (aten.add, aten.add_, aten.sub, aten.sub_, aten.rsub)
ALL, FIRST, SECOND = slice(None), slice(1), slice(1, 2)
KEEPING = {
    aten.div: FIRST, aten.div_: FIRST, aten.copy_: SECOND,
} | dict.fromkeys(
    (*ADDITIONS, aten.mul, aten.mul_, aten.neg, aten.neg_, aten._to_copy, aten.clone, aten.where,
     aten.masked_fill, aten.masked_fill_, aten.cat, aten.stack, aten.flip, aten.roll, aten.gather,
     aten.constant_pad_nd, aten.index_select, aten.index, aten.nan_to_num, aten._unsafe_view),
    ALL,
)  # fmt: skip
"""What may come between a product and its sum (it scales, casts, moves, or adds something else),
and whose products its result has."""
_storage_of = Tensor.untyped_storage  # what others put in its place is not asked
FEW = 2
"""A sum of so many is a gate's mixture or a rotation, which nobody counts, of an LSTM either."""


@dataclass
class Mark:
    """Products that no sum has had yet, and how many were added to each other in each number."""

    left: int
    terms: int = 1

    def take(self, most: int | None = None) -> int:
        """Return how many are left, or as many as a tensor may have, and leave the others."""
        taken = self.left if most is None else min(self.left, most)
        self.left -= taken
        return taken


class SummedProducts:
    """Tells how many products were summed, each once, as it sees one operator after the other."""

    def __init__(self) -> None:
        self._marks = WeakTensorKeyDictionary()
        """By tensor; those that come of the same products share one."""

    def count(self, packet: Any, given: Sequence[Any], out: Any, view: bool, changes: bool) -> int:
        """Return how many products an operator has summed.

        view: its result is a part of what was given. changes: its first argument is its result.
        """
        if packet in SUMS:
            (summed,) = given[SUMS[packet] :][:1]
            return sum(mark.take(summed.numel() * mark.terms) for mark in self._find(summed))
        first = FACTORS.get(packet)
        factors = () if first is None else given[first : first + 2]
        if _are_numbers(factors):
            made = [] if _are_same(*factors) else [Mark(out.numel())]
            marks = self._find(given[:first]) + made
        else:
            kept = ALL if view else KEEPING.get(packet)
            marks = [] if kept is None else self._find(given[kept])
        if not marks:
            if changes:
                for tensor in find_tensors(out):
                    self._marks.pop(tensor, None)
            return 0
        added = packet in ADDITIONS or bool(first)
        mark = marks[0] if len(marks) == 1 else _join(marks, added)
        self._marks.update((tensor, mark) for tensor in find_tensors(out))
        return mark.take() if mark.terms > FEW else 0

    def _find(self, given: Any) -> list[Mark]:
        """Return the marks of tensors, each once."""
        marks = (self._marks.get(tensor) for tensor in find_tensors(given))
        return [*{id(mark): mark for mark in marks if mark is not None}.values()]


def _join(marks: Sequence[Mark], added: bool) -> Mark:
    """Return what all products of a tensor are that comes of several, added up or side by side."""
    terms = [mark.terms for mark in marks]
    return Mark(sum(mark.take() for mark in marks), sum(terms) if added else max(terms))


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
