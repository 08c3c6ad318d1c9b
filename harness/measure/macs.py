"""Multiply-accumulates: what a call takes, by the formulas of the operators that run in it.

What has no formula and is not harmless empties the count: half a count would make a model look
cheap.
"""

from __future__ import annotations

import contextlib
import gc
import sys
import weakref
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from bench.errors import SpecError
from bench.tasks import find_tensors, first_tensor
from harness.measure.dispatch import OperatorMode
from harness.measure.formulas import aten, find_formulas, is_harmless
from harness.measure.products import SummedProducts, place_of

OUTSIDE = "outside PyTorch"


class MacCounter(OperatorMode):
    """Adds up the multiply-accumulates of what runs, and remembers which operators ran.

    Elementwise products count where they are summed: `(x * w).sum(-1)` is a matrix product.
    seen: operators, and whether each only made a view. unknown: those that may multiply and have no
    formula. shares, unknown_in: by whose name was the last of `owners` then.
    """

    def __init__(self) -> None:
        super().__init__()
        self.macs = 0.0
        self._products = SummedProducts()
        self._places: Counter[int] = Counter()
        self._lifted: set[int] = set()
        self._known: list[weakref.finalize[..., Tensor]] = []
        self.watching = False
        self.seen: dict[Any, bool] = {}
        self.unknown: set[str] = set()
        self.unknown_in: set[str] = set()
        self.owners: list[str] = []
        self.shares: dict[str, float] = {}
        self._formulas = find_formulas()

    @property
    def owner(self) -> str:
        """The last of the names that were entered."""
        return self.owners[-1] if self.owners else ""

    def know(self, values: Any) -> None:
        """Remember where tensors lie as long as they live: what comes from there is no stranger."""
        for tensor in find_tensors(values):
            place = place_of(tensor)
            self._places[place] += 1
            known = weakref.finalize(tensor, self._forget, place)
            known.atexit = False
            self._known.append(known)

    def _forget(self, place: int) -> None:
        self._places[place] -= 1

    def let_go(self) -> None:
        """Follow no tensor any longer: those that live on would keep this counter."""
        for known in self._known:
            known.detach()
        self._known.clear()

    def _look_for_strangers(self, values: Any) -> None:
        """Note a tensor that neither was there before the call nor was made by an operator."""
        if not self.watching:
            return
        for tensor in find_tensors(values):
            place = place_of(tensor)
            if place and self._places[place] <= 0:
                self.note_unknown(f"{OUTSIDE} (a tensor that no operator made)")
                self.know(tensor)

    def _note_lifted(self, out: Any, lifted: bool, view: bool) -> None:
        """Keep in mind which tensors are numbers from Python, until their memory is another's."""
        places = {place_of(tensor) for tensor in find_tensors(out)}
        if lifted:
            self._lifted |= places - {0}
        elif not view:
            self._lifted -= places

    def finish(self, outputs: Any) -> None:
        """Look at what the whole call returned: an operator's result, not numbers from Python."""
        self._look_for_strangers(outputs)
        with contextlib.suppress(SpecError):  # it may return nothing
            if place_of(first_tensor(outputs)) in self._lifted:  # others may well be constants
                self.note_unknown(f"{OUTSIDE} (outputs that no operator made)")

    def _add(self, macs: float) -> None:
        self.macs += macs
        self.shares[self.owner] = self.shares.get(self.owner, 0.0) + macs

    def note_unknown(self, what: str) -> None:
        """Remember something that may multiply and is not counted."""
        self.unknown.add(what)
        self.unknown_in.add(self.owner)

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Run the operator and count it, or the operators that it consists of."""
        kwargs = kwargs or {}
        packet = getattr(func, "_overloadpacket", func)
        formula = self._formulas.get(packet)
        if formula is None and hasattr(func, "decompose"):
            with self:
                parts = func.decompose(*args, **kwargs)
            if parts is not NotImplemented:
                return parts
        if packet is not aten.lift_fresh:  # what `torch.tensor` makes of constants
            self._look_for_strangers(args)
        out = func(*args, **kwargs)
        self.seen[packet] = view = getattr(func, "is_view", False)
        if self.watching:
            self.know(out)
            self._note_lifted(out, packet is aten.lift_fresh, view)
        changes = getattr(getattr(func, "_schema", None), "is_mutable", False)
        if formula is not None:
            try:
                self._add(formula(out, *args, **kwargs))
            except Exception:  # shapes that no formula expects
                self.note_unknown(str(packet))
            self._products.forget(out, changes)
            return out
        self._add(self._products.count(packet, args, out, view, changes))
        if not is_harmless(func, args):
            self.note_unknown(str(packet))
        return out


LEAVING = ("numpy", "__array__", "__dlpack__", "data_ptr", "untyped_storage")
"""Methods of tensors that hand memory over to something that is not PyTorch."""


@contextlib.contextmanager
def watching_departures(counter: MacCounter) -> Iterator[None]:
    """Note what takes numbers out of PyTorch in a `with` block: nobody sees what becomes of them.

    Not by a TorchFunctionMode: that changes how functions call each other which a user has patched.
    """
    own = {name: vars(Tensor)[name] for name in LEAVING if name in vars(Tensor)}

    def watched(name: str, method: Callable[..., Any]) -> Callable[..., Any]:
        def leave(*given: Any, **named: Any) -> Any:
            asked_by = str(sys._getframe(1).f_globals.get("__name__"))
            if asked_by.partition(".")[0] != "torch":  # which copies and prints by these, too
                counter.note_unknown(f"{OUTSIDE} (Tensor.{name})")
            return method(*given, **named)

        return leave

    try:
        for name in LEAVING:
            setattr(Tensor, name, watched(name, getattr(Tensor, name)))
        yield
    finally:
        for name in LEAVING:
            if name in own:
                setattr(Tensor, name, own[name])
            else:
                delattr(Tensor, name)


_remembered: list[Tensor] = []


def remember_tensors() -> None:
    """Note the tensors that there are, before `gc.freeze` hides them from who looks for them.

    In a fork a look at all that the server holds would copy its pages: a tenth of a second.
    """
    _remembered.extend(_find_tensors())


def _find_tensors() -> list[Tensor]:
    return [one for one in gc.get_objects() if issubclass(type(one), Tensor)]


def count_call(counter: MacCounter, program: Callable[..., Any], inputs: Sequence[Any]) -> None:
    """Count a call; attention runs as the products that it consists of.

    Every tensor that exists before the call is known; one that turns up in it without having been
    made by an operator was computed where nobody counts: by another library, in another thread.
    """
    if isinstance(program, nn.Module):  # in training, gradients come from where nobody looks
        existing = [*_remembered, *_find_tensors()]
        # A scripted module makes tensors of Python's only when asked.
        held = [*existing, *program.parameters(), *program.buffers(), *inputs]
        counter.know(held)
        counter.watching = True
    try:
        with unfused_attention(), counter, watching_departures(counter):
            outputs = program(*inputs)
        counter.finish(outputs)
    finally:
        counter.let_go()


@contextlib.contextmanager
def unfused_attention() -> Iterator[None]:
    """Let attention run as the products that it consists of."""
    fast_path = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        with sdpa_kernel(SDPBackend.MATH):
            yield
    finally:
        torch.backends.mha.set_fastpath_enabled(fast_path)
