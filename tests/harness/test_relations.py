"""What is told of techniques follows from the cells of a run, and says when it does not hold."""

import numpy as np
import pandas as pd
import pytest

from harness.report.relations import Figure, find_arrivals, find_figures, write_relations


def cells(**accuracy: tuple[float, float, float]) -> pd.DataFrame:
    rows = [
        {"model": "net", "technique": technique.replace("_", "-"), "seed": seed, "accuracy": value,
         "weight_bytes": 100.0 if technique == "baseline" else 25.0, "status": "measured",
         "latency_ratio": 0.5, "latency_ratio_high": 0.6}
        for technique, values in accuracy.items()
        for seed, value in enumerate(values)
    ]  # fmt: skip
    return pd.DataFrame(rows)


def test_a_difference_is_taken_seed_by_seed() -> None:
    found = list(find_figures(cells(baseline=(0.9, 0.5, 0.7), int8_dynamic=(0.89, 0.49, 0.69))))
    assert [figure.relation for figure in found] == ["int8-dynamic loses at most 0.5"]
    assert found[0].values == pytest.approx([-1, -1, -1])
    assert found[0].verdict() == "**does not hold**"


@pytest.mark.parametrize(
    ("values", "verdict"),
    [
        ([2.0, 2.1, 1.9], "holds"),
        ([2.0, -0.5, 0.6], "on average"),
        ([-2.0, 0.5, 0.6], "**does not hold**"),
    ],
)
def test_the_verdict_looks_at_the_whole_interval(values: list[float], verdict: str) -> None:
    assert Figure("a", "net", np.array(values), 0.0).verdict() == verdict


def test_the_interval_is_students_over_seeds() -> None:
    row = Figure("a", "net", np.array([1.0, 2.0, 3.0]), 0.0).row()
    assert "+2.0 (−0.5 … 4.5) points" in row  # 4.303 · 1 / √3 = 2.48


def test_who_never_arrives_counts_with_all_the_time_it_took() -> None:
    rows = [
        {"model": "net", "technique": technique, "seed": seed, "threads": 1, "status": "measured",
         "time_to_target_s": arrival, "tune_quality": [0.1] * 10, "updates_per_epoch": 2,
         "latency_s": 1.0}
        for technique, arrival in (("optimizer('gd', epochs=10)", np.nan),
                                   ("optimizer('momentum')", 4.0), ("optimizer('adam')", 5.0))
        for seed in range(3)
    ]  # fmt: skip
    found = list(find_arrivals(pd.DataFrame(rows)))
    assert [figure.values.tolist() for figure in found] == [[5.0] * 3, [4.0] * 3]


def test_what_was_not_measured_has_no_row() -> None:
    table = cells(baseline=(0.9, 0.9, 0.9), share_weights=(0.9, 0.9, 0.9))
    empty = pd.DataFrame(columns=["status", "threads", "model"])
    page = write_relations(table, empty)
    assert page.endswith("|---|---|---:|---|\n\n")
    assert page == write_relations(table)
