"""Content: a digest of all that an object holds, by which prepared variants are known again.

Two objects have one digest only if everything reachable from them is alike: tensors with their
bytes and strides, attributes, nested objects, the code of functions. What cannot be looked into (a
handle of a library, an open file) has none: it is `Unkeyable`.
"""

from __future__ import annotations

import enum
import functools
import hashlib
import re
import types
import weakref
from collections.abc import Callable, Iterable, Iterator
from pathlib import PurePath
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy

from harness.measure.storages import find_parts
from harness.prepare.scripts import read_script
from harness.prepare.users import is_users
from harness.prepare.values import COMMON, attributes, bits, bytes_of, name_of, quantization

EXACT = (bool, int, float, complex, str, bytes)
"""Of these a class that is derived may hold more than the value."""
PLAIN = (type(None), range, PurePath, type(Ellipsis), type(NotImplemented), torch.dtype,
         torch.device, torch.layout, torch.memory_format, np.dtype)  # fmt: skip
"""Values that, like those, say all of themselves when they are written out."""
BY_NAME = (types.BuiltinFunctionType, types.ModuleType, types.MethodDescriptorType,
           types.WrapperDescriptorType, types.GetSetDescriptorType, types.MemberDescriptorType,
           np.ufunc)  # fmt: skip


class Unkeyable(Exception):  # an answer, not an error
    """An object that cannot be known again by its content."""


def digest_content(*objects: Any) -> str:
    """Return a digest of everything that objects hold; raise Unkeyable with what has none."""
    walk = Walk()
    try:
        for one in objects:
            walk.visit(one)
    except RecursionError:
        raise Unkeyable("it is nested too deeply") from None
    return walk.digest.hexdigest()


def digest_leniently(*objects: Any) -> str:
    """Return a digest of what objects hold, where what cannot be looked into counts as alike."""
    walk = Walk(lenient=True)
    walk.visit_all(objects)
    return walk.digest.hexdigest()


