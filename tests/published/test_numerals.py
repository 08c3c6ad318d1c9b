"""Tests of numerals: a number is read as its writer meant it, or the table is refused."""

from __future__ import annotations

import random

import pandas as pd
import pytest

from harness.errors import UserError
from harness.published.numerals import OTHER, write_plainly
from harness.published.table import read_numbers


def write(number: float, decimal: str, apart: str, places: int) -> str:
    text = f"{number:,.{places}f}"
    return text.translate(str.maketrans({",": apart, ".": decimal}))


def read(
    *columns: list[str], whole: bool = False, decimal: str = "", separator: str = ","
) -> list[list[float]]:
    table = pd.DataFrame({str(n): pd.Series(column, dtype=str) for n, column in enumerate(columns)})
    names = list(table.columns)
    plain = write_plainly(table, names, names if whole else [], decimal, separator)
    return [read_numbers(plain[name]).tolist() for name in names]


@pytest.mark.parametrize("seed", range(300))
def test_a_column_is_read_as_it_was_written_or_refused(seed: int) -> None:
    rng = random.Random(seed)
    decimal, separator = rng.choice([(".", ","), (",", ","), (",", ";"), (".", "\t")])
    columns, truth, rows = [], [], rng.choice([1, 5, 40])
    for _ in range(rng.randint(1, 3)):
        # Groups without a mark, with blanks, or with the mark that is not the decimal one.
        apart = rng.choice(["", "", " ", "'", "\u202f", OTHER[decimal]])
        places, size = rng.choice([0, 1, 2, 3, 3, 4]), rng.choice([1, 10, 1e3, 1e5, 1e8])
        numbers = [round(rng.uniform(-size, size), places) for _ in range(rows)]
        truth.append(numbers)
        columns.append([write(number, decimal, apart, places) for number in numbers])
    assert read(*columns, decimal=decimal, separator=separator) == truth
    try:
        found = read(*columns, separator=separator)
    except UserError as refused:
        assert 'decimal = "' in str(refused) or "Write all" in str(refused)
        return
    # Points of a comma-separated table without another comma are decimal: a convention of old.
    has_comma = any("," in text for column in columns for text in column)
    assert found == truth or (decimal == "," == separator and not has_comma)


@pytest.mark.parametrize(
    ("column", "others", "separator", "whole", "numbers"),
    [
        (["1,234"], [], ";", False, [1.234]),
        (["1,234"], [], ";", True, [1234]),
        (["1,234"], [], ",", True, [1234]),
        (["1,234"], [["12.5"]], ",", False, [1234]),
        (["1,234"], [["12,5"]], ",", False, [1.234]),
        (["1,234", "987"], [["1.5"]], ";", False, [1234, 987]),
        (["1,234", "1,234,567"], [], ",", False, [1234, 1234567]),
        (["1,234", "0,125"], [], ",", False, [1.234, 0.125]),
        (["1.234", "1.234.567"], [], ",", False, [1234, 1234567]),
        (["1.234"], [], ",", False, [1.234]),
        (["1.234"], [["12,5"]], ",", True, [1234]),
        (["1.234", "1.5"], [], ";", False, [1.234, 1.5]),
        (["1.234", "1.500"], [["76.1"]], ";", False, [1.234, 1.5]),
        (["12 345", "1'234'567.5"], [], ",", False, [12345, 1234567.5]),
        (["12,5 %", "7 %"], [], ",", False, [0.125, 0.07]),
        (["\u22121,5"], [], ",", False, [-1.5]),
    ],
)
def test_what_a_column_does_not_tell_the_table_does(
    column: list[str], others: list[list[str]], separator: str, whole: bool, numbers: list[float]
) -> None:
    same = [other * len(column) for other in others]
    assert read(column, *same, whole=whole, separator=separator)[0] == pytest.approx(numbers)


@pytest.mark.parametrize(
    ("column", "others", "whole", "separator"),
    [
        (["1,234"], [], False, ","),
        (["1.234"], [], True, ","),
        (["1.234"], [["12.5"]], True, ","),
        (["1.234", "1.500"], [], False, ";"),
        (["1.234", "1.500"], [["12,5"]], False, ","),
        (["1,234"], [["12,5"], ["12.5"]], False, ","),
        (["1,234"], [["12,5"]], True, ","),
    ],
)
def test_a_number_that_may_be_read_in_two_ways_is_refused_with_what_to_say(
    column: list[str], others: list[list[str]], whole: bool, separator: str
) -> None:
    same = [other * len(column) for other in others]
    with pytest.raises(UserError, match='decimal = "'):
        read(column, *same, whole=whole, separator=separator)
    first = [read(column, decimal=mark)[0][0] for mark in ",."]
    assert sorted(first) == pytest.approx([1.234, 1234])


@pytest.mark.parametrize(
    "text", ["12 13", "1,23,456", "12..5", "1,2,3", "0 125", "1e", "", "-", "%"]
)
def test_what_is_no_number_is_none_and_never_one_ten_times_as_large(text: str) -> None:
    (numbers,) = read([text, "1.5"])
    assert pd.isna(numbers[0]) and numbers[1] == 1.5
