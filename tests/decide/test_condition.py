"""Conditions: what they read, what they refuse, and that they mean what they say."""

from __future__ import annotations

import operator

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from simulated import make_frame

from harness.decide.condition import read_condition, split_condition
from harness.errors import UserError

FRAME = make_frame([
    {"latency_s": 0.004, "weight_bytes": 1e6, "accuracy": 0.95, "settled": True},
    {"latency_s": 0.005, "weight_bytes": 2e6, "accuracy": 0.90, "settled": False},
    {"latency_s": 0.006, "accuracy": 0.85, "technique": "prune(0.5)"},
])  # fmt: skip


def holding(text: str) -> list[bool]:
    found: list[bool] = read_condition(text, FRAME).holds(FRAME.cells).tolist()
    return found


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("latency_s < 5ms", [True, False, False]),
        ("latency_s<=5 ms", [True, True, False]),
        ("latency_s < 0.005", [True, False, False]),
        ("5ms > latency_s", [True, False, False]),
        ("latency_s < 5000us", [True, False, False]),
        ("latency_s < 5e3 µs", [True, False, False]),
        ("weight_bytes < 1.5MB", [True, False, False]),
        ("weight_bytes < 1MiB", [True, False, False]),
        ("weight_bytes != 1MB", [False, True, False]),
        ("accuracy >= 90%", [True, True, False]),
        ("accuracy > .9 or latency_s > 5.5ms", [True, False, True]),
        ("accuracy < 0.92 and latency_s < 5.5ms or accuracy > 0.93", [True, True, False]),
        ("accuracy < 0.92 and (latency_s < 5.5ms or accuracy > 0.93)", [False, True, False]),
        ("technique == 'prune*'", [False, False, True]),
        ('technique != "prune(0.5)"', [True, True, False]),
        ("settled == true", [True, False, False]),
        ("threads = 1", [True, True, True]),
        ("threads >= 2", [False, False, False]),
    ],
)
def test_a_condition_means_what_it_says(text: str, wanted: list[bool]) -> None:
    assert holding(text) == wanted


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("__import__('os').system('x')", "Cannot read the condition"),
        ("latency_s < __import__('os')", "at \"('os')\""),
        ("latency_s.__class__ == 1", "Cannot read the condition"),
        ("latency_s < 5ms; drop", "at '; drop'"),
        ("", "at its end"),
        ("latency_s <", "Cannot read the condition"),
        ("latency_s < 5ms and", "Cannot read the condition"),
        ("(latency_s < 5ms", "Cannot read the condition"),
        ("latency_s", "A condition is like: latency_s < 5ms"),
        ("latncy_s < 5ms", "Did you mean 'latency_s'?"),
        ("latency_s < 5MB", "5 MB does not fit latency_s, which is in s; it takes s, ms"),
        ("weight_bytes < 3 parsecs", "3 parsecs does not fit weight_bytes"),
        ("threads < 2ms", "2 ms does not fit threads"),
        ("latency_s < 'fast'", "latency_s is no text"),
        ("technique < 'a'", "Texts are compared by == and !="),
        ("technique == 5", "technique is no number"),
        ("latency_s < accuracy", "compares a column with a value"),
        ("1 < 2", "compares a column with a value"),
        ("settled < true", "true and false are compared by =="),
        ("latency_s < 1" + " or latency_s < 1" * 200, "may have 2000 characters"),
    ],
)
def test_what_is_no_condition_is_refused_with_what_would_work(text: str, message: str) -> None:
    with pytest.raises(UserError) as refused:
        read_condition(text, FRAME)
    assert message in str(refused.value)


def test_an_unknown_value_keeps_no_condition() -> None:
    assert holding("weight_bytes < 1GB") == [True, True, False]
    assert holding("weight_bytes != 5") == [True, True, False]


def test_the_parts_of_an_outermost_and_can_be_told_apart() -> None:
    whole = read_condition(
        "latency_s < 5ms and accuracy > 90% and (threads == 1 or batch == 1)", FRAME
    )
    parts = split_condition(whole)
    assert [part.text for part in parts] == [
        "latency_s < 5ms", "accuracy > 90%", "(threads == 1 or batch == 1)",
    ]  # fmt: skip
    together = np.logical_and.reduce([part.holds(FRAME.cells) for part in parts])
    assert together.tolist() == whole.holds(FRAME.cells).tolist()
    either = read_condition("latency_s < 5ms or accuracy > 90%", FRAME)
    assert split_condition(either) == [either]


def test_a_violation_is_relative_to_the_bound() -> None:
    condition = read_condition("latency_s < 5ms and accuracy >= 0.95", FRAME)
    assert condition.violation(FRAME.cells) == pytest.approx([0, 0.05 / 0.95, 0.2])
    either = read_condition("latency_s < 4.5ms or accuracy >= 0.95", FRAME)
    assert either.violation(FRAME.cells) == pytest.approx([0, 0.05 / 0.95, 0.1 / 0.95])
    assert read_condition("weight_bytes < 1MB", FRAME).violation(FRAME.cells)[2] == np.inf


SIGNS = {"<": operator.lt, "<=": operator.le, ">": operator.gt, ">=": operator.ge,
         "==": operator.eq, "!=": operator.ne}  # fmt: skip
leaf = st.tuples(
    st.sampled_from(["threads", "batch", "seed"]), st.sampled_from(sorted(SIGNS)), st.integers(0, 4)
)
trees = st.recursive(
    leaf,
    lambda inner: st.tuples(
        st.sampled_from(["and", "or"]), st.lists(inner, min_size=2, max_size=3)
    ),
    max_leaves=8,
)


def write(tree) -> str:
    if len(tree) == 3:
        return f"{tree[0]} {tree[1]} {tree[2]}"
    return "(" + f" {tree[0]} ".join(write(part) for part in tree[1]) + ")"


def evaluate(tree, row) -> bool:
    if len(tree) == 3:
        return bool(SIGNS[tree[1]](row[tree[0]], tree[2]))
    join = all if tree[0] == "and" else any
    return join(evaluate(part, row) for part in tree[1])


@settings(max_examples=100)
@given(trees, st.lists(st.tuples(*[st.integers(0, 4)] * 3), min_size=1, max_size=4))
def test_nested_conditions_are_read_as_they_are_written(tree, rows) -> None:
    cells = [dict(zip(("threads", "batch", "seed"), row, strict=True)) for row in rows]
    frame = make_frame(cells)
    found = read_condition(write(tree), frame).holds(frame.cells)
    assert found.tolist() == [evaluate(tree, row) for row in cells]
