"""Counting: parameters, zeros, bytes; multiply-accumulates of a whole program."""

from __future__ import annotations

import contextlib
import io
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from math import inf, isnan
from typing import IO, Any, cast

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from harness.measure.dispatch import forget_traces
from harness.measure.macs import MacCounter, count_call
from harness.measure.runtimes import Program, TrainingStep, like_strides, ready
from harness.measure.storages import Storages, find_parts, unpack
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


@dataclass
class Seen:
    """What was counted already: a weight that comes again, elsewhere, counts no more."""

    weights: Storages = field(default_factory=Storages)
    stored: Storages = field(default_factory=Storages)


def count_weights(
    module: nn.Module, seen: Seen | None = None, recurse: bool = True
) -> dict[str, float]:
    """Return parameters, non-zero parameters and the bytes of all stored tensors.

    Parameters are the numbers of distinct memory: tied ones count once, also over several calls
    with one `seen`. What a mask or parametrization of `torch.nn.utils` sets to zero is zero.
    Quantized layers keep their weights outside `parameters()`; they are counted from the state, of
    a module that stands in several places once. A layer that stores its weight in a form of its own
    gives it back by `decode_weight()`: its numbers count as parameters, its stored tensors as
    bytes. Not `recurse`: the module's own tensors without those of its parts.
    """
    seen = seen or Seen()
    parts = [Stored(part) for part in (module.modules() if recurse else [module])]
    kept = [tensor for part in parts for tensor in part.unpack()]
    masked = _find_masked(module)
    params = nonzero = 0
    for tensor in (*module.parameters(recurse), *kept):
        new = _take(tensor, seen.weights)
        params += new
        nonzero += min(new, _nonzero(masked.get(id(tensor), tensor))) if new else 0
    return {
        "params": float(params),
        "nonzero_params": float(nonzero),
        "weight_bytes": float(sum(part.count_bytes(seen.stored) for part in parts)),
    }


class Stored:
    """What a module would save, without the modules in it."""

    def __init__(self, module: nn.Module) -> None:
        state: dict[str, Any] = {}
        module._save_to_state_dict(state, "", keep_vars=True)
        self._module = module
        self._tensors = [tensor for value in state.values() for tensor in _tensors(value)]
        kinds = [getattr(module, "weight_dtype", None), *map(_find_dtype, state.values())]
        self._half = torch.float16 in kinds

    def unpack(self) -> list[Tensor]:
        """Return the weights that are no parameters: decoded, or as quantized layers save them.

        Of these, what is no buffer either; of a single number it is a scale.
        """
        decode = getattr(self._module, "decode_weight", None)
        if callable(decode):
            return [decode()]
        plain = (*self._module.parameters(False), *self._module.buffers(False))
        known = {id(one) for one in plain}
        return [one for one in self._tensors if id(one) not in known and one.numel() > 1]

    def count_bytes(self, seen: Storages) -> float:
        """Return in how many bytes it is stored, those that were seen left out.

        PyTorch's dynamic layers in half precision unpack their weights to float32.
        """
        return sum(
            _take_bytes(tensor, seen) * (0.5 if self._half and tensor.dim() > 1 else 1.0)
            for tensor in self._tensors
        )


def _find_dtype(value: Any) -> torch.dtype | None:
    """Return the type of packed weights, where a module's state says it."""
    if isinstance(value, torch.ScriptObject):
        told = unpack(value)
        state = told[0] if isinstance(told, tuple) else None
        half = isinstance(state, tuple) and state[:1] == ("quantized_fp16",)
        return torch.float16 if half else None
    return value if isinstance(value, torch.dtype) else None


def _find_masked(module: nn.Module) -> dict[int, Tensor]:
    """By the id of a parameter, the weight that is made of it: by a mask or a parametrization."""
    found: dict[int, Tensor] = {}
    for part in module.modules():
        buffers = dict(part.named_buffers(recurse=False))
        for name, original in part.named_parameters(recurse=False):
            mask = buffers.get(name.removesuffix("_orig") + "_mask")
            if name.endswith("_orig") and mask is not None:
                found[id(original)] = original.detach() * mask
        if not isinstance(part, torch.jit.ScriptModule) and parametrize.is_parametrized(part):
            for name, chain in cast(nn.ModuleDict, part.parametrizations).items():
                only = getattr(chain, "original", None)
                with torch.no_grad():
                    made = getattr(part, name)
                if isinstance(only, Tensor) and only.shape == made.shape:
                    found[id(only)] = made
    return found


def disk_bytes(module: nn.Module) -> float:
    """Return the size of a file that holds the module's state, as torch.save writes it."""
    file = _Length()
    torch.save(module.state_dict(), cast(IO[bytes], file))
    return float(file.length)


class _Length(io.RawIOBase):
    """A file that keeps nothing but its length: a large model need not be in memory again."""

    length = 0

    def writable(self) -> bool:
        return True

    def write(self, content: Any) -> int:
        size = memoryview(content).nbytes
        self.length += size
        return size


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


def _tensors(value: Any) -> Iterator[Tensor]:
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, torch.ScriptObject):
        yield from _tensors(unpack(value))
    elif isinstance(value, tuple | list):
        for item in value:
            yield from _tensors(item)


def _take(tensor: Tensor, storages: Storages) -> int:
    """How many parameters a tensor adds: of a packed or sparse one, all that it stands for."""
    if type(tensor) in (Tensor, nn.Parameter) and tensor.layout is torch.strided:
        return storages.take(tensor)
    parts = [storages.take(part) for part in find_parts(tensor)]
    return tensor.numel() if any(parts) else 0


def _nonzero(tensor: Tensor) -> int:
    """How many numbers are not zero, of what is expanded each once."""
    plain = tensor.detach()
    if tensor.layout is not torch.strided:
        return int(torch.count_nonzero(list(find_parts(plain))[-1]))
    for axis, step in enumerate(plain.stride() if type(plain) in (Tensor, nn.Parameter) else ()):
        if step == 0 and plain.shape[axis] > 1:
            plain = plain.narrow(axis, 0, 1)
    if plain.is_quantized or type(plain) not in (Tensor, nn.Parameter):
        plain = plain.dequantize()
    return int(torch.count_nonzero(plain))


def _take_bytes(tensor: Tensor, storages: Storages) -> int:
    if tensor.is_quantized:
        new = storages.take(tensor)
        channels = tensor.qscheme() in (torch.per_channel_affine, torch.per_channel_symmetric)
        if not channels or not new:
            return new * tensor.element_size()
        scales = (tensor.q_per_channel_scales(), tensor.q_per_channel_zero_points())
        return new * tensor.element_size() + sum(one.nbytes for one in scales)
    return sum(storages.take(part) * part.element_size() for part in find_parts(tensor))
