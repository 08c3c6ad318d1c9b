"""How a name with parameters is written: `prune-channels(0.5)`, joined by `+` to a pipeline."""

from __future__ import annotations

import ast
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from math import inf
from typing import Any

from bench.errors import SpecError, suggest

REQUIRED = "<required>"
TYPE_NAMES = {
    "int": "a whole number",
    "float": "a number",
    "str": "text in quotes",
    "bool": "True or False",
}


@dataclass(frozen=True)
class Call:
    """A name and its arguments, as written; `str()` gives the text back."""

    name: str
    args: tuple[object, ...] = ()
    kwargs: tuple[tuple[str, object], ...] = ()

    def __str__(self) -> str:
        parts = [repr(value) for value in self.args]
        parts += [f"{name}={value!r}" for name, value in self.kwargs]
        return f"{self.name}({', '.join(parts)})" if parts else self.name


@dataclass(frozen=True)
class Range:
    """The values that a number may take; written as `Annotated[float, Range(0, 1)]`."""

    low: float = -inf
    high: float = inf
    below: bool = False
    """True where `high` itself is excluded."""

    def __contains__(self, value: float) -> bool:
        return self.low <= value and (value < self.high if self.below else value <= self.high)

    def __str__(self) -> str:
        upper = f"below {self.high:g}" if self.below else f"{self.high:g}"
        if self.high == inf:
            return "any number" if self.low == -inf else f"{self.low:g} or more"
        return f"from {self.low:g} to {upper}"


@dataclass(frozen=True)
class Parameter:
    """One parameter of a factory; `default` is REQUIRED where there is none.

    type: `int`, `float`, `str`, `bool`, or an empty string where any value is taken. words: the
    texts that are taken beside a number, or the only ones where the type is `str`.
    """

    name: str
    default: object = REQUIRED
    type: str = ""
    range: Range = field(default_factory=Range)
    keyword_only: bool = False
    words: tuple[str, ...] = ()

    def read(self, value: object, call: Call) -> object:
        """Return the value, a whole number as a float where one is wanted.

        Raises SpecError unless the value has the right type and lies in the range.
        """
        if not self.type or value in self.words or (value is None and self.default is None):
            return value
        kind = type(value).__name__
        if self.words and kind == "str":
            known = ", ".join(repr(word) for word in self.words)
            hint = suggest(str(value), self.words)
            raise SpecError(f"{call}: {self.name} must be one of {known}, got {value!r}.{hint}")
        if kind != self.type and not (kind == "int" and self.type == "float"):
            wanted = " or ".join([TYPE_NAMES.get(self.type, self.type), *map(repr, self.words)])
            raise SpecError(f"{call}: {self.name} must be {wanted}, got {value!r}.")
        if isinstance(value, int | float) and value not in self.range:
            raise SpecError(f"{call}: {self.name} must be {self.range}, got {value!r}.")
        try:
            return float(value) if self.type == "float" and isinstance(value, int) else value
        except OverflowError:
            raise SpecError(f"{call}: {self.name} is too large for a number.") from None


IN_FILE = re.compile(r"(.+\.py\s*:\s*\w+)\s*(?:\((.*)\))?", re.DOTALL)
"""`path/to/file.py:function(1)`: the path may hold parentheses, quotes and spaces itself."""


def parse_call(text: str) -> Call:
    """Read `name`, `name(1, key='x')`; raise SpecError that quotes the text."""
    text = text.strip()
    in_file = IN_FILE.fullmatch(text)
    if in_file:
        name, inside = in_file.groups()
        return Call(name) if inside is None else _parse_arguments(name, inside, text)
    name, parenthesis, rest = text.partition("(")
    name = name.strip()
    if not name:
        raise SpecError(f"{text!r} has no name. Write it as name or name(parameter).")
    if not parenthesis:
        if ")" in name:
            raise SpecError(f"{text!r} closes a parenthesis that was never opened.")
        return Call(name)
    if not rest.endswith(")"):
        raise SpecError(f"{text!r} does not close its parenthesis.")
    return _parse_arguments(name, rest[:-1], text)


def _parse_arguments(name: str, inside: str, text: str) -> Call:
    try:
        tree = ast.parse(f"f({inside})", mode="eval").body
    except (SyntaxError, ValueError, MemoryError, RecursionError):  # the last two: nested too deep
        raise SpecError(f"{text!r}: cannot read the parameters {inside!r}.") from None
    if not isinstance(tree, ast.Call) or not isinstance(tree.func, ast.Name):
        raise SpecError(f"{text!r}: cannot read the parameters {inside!r}.")
    if any(keyword.arg is None for keyword in tree.keywords):
        raise SpecError(f"{text!r}: '**' is not allowed in parameters.")
    args = tuple(_literal(node, text) for node in tree.args)
    kwargs = tuple((str(keyword.arg), _literal(keyword.value, text)) for keyword in tree.keywords)
    return Call(name, args, kwargs)


