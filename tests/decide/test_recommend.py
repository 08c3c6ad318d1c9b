"""Recommendations against a search by hand, and what they say of their own doubt."""

from __future__ import annotations

import math

import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from simulated import make_frame

from harness.decide.condition import read_condition
from harness.decide.frontier import Objective
from harness.decide.noise import Noise
from harness.decide.recommend import recommend
from harness.report.advice import describe

EXACT = Noise(pd.DataFrame(columns=["cell_id", "heat", "session", "round", "log_s"]))
NAMES = ("latency_s", "accuracy", "params")
DIRECTIONS = {"latency_s": "lower", "accuracy": "higher", "params": "lower"}


def decide(rows, where=(), objectives=("accuracy",), noise=EXACT):
    frame = make_frame(rows)
    conditions = [read_condition(text, frame) for text in where]
    wanted = [Objective(name, DIRECTIONS[name]) for name in objectives]
    return recommend(frame, conditions, wanted, noise)


value = st.integers(0, 4).map(float)
cells = st.lists(st.fixed_dictionaries(dict.fromkeys(NAMES, value)), min_size=1, max_size=12)
bounds = st.lists(
    st.tuples(st.sampled_from(NAMES), st.sampled_from(["<=", ">="]), st.integers(0, 4)), max_size=3
)
wanted = st.permutations(NAMES).flatmap(lambda order: st.integers(1, 3).map(lambda n: order[:n]))


def keeps(row, bound) -> bool:
    name, sign, limit = bound
    return row[name] <= limit if sign == "<=" else row[name] >= limit


def rank(row, objectives):
    return tuple(row[n] if DIRECTIONS[n] == "lower" else -row[n] for n in objectives)


@pytest.mark.slow
@settings(max_examples=150)
@given(cells, bounds, wanted)
def test_the_pick_is_what_a_search_through_all_cells_finds(rows, limits, objectives) -> None:
    where = [f"{name} {sign} {limit}" for name, sign, limit in limits]
    (one,) = decide(rows, where, objectives)
    feasible = [row for row in rows if all(keeps(row, limit) for limit in limits)]
    assert one.feasible == len(feasible)
    if not feasible:
        assert one.pick is None
        assert one.nearest is not None
        return
    ranks = sorted(rank(row, objectives) for row in feasible)
    assert rank(one.pick, objectives) == ranks[0]
    if len(ranks) > 1:
        assert rank(one.runner_up, objectives) == ranks[1]
    first = objectives[0]
    for number, held in enumerate(one.held):
        others = limits[:number] + limits[number + 1 :]
        free = [row for row in rows if all(keeps(row, other) for other in others)]
        best = min(rank(row, [first])[0] for row in free)
        assert held.cost == pytest.approx(abs(best - ranks[0][0]))


@pytest.mark.slow
@settings(max_examples=80)
@given(cells, bounds)
def test_the_nearest_misses_by_least(rows, limits) -> None:
    (one,) = decide(rows, [f"{name} {sign} {limit}" for name, sign, limit in limits])
    if one.pick is not None:
        return

    def miss(row) -> float:
        return max(
            0.0 if keeps(row, limit) else abs(row[limit[0]] - limit[2]) / (limit[2] or 1)
            for limit in limits
        )

    assert one.missed_by == pytest.approx(min(miss(row) for row in rows))
    assert miss(one.nearest) == pytest.approx(one.missed_by)


def test_the_probability_that_a_condition_holds_is_that_of_its_interval() -> None:
    rows = [{"latency_s": 0.004, "latency_s_low": 0.003, "latency_s_high": 0.005, "params": 5.0,
             "accuracy": 0.9}]  # fmt: skip
    (one,) = decide(rows, ["latency_s < 5ms"])
    assert one.probability == pytest.approx(0.975, abs=0.01)
    (one,) = decide(rows, ["latency_s <= 4ms", "params > 1"])
    assert [held.probability for held in one.held] == [pytest.approx(0.5, abs=0.03), 1]
    assert one.probability == pytest.approx(0.5, abs=0.03)


