"""Numerals: which mark is the decimal one in a table, and its numbers written plainly.

1,234 is 1234 to one reader and 1.234 to another. A column tells which by its other numbers, or the
table does by its other columns; where neither does, it is refused: a factor of 1000 is no detail.
"""

from __future__ import annotations

from collections.abc import Collection

import pandas as pd

from harness.errors import UserError

BETWEEN_GROUPS = r"(?<=\d)[ \u00a0\u202f\u2009'\u2019_](?=\d)"
GROUPED = r"[+-]?[1-9]\d{0,2}(\u2007\d{3})+([.,]\d*)?%?"
"""Groups of three digits, with a figure space between them."""
OTHER = {",": ".", ".": ","}
NAMES = {",": "decimal commas", ".": "decimal points"}
NUMBER = {
    mark: rf"[+-]?(?=\{mark}?\d)"
    rf"(\d*(\{mark}\d*)?([eE][+-]?\d+)?|[1-9]\d{{0,2}}(\{apart}\d{{3}})+(\{mark}\d*)?)%?"
    for mark, apart in OTHER.items()
}
"""A number with this decimal mark; its groups of three have the other mark between them."""


def write_plainly(
    table: pd.DataFrame, names: Collection[str], whole: Collection[str] = (), decimal: str = "",
    separator: str = ",",
) -> pd.DataFrame:  # fmt: skip
    """Return a table of text in which the numbers of these columns have a decimal point only.

    names: columns of numbers. whole: those of them that hold whole numbers, in which 1,234 and
    1.234 can only be 1234. decimal: the mark of all, where it is known. separator: of the file; one
    with semicolons leaves the comma to its numbers. What is no number becomes empty. Raises
    UserError for a column with both marks, and for one that may be read either way.
    """
    texts = {name: _join_groups(table[name]) for name in names}
    certain = {name: {decimal} if decimal else find_marks(text) for name, text in texts.items()}
    for name, marks in certain.items():
        if len(marks) > 1:
            both = " and ".join(f"{NAMES[m]} ({_first_with(m, texts[name])})" for m in ",.")
            raise UserError(f"Column {name!r} has {both}. Write all of its numbers alike.")
    elsewhere: set[str] = set().union(*certain.values())
    plain = {}
    for name, text in texts.items():
        mark = next(iter(certain[name]), "") or _infer_mark(
            text, name, name in whole, elsewhere, separator
        )
        plain[name] = _with_point(text, mark)
    return table.assign(**plain)


def find_marks(text: pd.Series) -> set[str]:
    """Return the marks that can only be decimal ones in some number of a column."""
    return {mark for mark in ",." if _is_decimal(mark, text).any()}


def _is_decimal(mark: str, text: pd.Series) -> pd.Series:
    """Which numbers can be read with this decimal mark only."""
    return _fits(mark, text) & ~_fits(OTHER[mark], text)


def _fits(mark: str, text: pd.Series) -> pd.Series:
    """Which texts are numbers if this is the decimal mark."""
    return text.str.fullmatch(NUMBER[mark])


def _with_point(text: pd.Series, mark: str) -> pd.Series:
    """The numbers of a column with this decimal mark; of other texts nothing is left."""
    alone = text.str.replace(OTHER[mark], "", regex=False)
    return alone.str.replace(mark, ".", regex=False).where(_fits(mark, text), "")


def _infer_mark(
    text: pd.Series, name: str, whole: bool, elsewhere: set[str], separator: str
) -> str:
    """The decimal mark of a column whose own numbers do not tell."""
    comma, point = _first_with(",", text), _first_with(".", text)
    if comma and point:
        raise UserError(f"Column {name!r} has {comma} and {point}. Write all its numbers alike.")
    value, mark = (comma, ",") if comma else (point, ".")
    match mark if value else "", "".join(sorted(elsewhere)), whole:
        case ("", _, _) | (",", ".", _) | (".", ".", False) | (",", "", True):
            return "."
        case (".", "", False) if separator != ";":
            return "."
        case (",", ",", False) | (".", ",", True):
            return ","
        case (",", "", False) if separator == ";":
            return ","
    raise UserError(
        f"Column {name!r}: is {value} the number {value.replace(mark, '')} or "
        f"{value.replace(mark, '.')}? Nothing in the table tells. Say so in the map of columns: "
        f'decimal = "{OTHER[mark]}" or decimal = "{mark}".'
    )


def _first_with(mark: str, text: pd.Series) -> str:
    """The first number of a column that has a mark, or nothing."""
    numbers = text[text.str.contains(mark, regex=False) & (_fits(",", text) | _fits(".", text))]
    return str(numbers.iloc[0]) if len(numbers) else ""


def _join_groups(text: pd.Series) -> pd.Series:
    """Numbers whose groups of three digits have blanks or apostrophes between them, without."""
    text = text.str.replace("\u2212", "-").str.replace(r"\s+(?=%$)", "", regex=True)
    joined = text.str.replace(BETWEEN_GROUPS, "\u2007", regex=True)
    grouped = joined.str.fullmatch(GROUPED)
    return text.where(~grouped, joined.str.replace("\u2007", "", regex=False))
