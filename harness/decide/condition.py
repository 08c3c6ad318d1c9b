"""Conditions: a small safe language of comparisons, `and` and `or` over the columns of a run."""

from __future__ import annotations

import fnmatch
import operator
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
import pyparsing as pp
from numpy.typing import NDArray

from bench.errors import suggest
from harness.decide.frame import Frame
from harness.decide.units import to_metric_unit
from harness.errors import UserError

OPERATORS: dict[str, Callable[[Any, Any], Any]] = {
    "<=": operator.le, ">=": operator.ge, "==": operator.eq, "!=": operator.ne,
    "<": operator.lt, ">": operator.gt, "=": operator.eq,
}  # fmt: skip
MIRRORED = {"<": ">", ">": "<", "<=": ">=", ">=": "<=", "==": "==", "!=": "!=", "=": "="}
EXAMPLE = "latency_s < 5ms and (accuracy >= 95% or technique == 'baseline')"
MOST_CHARACTERS = 2_000
Mask = NDArray[np.bool_]
Table = Mapping[str, Any] | pd.DataFrame


@dataclass(frozen=True)
class Quantity:
    """A number as it was written, with its unit."""

    number: float
    unit: str


@dataclass(frozen=True)
class Comparison:
    """A column, how it is compared, and with what: a number in the column's unit, or a text."""

    column: str
    sign: str
    bound: float | str | bool
    text: str

    def holds(self, table: Table) -> Mask:
        """Tell for each row whether the comparison holds; for an unknown value it does not."""
        column = pd.Series(table[self.column])
        if isinstance(self.bound, str):
            same = column.map(lambda value: fnmatch.fnmatchcase(str(value), str(self.bound)))
            found = ~same if self.sign == "!=" else same
        else:
            found = OPERATORS[self.sign](column, self.bound)
        return np.asarray(found & column.notna(), dtype=bool)

    def violation(self, table: Table) -> NDArray[np.float64]:
        """Tell how far each row is from holding, relative to the bound; inf where unknown."""
        column, held = pd.Series(table[self.column]), self.holds(table)
        if isinstance(self.bound, str | bool) or self.sign in ("==", "!="):
            return np.where(held, 0.0, np.inf)
        distance = (column.astype(float) - self.bound).abs() / (abs(self.bound) or 1.0)
        far = distance.where(column.notna(), np.inf).to_numpy(float)
        return np.where(held, 0.0, np.maximum(far, 1e-12))


@dataclass(frozen=True)
class Condition:
    """Comparisons joined by `and` or `or`, and the text that they were read from."""

    parts: tuple[Condition | Comparison, ...]
    joined_by: str
    text: str = ""

    def columns(self) -> tuple[str, ...]:
        """Return the columns that the condition looks at, each once."""
        return tuple(dict.fromkeys(one.column for one in self.comparisons()))

    def comparisons(self) -> Iterator[Comparison]:
        """Yield every comparison."""
        for part in self.parts:
            yield from [part] if isinstance(part, Comparison) else part.comparisons()

    def holds(self, table: Table) -> Mask:
        """Tell for each row of a table of columns whether the condition holds."""
        join = np.logical_and if self.joined_by == "and" else np.logical_or
        return np.asarray(join.reduce([part.holds(table) for part in self.parts]), dtype=bool)

    def violation(self, table: Table) -> NDArray[np.float64]:
        """Tell how far each row is from holding: by the worst part of `and`, the best of `or`."""
        join = np.maximum if self.joined_by == "and" else np.minimum
        return np.asarray(join.reduce([part.violation(table) for part in self.parts]), dtype=float)


def read_condition(text: str, frame: Frame) -> Condition:
    """Return the condition that a text writes, its numbers in the units of the frame's metrics.

    Raises UserError for what is no condition, an unknown column, or a unit that does not fit.
    """
    if len(text) > MOST_CHARACTERS:
        raise UserError(f"A condition may have {MOST_CHARACTERS} characters, not {len(text)}.")
    try:
        tree = GRAMMAR.parse_string(text, parse_all=True)[0]
    except pp.ParseBaseException as problem:
        rest = text[problem.loc :].strip()
        place = f"at {rest[:40]!r}" if rest else "at its end"
        raise UserError(
            f"Cannot read the condition {text!r} {place}. A condition is like: {EXAMPLE}."
        ) from None
    except RecursionError:
        raise UserError("The condition has too many parentheses within each other.") from None
    return Condition((_settle(tree, frame),), "and", text)