def test_one_metric_in_two_conditions_is_drawn_once() -> None:
    rows = [{"latency_s": 0.004, "latency_s_low": 0.003, "latency_s_high": 0.005, "accuracy": 0.9}]
    (one,) = decide(rows, ["latency_s <= 4ms", "latency_s <= 4ms"])
    assert one.probability == pytest.approx(0.5, abs=0.03)


def test_the_pick_against_the_runner_up_says_how_sure_that_is() -> None:
    rows = [
        {"accuracy": 0.90, "accuracy_low": 0.88, "accuracy_high": 0.92},
        {"accuracy": 0.89, "accuracy_low": 0.87, "accuracy_high": 0.91},
        {"accuracy": 0.50, "accuracy_low": 0.49, "accuracy_high": 0.51},
    ]
    (one,) = decide(rows)
    assert one.runner_up["technique"] == "t1"
    assert one.margin == pytest.approx(0.01)
    assert one.ahead == pytest.approx(0.76, abs=0.05)  # Φ(0.01 / (0.0102 · √2))


def test_ties_are_settled_by_the_next_objective() -> None:
    rows = [{"accuracy": 0.9, "latency_s": 2.0}, {"accuracy": 0.9, "latency_s": 1.0}]
    (one,) = decide(rows, objectives=("accuracy", "latency_s"))
    assert one.pick["technique"] == "t1"
    assert (one.decided_by, one.margin) == ("latency_s", 1.0)


def test_conditions_on_the_place_choose_groups_and_cost_nothing() -> None:
    rows = [{"accuracy": 0.9, "threads": threads} for threads in (1, 2, 4)]
    found = decide(rows, ["threads <= 2"])
    assert [one.key["threads"] for one in found] == [1, 2]
    assert all(one.held == () for one in found)
    assert decide(rows, ["threads == 8"]) == []


def test_a_cell_that_lacks_a_value_is_told_and_not_taken() -> None:
    (one,) = decide([{"accuracy": 0.9}, {"accuracy": 0.8, "latency_s": 1.0}], ["latency_s < 2"])
    assert one.pick["technique"] == "t1"
    assert one.unknown["technique"].tolist() == ["t0"]


def test_where_nothing_is_feasible_the_words_say_what_is_nearest_and_by_how_much() -> None:
    rows = [{"latency_s": 0.006, "accuracy": 0.9}, {"latency_s": 0.008, "accuracy": 0.95}]
    (one,) = decide(rows, ["latency_s < 5ms"])
    frame = make_frame(rows)
    said = " ".join(describe(one, frame, [Objective("accuracy", "higher")]))
    assert "None of 2 variants keeps all conditions" in said
    assert "m · t0" in said
    assert "20.0%" in said
    assert "6.00 ms" in said
    assert math.isnan(one.margin)


def test_the_words_name_pick_runner_up_doubt_and_cost() -> None:
    rows = [
        {"latency_s": 0.004, "latency_s_low": 0.0039, "latency_s_high": 0.0041, "accuracy": 0.90},
        {"latency_s": 0.003, "accuracy": 0.85},
        {"latency_s": 0.009, "accuracy": 0.95},
    ]
    (one,) = decide(rows, ["latency_s < 5ms"])
    said = list(describe(one, make_frame(rows), [Objective("accuracy", "higher")]))
    assert said[0].startswith("Take m · t0: accuracy 0.9000, latency (median) 4.00 (3.90–4.10) ms")
    assert "> 99 %" in said[2]
    assert "m · t1" in said[3]
    assert "without it m · t2 is 0.05000 better in accuracy" in said[4]


def test_without_intervals_no_probability_is_stated_but_counts_are_certain() -> None:
    rows = [{"latency_s": 0.004, "accuracy": 0.9, "params": 5.0},
            {"latency_s": 0.003, "accuracy": 0.8, "params": 5.0}]  # fmt: skip
    (one,) = decide(rows, ["latency_s < 5ms", "params < 10"])
    assert math.isnan(one.held[0].probability)
    assert one.held[1].probability == 1
    assert math.isnan(one.probability)
    assert math.isnan(one.ahead)
    said = " ".join(describe(one, make_frame(rows), [Objective("accuracy", "higher")]))
    assert "how sure they are is not known" in said
    assert "that it is behind" not in said