def _literal(node: ast.expr, text: str) -> object:
    try:
        value = ast.literal_eval(node)
        ast.literal_eval(repr(value))  # infinity cannot be written again: 1e999 is refused
    except (ValueError, TypeError, SyntaxError, MemoryError, RecursionError):
        raise SpecError(
            f"{text!r}: parameter {ast.unparse(node)!r} is not a number, text or list. "
            "Text needs quotes."
        ) from None
    if not isinstance(value, bool | int | float | str | list | tuple | None):
        raise SpecError(f"{text!r}: parameter {value!r} is not a number, text or list.")
    return value


def find_files(text: str) -> list[str]:
    """Return the Python files that a call names: its own, and those in its arguments."""
    call = parse_call(text)
    file, colon, _ = call.name.rpartition(":")
    found = [file.strip()] if colon and file.strip().endswith(".py") else []
    for value in (*call.args, *(value for _, value in call.kwargs)):
        if isinstance(value, str) and IN_FILE.fullmatch(value.strip()):
            found += find_files(value)
    return found


def split_pipeline(text: str) -> tuple[str, ...]:
    """Split at `+` outside parentheses and quotes: `a(1) + b` gives ('a(1)', 'b')."""
    parts, depth, quote, escaped, start = [], 0, "", False, 0
    for position, character in enumerate(text):
        if escaped:
            escaped = False
        elif quote:
            escaped = character == "\\"
            quote = "" if character == quote else quote
        elif character in "'\"" and depth:  # elsewhere it belongs to a path
            quote = character
        elif character == "(":
            depth += 1
        elif character == ")":
            depth -= 1
        elif character == "+" and depth == 0:
            parts.append(text[start:position])
            start = position + 1
    parts.append(text[start:])
    if any(not part.strip() for part in parts):
        raise SpecError(f"{text!r} has an empty step. Write steps as 'first + second'.")
    return tuple(part.strip() for part in parts)


def parse_pipeline(text: str) -> tuple[Call, ...]:
    """Read `a(1) + b` as a tuple of calls, in the order in which they are applied."""
    return tuple(parse_call(part) for part in split_pipeline(text))


def bind(call: Call, parameters: Sequence[Parameter]) -> Call:
    """Return the call in canonical form, so that equal calls are written alike.

    The first parameter is positional unless it is keyword-only, the others are named, defaults
    are left out, and whole numbers for a float are written as floats.
    Raises SpecError for too many, unknown, repeated or missing arguments.
    """
    names = [parameter.name for parameter in parameters]
    if len(call.args) > len(names):
        raise SpecError(f"{call}: takes {_count(names)}, got {len(call.args)} values.")
    values = dict(zip(names, call.args, strict=False))
    for name, value in call.kwargs:
        if name not in names:
            raise SpecError(
                f"{call}: no parameter {name!r}.{suggest(name, names)} It takes {_count(names)}."
            )
        if name in values:
            raise SpecError(f"{call}: parameter {name!r} is given twice.")
        values[name] = value
    missing = [p.name for p in parameters if p.default == REQUIRED and p.name not in values]
    if missing:
        raise SpecError(
            f"{call}: parameter {missing[0]!r} is missing: write {call.name}({missing[0]}=...)."
        )
    for parameter in parameters:
        if parameter.name in values:
            values[parameter.name] = parameter.read(values[parameter.name], call)
    kept = [
        (p.name, values[p.name])
        for p in parameters
        if p.name in values and (p.default == REQUIRED or not _same(values[p.name], p.default))
    ]
    if kept and kept[0][0] == names[0] and not parameters[0].keyword_only:
        return Call(call.name, (kept[0][1],), tuple(kept[1:]))
    return Call(call.name, (), tuple(kept))


def name_arguments(call: Call, parameters: Sequence[Parameter]) -> dict[str, Any]:
    """Return the arguments of a canonical call by the names of their parameters."""
    names = (parameter.name for parameter in parameters)
    return dict(zip(names, call.args, strict=False)) | dict(call.kwargs)


def spell_out(call: Call, parameters: Sequence[Parameter]) -> str:
    """Return a canonical call with its first parameter written even where it is the default."""
    first = parameters[0] if parameters else None
    if first is None or call.args or first.keyword_only or first.default in (REQUIRED, None):
        return str(call)
    return str(Call(call.name, (first.default,), call.kwargs))


def _same(value: object, default: object) -> bool:
    return value == default and isinstance(value, bool) == isinstance(default, bool)


def _count(names: Sequence[str]) -> str:
    return f"the parameters {', '.join(names)}" if names else "no parameters"