class Walk:
    """Feeds a digest with objects; what comes again is named by when it came first.

    lenient: a part that cannot be looked into is said to be unknown, and its neighbours are fed.
    """

    def __init__(self, lenient: bool = False) -> None:
        self.lenient = lenient
        self.digest = hashlib.blake2b(digest_size=16)
        self._seen: dict[int, int] = {}
        self._kept: list[Any] = []  # an id is its object's as long as that lives
        self.modules: set[str] = set()
        """In which modules the classes and functions are that were met."""

    def say(self, *words: Any) -> None:
        """Feed words, each with its length, so that none runs into the next."""
        for word in words:
            raw = isinstance(word, bytes | memoryview)
            text = word if raw else str(word).encode(errors="surrogatepass")
            self.digest.update(len(text).to_bytes(8, "big"))
            self.digest.update(text)

    def visit(self, one: Any) -> None:
        """Feed an object and what it holds."""
        self.modules.add(type(one).__module__)
        if type(one) in EXACT or isinstance(one, PLAIN):
            self.say("plain", type(one).__qualname__, bits(one))
        elif id(one) in COMMON:
            self.say("generator", COMMON[id(one)])
        elif isinstance(one, re.Pattern):  # not written out: that is cut after 200 characters
            self.say("pattern", one.flags)
            self.visit(one.pattern)
        elif isinstance(one, np.generic):  # a record of many numbers would be cut
            self.say("number")
            self.feed_array(np.asarray(one))
        elif isinstance(one, tuple):
            self.say("tuple", name_of(type(one)), len(one))
            self.visit_all(one)
            self.visit(attributes(one))
        elif id(one) in self._seen:
            self.say("again", self._seen[id(one)])
        else:
            self._seen[id(one)] = len(self._seen)
            self._kept.append(one)
            self._visit_new(one)

    def _visit_new(self, one: Any) -> None:
        feed = next((feed for kind, feed in FEEDERS if isinstance(one, kind)), Walk.feed_others)
        self.say(feed.__name__)
        try:
            feed(self, one)
        except (Unkeyable, RecursionError):
            if not self.lenient:
                raise
            self.say("unknown")

    def visit_all(self, items: Iterable[Any]) -> None:
        """Feed objects in their order."""
        for item in items:
            self.visit(item)

    def feed_tensor(self, tensor: Tensor) -> None:
        """A tensor: what it is, how it lies, what is in it."""
        self.say(name_of(type(tensor)), tensor.dtype, tuple(tensor.shape), tensor.layout,
                 tensor.device.type, tensor.requires_grad)  # fmt: skip
        own = {name: value for name, value in vars(tensor).items() if not name.startswith("_")}
        self.visit(own)
        if hasattr(tensor, "__tensor_flatten__") and type(tensor) not in (Tensor, nn.Parameter):
            names, context = tensor.__tensor_flatten__()
            self.visit(context)
            self.visit_all(getattr(tensor, name) for name in names)
        elif is_lazy(tensor) or tensor.is_meta:
            self.say("without values")
        elif tensor.is_quantized:
            self.say(repr(tensor.qscheme()), repr(quantization(tensor)))
            self.say(bytes_of(tensor.int_repr()))
        elif tensor.layout is torch.strided:
            self.say(tensor.stride(), bytes_of(tensor))
        else:
            self.visit_all(find_parts(tensor.detach()))

    def feed_array(self, array: Any) -> None:
        """An array of NumPy."""
        self.say(array.dtype, array.shape, array.strides)
        if array.dtype.hasobject:
            self.visit_all(array.reshape(-1).tolist())
        else:
            self.say(np.ascontiguousarray(array).tobytes())
        self.visit(attributes(array))

    def feed_member(self, member: enum.Enum) -> None:
        """A member of an enumeration: its name, and whatever its value is."""
        self.say(name_of(type(member)), member.name)
        self.visit(member.value)
        self.visit({key: value for key, value in vars(member).items() if key[0] != "_"})

    def feed_mapping(self, mapping: dict[Any, Any]) -> None:
        """A dictionary in its order, which a module's layers are called in."""
        self.say(name_of(type(mapping)), len(mapping))
        for key, value in mapping.items():
            self.visit(key)
            self.visit(value)
        self.visit(attributes(mapping))

    def feed_list(self, items: list[Any]) -> None:
        """A list in its order."""
        self.say(name_of(type(items)), len(items))
        self.visit_all(items)
        self.visit(attributes(items))

    def feed_set(self, items: set[Any]) -> None:
        """A set, in no order."""
        self.say(name_of(type(items)), *sorted(digest_content(item) for item in items))
        self.visit(attributes(items))

    def feed_function(self, function: types.FunctionType) -> None:
        """A function: its name, and of a user's own its code, defaults and what it encloses."""
        self.say(function.__module__, function.__qualname__)
        self.modules.add(str(function.__module__))
        if is_users(function.__module__):
            self.feed_code(function.__code__)
        self.visit(function.__defaults__)
        self.visit(function.__kwdefaults__)
        for cell in function.__closure__ or ():
            try:
                self.visit(cell.cell_contents)
            except ValueError:  # not filled yet
                self.say("empty")
        self.visit({key: value for key, value in vars(function).items() if key != "__wrapped__"})

    def feed_code(self, code: types.CodeType) -> None:
        """What a function does, wherever it stands in its file."""
        self.say(code.co_code, code.co_names, code.co_varnames, code.co_freevars)
        for constant in code.co_consts:
            if isinstance(constant, types.CodeType):
                self.feed_code(constant)
            else:
                self.visit(constant)

    def feed_builtin(self, function: types.BuiltinFunctionType) -> None:
        """A function in C: its name, and what it is bound to."""
        self.say(function.__module__, function.__qualname__)
        if not isinstance(function.__self__, types.ModuleType | None):
            self.visit(function.__self__)

    def feed_class(self, kind: type) -> None:
        """A class: its name; of the user's own also its bases, methods and attributes."""
        self.say(name_of(kind))
        self.modules.add(kind.__module__)
        if not is_users(kind.__module__):
            return
        self.visit_all(kind.__bases__)
        for name, value in sorted(vars(kind).items()):
            written = isinstance(value, types.FunctionType) or not name.startswith("__")
            if written and not name.startswith("_abc_") and not isinstance(value, BY_NAME):
                self.say(name)
                self.visit_leniently(value)

    def visit_leniently(self, one: Any) -> None:
        """Feed an object that is no part of the one in question; what is unknown in it stays so."""
        self.lenient, was = True, self.lenient
        self.visit(one)
        self.lenient = was

    def feed_module(self, module: nn.Module) -> None:
        """A module of PyTorch: its class and everything in it."""
        self.visit(type(module))
        for name, value in vars(module).items():
            self.say(name)
            # Hooks are kept under numbers that a process counts: their order is what matters.
            hooks = "_hooks" in name and isinstance(value, dict)
            self.visit([*value.values()] if hooks else value)

    def feed_script(self, script: Any) -> None:
        """A TorchScript module or function: what it does and what it would save."""
        try:
            self.say(*read_script(script))
        except Exception as error:
            why = str(error).strip().partition("\n")[0]
            raise Unkeyable(f"{type(script).__name__} cannot be saved: {why}") from None

    def feed_object(self, one: torch.ScriptObject) -> None:
        """A packed weight: what it gives for saving."""
        holder: Any = one
        if not holder._has_method("__getstate__"):
            raise Unkeyable(f"{type(one).__name__} does not tell what it holds")
        self.visit(holder.__getstate__())

    def feed_others(self, one: Any) -> None:
        """Any other object: what it would be copied from; Python refuses that for handles."""
        self.visit(type(one))
        if isinstance(getattr(one, "__module__", None), str):
            self.modules.add(one.__module__)  # of a function that is wrapped in C, its own
        if hasattr(one, "__wrapped__"):
            self.visit(one.__wrapped__)
        try:
            parts = one.__reduce_ex__(4)
        except Exception as error:
            raise Unkeyable(f"{name_of(type(one))} does not tell what it holds: {error}") from None
        self.visit_all([parts] if isinstance(parts, str) else map(_listed, parts))


