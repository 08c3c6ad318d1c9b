"""Counting: the multiply-accumulates of a whole program, in calls of any number of examples."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Mapping, Sequence
from math import inf, isnan

import torch
from torch import Tensor

from harness.measure.dispatch import forget_traces
from harness.measure.macs import MacCounter, count_call
from harness.measure.runtimes import Program, TrainingStep, like_strides, ready
from harness.measure.work import ENOUGH, Work, is_proportional

SEVERAL = (2, 3, 4)
FURTHER = 5
"""Shows whether what these take is what others take, too."""
BEYOND_PADDING = 17
"""Shows that of what is not in proportion: in batches padded to sixteen, few take what all do."""
AFFORDABLE_MACS = 2e9
"""A call that takes no more is counted in a second or two."""
UNCOUNTED = "a call that fails where its operators are seen"
REFUSED = "every call on the host"
WHY_LENGTH = 200
Call = tuple[Program, tuple[Tensor, ...]]


def count_macs(program: Program, inputs: tuple[Tensor, ...]) -> tuple[float, list[str]]:
    """Return multiply-accumulates for one example, and the operators that could not be counted.

    With such operators the count is NaN. Of a training step it is that of the whole step, forward
    and backward, for one example. A MAC is one multiplication and one addition: half of what
    `torch.utils.flop_counter` counts. Fused attention is counted by its parts.
    """
    few = inputs if isinstance(program, TrainingStep) else tuple(value[:1] for value in inputs)
    macs, unknown = _count_call(program, few)
    return macs / len(few[0]), sorted(unknown)


def count_work(
    call_of: Callable[[int], Call], numbers: Sequence[int], batches: Sequence[int] = ()
) -> tuple[Work, list[str]]:
    """Return the multiply-accumulates of calls of any number of examples; what is not counted.

    `call_of` gives a program and inputs of so many examples. Three calls with the first of these
    `numbers` that it takes are counted, or two where the second takes more in proportion. Then each
    of the `batches` that are wanted, where it is not too large; and one call more where what is
    wanted must be told from others. What can be called and not counted (a compiler of its own that
    sees the counter) is not counted, nor what takes none of all these numbers here.
    """
    tally = _Tally(call_of)
    wanted = list(dict.fromkeys((*numbers, *batches)))
    for examples in wanted:
        tally.add(examples)
        several = len(tally.counted) > 1 and is_proportional(tally.counted)
        if tally.unknown or several or len(tally.counted) == ENOUGH:
            break
    if not tally.counted:
        return _call_uncounted(call_of, wanted, tally.refused)
    if not tally.unknown:
        for examples in find_further(tally.counted, batches):
            tally.add(examples)
        if 1 in batches and isnan(tally.work.for_one(1)):
            tally.add(1)
    return tally.work, sorted(tally.unknown)


class _Tally:
    """What was counted of a model's calls, each the second one of so many examples.

    refused: why the model does not take the last call that it did not take.
    """

    def __init__(self, call_of: Callable[[int], Call]) -> None:
        self._call_of = call_of
        self._refused: set[int] = set()
        self._fixed = False
        self.counted: dict[int, float] = {}
        self.unknown: set[str] = set()
        self.refused = ""

    @property
    def work(self) -> Work:
        return Work(tuple(self.counted.items()), frozenset(self._refused), self._fixed)

    def add(self, examples: int) -> None:
        """Count a call of so many examples, unless the model does not take it."""
        if examples in self.counted or self._fixed:
            return
        try:
            program, inputs = self._call_of(examples)
            self._fixed = len(inputs[0]) != examples
            # What is done once and for all is in the first call; or once for so many examples.
            _count_call(program, tuple(like_strides(one.clone(), one) for one in inputs))
            macs, unknown = _count_call(program, inputs)
        except Exception as error:  # it takes certain numbers of examples only
            self.refused = " ".join(f"{type(error).__name__}: {error}".split())[:WHY_LENGTH]
            self._refused.add(examples)
            return
        self.counted[len(inputs[0])] = macs
        self.unknown |= unknown


def find_further(counted: Mapping[int, float], batches: Sequence[int]) -> list[int]:
    """Return which calls are counted as well: those that are wanted, or one that tells of them.

    Of what takes AFFORDABLE_MACS and more, the largest call that takes less stands for it.
    """
    each = max(macs / examples for examples, macs in counted.items())
    least = FURTHER if is_proportional(counted) else BEYOND_PADDING
    most = max(float(least), AFFORDABLE_MACS // each if each else inf)
    further = {int(min(batch, most)) for batch in batches if batch > 1}
    if (1 in batches or not batches) and max(further, default=0) < FURTHER:
        further.add(FURTHER)
    return sorted(further)


def _call_uncounted(
    call_of: Callable[[int], Call], numbers: Sequence[int], why: str
) -> tuple[Work, list[str]]:
    """Return that nothing is known of calls that fail, if only while they are counted."""
    forget_traces()
    for examples in numbers:
        with contextlib.suppress(Exception):
            program, inputs = call_of(examples)
            with torch.set_grad_enabled(isinstance(program, TrainingStep)):
                ready(program)(*inputs)
            return Work(((len(inputs[0]), float("nan")),)), [f"{UNCOUNTED} ({why})"]
    tried = ", ".join(map(str, numbers))
    return Work(((1, float("nan")),)), [f"{REFUSED} (of {tried} examples: {why})"]


def _count_call(program: Program, inputs: tuple[Tensor, ...]) -> tuple[float, set[str]]:
    """Return a call's multiply-accumulates, NaN where an operator could not be counted."""
    counter = MacCounter()
    with torch.set_grad_enabled(isinstance(program, TrainingStep)):
        count_call(counter, ready(program), inputs)
    return float("nan") if counter.unknown else counter.macs, counter.unknown
