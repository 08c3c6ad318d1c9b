"""The one extension door: a name leads to a factory; built-ins enter here too.

Models, techniques and data sets are functions under a decorator. They come from this package,
from other packages (entry-point group `paretogrid.plugins`), from a plugin file, or directly from
a file as `path/to/file.py:function`.
"""

from __future__ import annotations

import importlib
import importlib.metadata
import inspect
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import cache
from itertools import chain
from types import UnionType
from typing import (
    TYPE_CHECKING,
    Annotated,
    Any,
    Literal,
    TypeVar,
    Union,
    get_args,
    get_origin,
    get_type_hints,
)

from bench.errors import Refusal, SpecError, suggest
from bench.files import exists, find_path, load_file, noting_moves
from bench.spec import REQUIRED, Call, Parameter, Range, bind, parse_call

if TYPE_CHECKING:
    from bench.subject import Subject

Kind = Literal["model", "technique", "dataset"]
Stage = Literal["recipe", "compression", "execution"]
Realization = Literal["", "simulated", "packed", "executed"]
Factory = TypeVar("Factory", bound=Callable[..., Any])

ENTRY_POINTS = "paretogrid.plugins"
TRAINING_DATA = "training data"
PLAIN_LAYERS, PLAIN_LINEAR = "plain layers", "plain linear layers"
BUILT_IN = ("bench.data", "bench.models", "bench.techniques")


@dataclass(frozen=True)
class Entry:
    """A registered factory and what must be known of it without calling it."""

    kind: Kind
    name: str
    factory: Callable[..., Any]
    parameters: tuple[Parameter, ...]
    summary: str
    source: str
    stage: Stage = "compression"
    realization: Realization = ""
    devices: tuple[str, ...] = ()
    needs: tuple[str, ...] = ()
    check: Callable[..., None] | None = None

    def describe(self) -> dict[str, Any]:
        """Return the entry as plain data: everything but its functions."""
        fields = {name: getattr(self, name) for name in self.__dataclass_fields__}
        del fields["factory"], fields["check"]
        fields["parameters"] = [
            {"name": p.name, "default": _plain(p.default), "type": p.type, "range": str(p.range)}
            | ({"words": list(p.words)} if p.words else {})
            for p in self.parameters
        ]
        return fields


def _plain(default: object) -> object:
    """A parameter's default as data: a plugin's may be anything, a function too."""
    return default if isinstance(default, bool | int | float | str | None) else repr(default)


_entries: dict[tuple[Kind, str], Entry] = {}


def model(name: str) -> Callable[[Factory], Factory]:
    """Register a function that returns a Subject, or a module and its example inputs."""
    return _register("model", name)


def dataset(name: str) -> Callable[[Factory], Factory]:
    """Register a function that returns a Dataset."""
    return _register("dataset", name)


def technique(
    name: str,
    *,
    stage: Stage = "compression",
    realization: Realization = "",
    devices: tuple[str, ...] = (),
    needs: tuple[str, ...] = (),
    check: Callable[..., None] | None = None,
) -> Callable[[Factory], Factory]:
    """Register a function `(subject, **parameters) -> Subject`.

    stage: `recipe` changes how the model is trained, `compression` the trained model,
    `execution` its precision or layout. realization: see the documentation of records.
    devices: device types with kernels for the result; empty means all. needs: `training data`,
    without which it is refused; `plain layers` or `plain linear layers`, whose weights no mask or
    parametrization makes, as it changes these; and words for what it needs only sometimes. check:
    takes what the function takes and raises SpecError or Refusal; is asked before anything is
    trained too.
    """
    return _register(
        "technique", name, stage=stage, realization=realization, devices=devices, needs=needs,
        check=check,
    )  # fmt: skip


def _register(kind: Kind, name: str, **facts: Any) -> Callable[[Factory], Factory]:
    def decorate(factory: Factory) -> Factory:
        entry = _make_entry(kind, name, factory, **facts)
        known = _entries.get((kind, name))
        if known is not None and known.source != entry.source:
            raise SpecError(f"{kind} {name!r} of {entry.source} already exists in {known.source}.")
        _entries[kind, name] = entry
        return factory

    return decorate


def _make_entry(kind: Kind, name: str, factory: Callable[..., Any], **facts: Any) -> Entry:
    signature = list(inspect.signature(factory).parameters.values())
    hints = _type_hints(factory)
    parameters = [
        _make_parameter(parameter, hints.get(parameter.name))
        for parameter in (signature[1:] if kind == "technique" else signature)
        if parameter.kind not in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD)
    ]
    summary = (inspect.getdoc(factory) or "").split("\n\n")[0].replace("\n", " ")
    source = inspect.getsourcefile(inspect.unwrap(factory)) or factory.__module__
    return Entry(kind, name, factory, tuple(parameters), summary, source, **facts)


def _type_hints(factory: Callable[..., Any]) -> dict[str, Any]:
    try:
        return get_type_hints(factory, include_extras=True)
    except Exception:  # a plugin may annotate with names that do not exist when it runs
        return {}


def _make_parameter(parameter: inspect.Parameter, hint: Any) -> Parameter:
    default = REQUIRED if parameter.default is parameter.empty else parameter.default
    types, limits, words = _read_hint(hint)
    types = types or [str]  # words alone
    name = types[0].__name__ if len(types) == 1 and types[0] in (int, float, str, bool) else ""
    keyword_only = parameter.kind is parameter.KEYWORD_ONLY
    limit = limits[0] if limits else Range()
    return Parameter(parameter.name, default, name, limit, keyword_only, tuple(words))