def _listed(part: Any) -> Any:
    return [*part] if isinstance(part, Iterator) else part


FEEDERS: tuple[tuple[Any, Callable[[Walk, Any], None]], ...] = (
    (Tensor, Walk.feed_tensor),
    (np.ndarray, Walk.feed_array),
    (enum.Enum, Walk.feed_member),
    (slice, lambda walk, one: walk.visit_all((one.start, one.stop, one.step))),
    (torch.jit.ScriptModule, Walk.feed_script),
    (torch.jit.ScriptFunction, Walk.feed_script),
    (torch.ScriptObject, Walk.feed_object),
    (nn.Module, Walk.feed_module),
    (dict, Walk.feed_mapping),
    (list, Walk.feed_list),
    ((set, frozenset), Walk.feed_set),
    (types.FunctionType, Walk.feed_function),
    (types.MethodType, lambda walk, one: walk.visit_all((one.__func__, one.__self__))),
    (functools.partial, lambda walk, one: walk.visit_all((one.func, one.args, one.keywords))),
    (torch.Generator, lambda walk, one: walk.visit(one.get_state())),
    (types.MappingProxyType, lambda walk, one: walk.visit(dict(one))),
    (type, Walk.feed_class),
    ((torch._ops.OpOverload, torch._ops.OpOverloadPacket), lambda walk, one: walk.say(one)),
    (weakref.ref, lambda walk, one: walk.say("what it points to is held elsewhere")),
    (property, lambda walk, one: walk.visit_all((one.fget, one.fset, one.fdel))),
    ((staticmethod, classmethod), lambda walk, one: walk.visit(one.__func__)),
    (functools.cached_property, lambda walk, one: walk.visit(one.func)),
    (types.BuiltinFunctionType, Walk.feed_builtin),
    (types.ModuleType, lambda walk, one: walk.say(one.__name__)),
    (BY_NAME, lambda walk, one: walk.say(getattr(one, "__qualname__", "") or one.__name__)),
)
"""How kinds of objects are fed, the first that fits."""
