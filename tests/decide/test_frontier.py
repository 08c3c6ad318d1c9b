"""The frontier against its definition."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from simulated import make_frame

from harness.decide.answer import answer
from harness.decide.frontier import (
    Objective,
    choose_objectives,
    find_frontiers,
    find_objective,
    mark_frontier,
)
from harness.errors import UserError

LATENCY_AND_ACCURACY = [Objective("latency_s", "lower"), Objective("accuracy", "higher")]


@st.composite
def problems(draw):
    """Points on a small grid of whole numbers, so that ties and duplicates are common."""
    objectives = draw(st.integers(1, 4))
    row = st.tuples(*[st.integers(0, 4)] * objectives)
    rows = draw(st.lists(row, max_size=25))
    maximise = draw(st.lists(st.booleans(), min_size=objectives, max_size=objectives))
    return np.array(rows, float).reshape(len(rows), objectives), maximise


def dominates(one, other, maximise):
    better = [a > b if most else a < b for a, b, most in zip(one, other, maximise, strict=True)]
    worse = [a < b if most else a > b for a, b, most in zip(one, other, maximise, strict=True)]
    return any(better) and not any(worse)


def mark_by_definition(points, maximise):
    return [not any(dominates(other, one, maximise) for other in points) for one in points]


def names(cells):
    return list(cells["technique"])


@settings(max_examples=300)
@given(problems())
def test_the_frontier_is_what_the_definition_says(problem):
    points, maximise = problem
    assert mark_frontier(points, maximise).tolist() == mark_by_definition(points, maximise)


@given(problems(), st.randoms(use_true_random=False))
def test_the_order_of_the_points_does_not_matter(problem, random):
    points, maximise = problem
    order = list(range(len(points)))
    random.shuffle(order)
    marked = mark_frontier(points, maximise)
    assert mark_frontier(points[order], maximise).tolist() == marked[order].tolist()


def test_equal_points_do_not_dominate_each_other():
    points = np.array([[1.0, 1.0], [1.0, 1.0], [2.0, 1.0]])
    assert mark_frontier(points, [False, False]).tolist() == [True, True, False]


def test_no_points_have_no_frontier():
    assert mark_frontier(np.empty((0, 2)), [False, True]).tolist() == []


def test_a_cell_without_a_value_is_named_and_not_lost():
    frame = make_frame(
        [
            {"latency_s": 1.0, "accuracy": 0.9},
            {"latency_s": 2.0, "accuracy": 0.8},
            {"latency_s": 0.1},
            {"accuracy": 0.99},
            {},
        ]
    )
    (group,) = find_frontiers(frame, LATENCY_AND_ACCURACY)
    assert names(group.members) == ["t0"]
    assert names(group.dominated) == ["t1"]
    assert names(group.incomplete) == ["t2", "t3", "t4"]


value = st.one_of(st.none(), st.integers(1, 5).map(float))
row = st.fixed_dictionaries(
    {
        "latency_s": value,
        "accuracy": value,
        "peak_memory_bytes": value,
        "threads": st.integers(1, 2),
        "seed": st.integers(0, 1),
        "task": st.sampled_from(["one", "two", ""]),
    }
)


@pytest.mark.slow
@settings(max_examples=50)
@given(st.lists(row, max_size=12))
def test_every_measured_cell_is_in_one_group_and_one_part(rows):
    rows = [{**row, "technique": f"t{n}"} for n, row in enumerate(rows)]
    frame = make_frame(rows) if rows else make_frame([{}])
    parts = [
        cells
        for group in find_frontiers(frame, LATENCY_AND_ACCURACY)
        for cells in (group.members, group.dominated, group.incomplete)
    ]
    assert sorted(name for cells in parts for name in names(cells)) == sorted(names(frame.cells))


@pytest.mark.parametrize("seeds", [(0,), (0, 1)], ids=["one seed", "two seeds"])
def test_a_cell_of_a_run_that_names_no_task_is_not_lost(seeds):
    frame = make_frame(
        [
            {"task": None, "latency_s": 1.0, "accuracy": 0.5, "seed": s, "technique": "a"}
            for s in seeds
        ]
    )
    (group,) = find_frontiers(frame, LATENCY_AND_ACCURACY)
    assert names(group.members) == ["a"]


def test_cells_of_different_places_are_never_compared():
    fast = {"latency_s": 1.0, "accuracy": 0.9}
    slow = {"latency_s": 2.0, "accuracy": 0.8}
    others = [{"device": "cuda"}, {"threads": 2}, {"batch": 8}, {"task": "u"}]
    found = list(
        find_frontiers(make_frame([fast, *(slow | o for o in others)]), LATENCY_AND_ACCURACY)
    )
    # Sorted by task, device, threads, batch.
    assert [names(group.members) for group in found] == [["t0"], ["t3"], ["t2"], ["t1"], ["t4"]]
    assert not any(len(group.dominated) for group in found)


def test_models_of_one_task_are_compared():
    frame = make_frame(
        [
            {"model": "small", "latency_s": 1.0, "accuracy": 0.9},
            {"model": "large", "latency_s": 2.0, "accuracy": 0.8},
        ]
    )
    (group,) = find_frontiers(frame, LATENCY_AND_ACCURACY)
    assert list(group.members["model"]) == ["small"]


def test_only_measured_cells_are_compared():
    frame = make_frame([{"latency_s": 1.0, "accuracy": 0.9, "status": "failed"}])
    assert list(find_frontiers(frame, LATENCY_AND_ACCURACY)) == []


def test_seeds_are_averaged_and_their_intervals_joined():
    frame = make_frame(
        [
            {"technique": "a", "seed": 0, "latency_s": 1.0, "latency_s_low": 0.9,
             "latency_s_high": 1.1, "accuracy": 0.8},
            {"technique": "a", "seed": 1, "latency_s": 3.0, "latency_s_low": 2.5,
             "latency_s_high": 3.5, "accuracy": 0.9},
        ]
    )  # fmt: skip
    (group,) = find_frontiers(frame, LATENCY_AND_ACCURACY)
    (cell,) = group.members.to_dict("records")
    assert (cell["latency_s"], cell["latency_s_low"], cell["latency_s_high"]) == (2.0, 0.9, 3.5)
    assert cell["accuracy"] == pytest.approx(0.85)
    assert cell["seeds"] == 2


def test_the_answer_compares_each_member_with_the_baseline_of_its_own_model():
    rows = [
        {"model": model, "technique": technique, "latency_s": latency, "accuracy": accuracy,
         "weight_bytes": weight, "latency_ratio": ratio}
        for model, technique, latency, accuracy, weight, ratio in [
            ("a", "baseline", 4.0, 0.9, 100, 1.0), ("a", "half", 2.0, 0.8, 50, 0.5),
            ("b", "baseline", 8.0, 0.95, 400, 1.0), ("b", "half", 1.0, 0.5, 40, 0.125),
        ]
    ]  # fmt: skip
    (found,) = answer(make_frame(rows))
    assert [choice.name for choice in found.choices] == [
        "b · half", "a · half", "a · baseline", "b · baseline",
    ]  # fmt: skip
    fastest, second, *baselines = found.choices
    assert fastest.quality_change == pytest.approx(-0.45)
    assert fastest.weight_ratio == pytest.approx(0.1)
    assert second.quality_change == pytest.approx(-0.1)
    assert second.weight_ratio == pytest.approx(0.5)
    assert all(choice.is_baseline for choice in baselines)
    assert found.considered == 4


def test_a_member_whose_baseline_failed_has_no_gain():
    (found,) = answer(make_frame([{"technique": "half", "latency_s": 1.0, "accuracy": 0.5}]))
    (choice,) = found.choices
    assert not choice.is_baseline
    assert np.isnan([choice.latency_ratio, choice.weight_ratio, choice.quality_change]).all()


def test_fidelity_decides_where_nothing_has_accuracy():
    frame = make_frame([{"latency_s": 1.0, "fidelity": 0.9}])
    assert [objective.name for objective in choose_objectives(frame)] == ["latency_s", "fidelity"]


def test_each_task_is_judged_by_what_it_has():
    rows = [
        {"task": "digits", "latency_s": 1.0, "accuracy": 0.9, "fidelity": 1.0},
        {"task": "my.py:net", "latency_s": 1.0, "fidelity": 1.0},
        {"task": "my.py:net", "latency_s": 0.5, "fidelity": 0.8},
    ]
    with_data, without = answer(make_frame(rows))
    assert (with_data.quality, without.quality) == ("accuracy", "fidelity")
    assert len(with_data.choices) == 1
    assert [choice.name for choice in without.choices] == ["t2", "t1"]


def test_an_unknown_metric_gets_the_nearest_name():
    with pytest.raises(UserError, match=r"Unknown metric 'acuracy'\. Did you mean 'accuracy'\?"):
        find_objective(make_frame([{}]), "acuracy", "higher")


def test_an_unknown_column_to_group_by_is_refused():
    with pytest.raises(UserError, match="no such column"):
        list(find_frontiers(make_frame([{}]), LATENCY_AND_ACCURACY, by=["planet"]))