def _read_hint(hint: Any) -> tuple[list[Any], list[Range], list[str]]:
    """The types, ranges and words of an annotation, such as `Annotated[int, …] | Literal["x"]`."""
    origin = get_origin(hint)
    if origin is Annotated:
        inner, *extras = get_args(hint)
        types, limits, words = _read_hint(inner)
        return types, [*limits, *(e for e in extras if isinstance(e, Range))], words
    if origin is Literal:
        return [], [], list(get_args(hint))
    if origin in (Union, UnionType):
        parts = [_read_hint(part) for part in get_args(hint) if part is not type(None)]
        types, limits, words = zip(*parts, strict=True)
        return list(chain(*types)), list(chain(*limits)), list(chain(*words))
    return [hint], [], []


def load_built_ins() -> None:
    """Import this package's own models, techniques and data sets."""
    for name in BUILT_IN:
        importlib.import_module(name)


@cache
def list_installed() -> tuple[str, ...]:
    """Return the names of the plugins that installed packages bring."""
    return tuple(sorted(point.name for point in find_installed()))


def find_installed() -> importlib.metadata.EntryPoints:
    """Return the entry points by which installed packages bring plugins."""
    return importlib.metadata.entry_points(group=ENTRY_POINTS)


def load_plugins(files: Iterable[str] = ()) -> None:
    """Import the plugins of installed packages, then the given files."""
    for point in find_installed():
        try:
            point.load()
        except Exception as error:
            raise SpecError(
                f"Plugin {point.name!r} ({point.value}) fails to import: {error}"
            ) from error
    for file in files:
        load_file(file)


def find(kind: Kind, text: str) -> tuple[Entry, Call]:
    """Return the entry that `text` names and the call in canonical form.

    Raises SpecError with the nearest known name.
    """
    call = _read_call(kind, text)
    file, colon, function = call.name.rpartition(":")
    if colon and file.strip().endswith(".py"):
        entry = _find_in_file(kind, file.strip(), function.strip(), call.name)
        return entry, bind(call, entry.parameters)
    try:
        entry = _entries[kind, call.name]
    except KeyError:
        known = names(kind)
        raise SpecError(
            f"Unknown {kind} {call.name!r}.{suggest(call.name, known)} "
            f"`paretogrid list {kind}s` shows all {len(known)}."
        ) from None
    return entry, bind(call, entry.parameters)


def _read_call(kind: Kind, text: str) -> Call:
    """Read a call; `folder:PATH` is short for folder('PATH'), whatever characters PATH has."""
    prefix, colon, path = text.strip().partition(":")
    if kind != "dataset" or not colon or "(" in prefix or prefix.endswith(".py"):
        return parse_call(text)
    if exists(find_path(path)):
        return Call(prefix, (path,))
    call = parse_call(text)
    prefix, _, path = call.name.partition(":")
    return Call(prefix, (path, *call.args), call.kwargs)


def _find_in_file(kind: Kind, file: str, function: str, name: str) -> Entry:
    loaded = load_file(file)
    factory: Any = getattr(loaded, function, None)
    made = inspect.unwrap(factory) if callable(factory) else None  # without functools.cache
    if not (inspect.isfunction(made) or inspect.isclass(made)):
        functions = [key for key, value in vars(loaded).items() if inspect.isfunction(value)]
        raise SpecError(f"{file} has no function {function!r}.{suggest(function, functions)}")
    for entry in _entries.values():
        if entry.kind == kind and entry.factory is factory:
            return entry
    return _make_entry(kind, name, factory)


def build(kind: Kind, text: str, *leading: Any) -> Any:
    """Call the factory that `text` names, with its parameters; `leading` come first."""
    entry, call = find(kind, text)
    if kind == "technique":
        _check(entry, call, *leading)
    with noting_moves():
        return entry.factory(*leading, *call.args, **dict(call.kwargs))


def check_technique(text: str, subject: Subject) -> None:
    """Raise SpecError or Refusal if a technique cannot be applied to a subject, trained or not."""
    entry, call = find("technique", text)
    _check(entry, call, subject)


def _check(entry: Entry, call: Call, subject: Subject) -> None:
    if not {PLAIN_LAYERS, PLAIN_LINEAR}.isdisjoint(entry.needs):
        from bench.storage import require_plain_layers  # late: who lists techniques needs no torch

        require_plain_layers(subject.module, entry.name, PLAIN_LINEAR in entry.needs)
    if TRAINING_DATA in entry.needs and subject.data is None:
        raise Refusal(f"{entry.name} needs training data, and this model has none")
    if entry.check is None:
        return
    try:
        entry.check(subject, *call.args, **dict(call.kwargs))
    except SpecError as error:
        raise SpecError(f"{call}: {error}") from None


def names(kind: Kind) -> list[str]:
    """Return the registered names of one kind, sorted."""
    return [entry.name for entry in entries(kind)]


def entries(kind: Kind) -> list[Entry]:
    """Return the registered entries of one kind, sorted by name."""
    found = (entry for entry in _entries.values() if entry.kind == kind)
    return sorted(found, key=lambda entry: entry.name)


def catalog() -> list[dict[str, Any]]:
    """Return every entry as plain data, sorted by kind and name."""
    order = get_args(Kind)
    entries = sorted(_entries.values(), key=lambda entry: (order.index(entry.kind), entry.name))
    return [entry.describe() for entry in entries]
