"""Less work that takes more time is told in words, with the reason; nothing else is."""

from dataclasses import astuple
from typing import Any

import numpy as np
import pandas as pd
import pytest

from harness.decide.frame import Frame
from harness.decide.mean import mean_interval
from harness.record import METRICS
from harness.report.claims import find_claims
from harness.report.strengths import draw_strengths, find_curves

QUALITY = next(metric for metric in METRICS if metric.name == "accuracy")


def cell(technique: str, ratio: float, low: float, bound: str = "overhead", **more: Any) -> Any:
    return {
        "model": "net", "technique": technique, "device": "cpu", "threads": 1, "batch": 1,
        "runtime": "eager", "seed": 0, "task": "t", "status": "measured", "realization": "executed",
        "latency_ratio": ratio, "latency_ratio_low": low, "latency_ratio_high": 2 * ratio - low,
        "bound": bound, "fraction_of_roof": 0.25, "macs": 100.0, "weight_bytes": 400.0,
        "nonzero_params": 100.0, **more,
    }  # fmt: skip


def tell(*cells: dict[str, Any]) -> list[str]:
    table = pd.DataFrame([cell("baseline", 1.0, 1.0), *cells])
    return find_claims(Frame("run", table, {metric.name: metric for metric in METRICS}))


def test_fewer_multiplications_and_more_time_are_named_with_the_bound() -> None:
    (told,) = tell(cell("prune(0.5)", 1.1, 1.05, macs=50.0))
    assert told == (
        "prune(0.5): 50% of the multiply-accumulates, yet 1.10 (1.05–1.15) times the latency of "
        "its baseline on net, cpu, threads 1, batch 1. The call is bound by overhead: starting "
        "operators takes longer than what they compute, and there are no fewer of them."
    )


@pytest.mark.parametrize("unknown", [None, float("nan")])
def test_where_nobody_knows_what_bounds_a_call_no_reason_is_made_up(unknown: Any) -> None:
    uncounted = {"macs": unknown, "fraction_of_roof": unknown, "bound": unknown}
    (told,) = tell(cell("prune(0.5)", 1.1, 1.05, weight_bytes=50.0, **uncounted))
    assert told.endswith("12% of the stored bytes, yet 1.10 (1.05–1.15) times the latency of its "
                         "baseline on net, cpu, threads 1, batch 1.")  # fmt: skip


def test_of_several_seeds_the_share_of_the_roof_is_their_mean() -> None:
    shares = [(0, 0.2), (1, 0.4)]
    cells = [cell("prune(0.5)", 1.1, 1.05, "memory", macs=50.0, seed=seed, fraction_of_roof=share)
             for seed, share in shares]  # fmt: skip
    (told,) = tell(cell("baseline", 1.0, 1.0, seed=1), *cells)
    assert "Bound by memory, at 30% of the roof" in told


@pytest.mark.parametrize(
    "cells",
    [
        cell("faster", 0.5, 0.4, macs=50.0),
        cell("not surely slower", 1.02, 0.99, macs=50.0),
        cell("slower and no lighter", 1.5, 1.4),
    ],
)
def test_nothing_is_told_of_what_keeps_its_promise_or_makes_none(cells: dict[str, Any]) -> None:
    assert tell(cells) == []


@pytest.mark.parametrize(
    ("more", "words"),
    [
        ({"weight_bytes": 100.0, "bound": "compute", "realization": "packed"},
         "25% of the stored bytes, yet 1.20 (1.10–1.30) times"),
        ({"weight_bytes": 100.0, "bound": "compute", "realization": "packed"},
         "Bound by compute, at 25% of the roof: the weights are unpacked for every call"),
        ({"nonzero_params": 10.0, "bound": "compute", "realization": "simulated"},
         "10% of the weights are not zero, yet"),
        ({"nonzero_params": 10.0, "bound": "compute", "realization": "simulated"},
         "the kernels are dense and multiply the zeros too"),
        ({"macs": 30.0, "bound": "memory"}, "it is bytes moved that count"),
        ({"macs": 30.0, "bound": "compute"}, "come less near to what the machine can do"),
    ],
)  # fmt: skip
def test_the_reason_follows_from_bound_and_realization(more: dict[str, Any], words: str) -> None:
    (told,) = tell(cell("x", 1.2, 1.1, **more))
    assert words in told