def split_condition(whole: Condition) -> list[Condition]:
    """Return the conditions that all must hold: the parts of an outermost `and`."""
    inner = whole.parts[0]
    if isinstance(inner, Condition) and inner.joined_by == "and":
        return [Condition((part,), "and", _write(part)) for part in inner.parts]
    return [whole]


def _write(part: Condition | Comparison) -> str:
    if isinstance(part, Comparison):
        return part.text
    return "(" + f" {part.joined_by} ".join(_write(one) for one in part.parts) + ")"


def _settle(tree: Any, frame: Frame) -> Condition | Comparison:
    """Return a parsed tree with columns found and numbers in their units."""
    if not isinstance(tree, tuple):
        joined_by, parts = tree[1], tree[0::2]
        return Condition(tuple(_settle(part, frame) for part in parts), joined_by)
    left, sign, right = tree
    sign = "==" if sign == "=" else sign
    if not isinstance(left, Name):
        left, sign, right = right, MIRRORED[sign], left
    if not isinstance(left, Name) or isinstance(right, Name):
        raise UserError(f"A condition compares a column with a value, as in: {EXAMPLE}.")
    column = _find_column(left.name, frame)
    bound = _fit_bound(right, column, sign, frame)
    return Comparison(column, sign, bound, f"{column} {sign} {_write_bound(right)}")


def _write_bound(written: Quantity | bool | str) -> str:
    if isinstance(written, Quantity):
        return f"{written.number:g}{written.unit}"
    return str(written).lower() if isinstance(written, bool) else repr(written)


def _find_column(name: str, frame: Frame) -> str:
    if name in frame.cells:
        return name
    known = [str(column) for column in frame.cells.columns]
    raise UserError(
        f"Unknown column {name!r}.{suggest(name, known)} "
        "`paretogrid list metrics` shows what is measured, docs/columns.md every column."
    )


def _fit_bound(written: Any, column: str, sign: str, frame: Frame) -> float | str | bool:
    values = frame.cells[column].dropna()
    if isinstance(written, Quantity):
        base = column.removesuffix("_low").removesuffix("_high")
        metric = frame.metrics.get(column) or frame.metrics.get(base)
        unit = metric.unit if metric else ""
        if len(values) and not pd.api.types.is_numeric_dtype(pd.Series(list(values))):
            raise UserError(f"{column} is no number: compare it with a text, in quotes.")
        return to_metric_unit(written.number, written.unit, unit, column)
    if isinstance(written, bool):
        if sign not in ("==", "!="):
            raise UserError(f"true and false are compared by == and !=, not by {sign}.")
        return written
    if column in frame.metrics or not all(isinstance(value, str) for value in values.head(100)):
        raise UserError(f"{column} is no text: compare it with a number, without quotes.")
    if sign not in ("==", "!="):
        raise UserError(f"Texts are compared by == and !=, not by {sign}.")
    return str(written)


@dataclass(frozen=True)
class Name:
    """A column as it was written."""

    name: str


def _make_grammar() -> pp.ParserElement:
    unit = r"(?:\s*(?!(?:and|or)\b)(?:%|/s\b|[A-Za-zµ]+(?:/s\b)?))?"
    number = pp.Regex(
        r"(?P<number>[+-]?(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?)(?P<unit>" + unit + ")"
    )
    number.set_parse_action(lambda found: Quantity(float(found["number"]), found["unit"].strip()))
    text = pp.QuotedString("'") | pp.QuotedString('"')
    word = pp.Regex(r"(?!(?:and|or)\b)[A-Za-z_][A-Za-z0-9_]*")
    truths = {"true": True, "false": False}
    word.set_parse_action(lambda found: truths.get(found[0].lower(), Name(found[0])))
    operand = number | text | word
    comparison = operand + pp.one_of(list(OPERATORS)) + operand
    comparison.set_parse_action(lambda found: [tuple(found)])
    joins = [(pp.Keyword(word), 2, pp.OpAssoc.LEFT) for word in ("and", "or")]
    whole: pp.ParserElement = pp.infix_notation(comparison, joins)  # type: ignore[no-untyped-call]  # it has no types
    return whole


GRAMMAR = _make_grammar()