def test_cells_of_one_technique_and_bound_are_told_once_by_the_clearest() -> None:
    slow = cell("x(2)", 1.5, 1.4, macs=50.0, batch=64)
    base = cell("baseline", 1.0, 1.0, batch=64)
    (told,) = tell(cell("x(1)", 1.2, 1.1, macs=50.0), slow, base)
    assert told.startswith("x(2): 50%")
    assert "batch 64 (the clearest of 2 such cells)" in told


def test_what_is_slower_by_luck_among_many_cells_is_no_claim() -> None:
    """Its own interval is above 1, and its p-value not small for so many.

    q-values are written when a run ends; of one that was killed, there are none.
    """
    nan = float("nan")
    for p_values, claims in (((0.001, 0.2), 1), ((nan, 0.01), 2), ((0.04, 0.06, 0.9), 0)):
        names = ("x", "y", "z")
        told = tell(*(cell(name, 1.2, 1.1, macs=50.0, latency_ratio_p_value=p)
                      for name, p in zip(names, p_values, strict=False)))  # fmt: skip
        assert len(told) == claims


@pytest.mark.parametrize(("second", "claims"), [(0.001, 1), (0.3, 0)])
def test_a_claim_of_several_seeds_is_none_if_one_of_them_may_be_luck(
    second: float, claims: int
) -> None:
    cells = [cell("x", 1.2, 1.1, macs=50.0, seed=seed, latency_ratio_p_value=p)
             for seed, p in enumerate((0.001, second))]  # fmt: skip
    assert len(tell(cell("baseline", 1.0, 1.0, seed=1), *cells)) == claims


# Strength curves


def strengths() -> pd.DataFrame:
    rows = [
        {"model": "net", "technique": technique, "seed": seed, "accuracy": value + 0.01 * seed}
        for technique, value in (
            ("baseline", 0.9), ("prune(0.5, epochs=3)", 0.8), ("prune(0.9, epochs=3)", 0.5),
            ("prune(0.7, epochs=3)", 0.7), ("prune(0.5)", 0.6), ("conv-2-4", 0.5),
        )
        for seed in range(3)
    ]  # fmt: skip
    return pd.DataFrame(rows)


def test_a_curve_is_of_techniques_that_differ_in_one_number() -> None:
    (curve,) = find_curves(strengths(), "accuracy")
    assert curve.technique == "prune(·, epochs=3)"
    assert curve.values[:, 0].tolist() == [0.5, 0.7, 0.9]
    assert curve.values[:, 1] == pytest.approx([0.81, 0.71, 0.51])


def test_the_interval_of_a_share_ends_where_shares_end() -> None:
    table = strengths()
    table["accuracy"] = table["accuracy"].where(table["seed"] > 0, 0.02)
    (curve,) = find_curves(table, "accuracy")
    assert curve.values[:, 2].tolist() == [0.0] * 3
    (free,) = find_curves(table.rename(columns={"accuracy": "r2"}), "r2")
    assert (free.values[:, 2] < 0).all()
    assert (free.values[:, 3] <= 1).all()


def test_a_parameter_that_is_left_out_counts_as_it_is_spelled() -> None:
    table = strengths().replace("prune(0.7, epochs=3)", "prune(epochs=3)")
    spelled = {"prune(epochs=3)": "prune(0.7, epochs=3)", "prune(0.5)": ""}
    (curve,) = find_curves(table, "accuracy", spelled)
    assert curve.values[:, 0].tolist() == [0.5, 0.7, 0.9]


def test_the_interval_of_a_mean_is_students_over_seeds() -> None:
    found = astuple(mean_interval([1.0, 2.0, 3.0]))
    assert found == pytest.approx((2, -0.484, 4.484), abs=1e-3)
    alone = mean_interval([0.5])
    assert alone.value == 0.5
    assert np.isnan([alone.low, alone.high]).all()


def test_every_curve_is_drawn_with_its_model() -> None:
    figure = draw_strengths(find_curves(strengths(), "accuracy"), QUALITY, "By strength")
    shown = [axes for axes in figure.axes if axes.get_visible()]
    assert [axes.get_title() for axes in shown] == ["prune(·, epochs=3)"]
    assert [text.get_text() for text in figure.legends[0].get_texts()] == ["net"]
