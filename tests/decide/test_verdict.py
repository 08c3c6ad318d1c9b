"""What to ship under a size limit: the rule, and the doubt."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from simulated import make_frame

from harness.decide.noise import Noise
from harness.decide.verdict import decades, find_verdicts

EXACT = Noise(pd.DataFrame(columns=["cell_id", "heat", "session", "round", "log_s"]))


def row(size: float, latency_s: float, accuracy: float, spread: float = 0.0) -> dict[str, float]:
    bounds = {"latency_s_low": latency_s * (1 - spread), "latency_s_high": latency_s * (1 + spread)}
    return {"weight_bytes": size, "latency_s": latency_s, "accuracy": accuracy, **bounds}


def test_the_fastest_that_loses_at_most_a_point_is_named_for_each_limit() -> None:
    rows = [row(5e5, 3.0, 0.97), row(1e5, 2.0, 0.965), row(9e4, 1.0, 0.90), row(2e6, 4.0, 0.99)]
    found = list(find_verdicts(make_frame(rows), EXACT))
    assert [(one.limits, one.pick["technique"], one.best["technique"]) for one in found] == [
        ((1e5,), "t1", "t1"),
        ((1e6,), "t1", "t0"),
        ((1e7,), "t3", "t3"),
    ]
    assert found[1].next["technique"] == "t0"


def test_limits_are_powers_of_ten_around_the_sizes() -> None:
    assert decades(pd.Series([25_000, 635_000])) == (1e5, 1e6)
    assert decades(pd.Series([1e5])) == (1e5,)
    assert decades(pd.Series([999])) == (1e3,)


def test_the_verdict_says_how_sure_it_is() -> None:
    generator = np.random.default_rng(0)
    right = {"c0": generator.random(400) < 0.95}
    right["c1"] = right["c0"].copy()
    right["c1"][:4] = ~right["c1"][:4]
    rows = [row(1e3, 2.0, right["c0"].mean(), 0.1), row(1e3, 1.9, right["c1"].mean(), 0.1)]
    (one,) = list(find_verdicts(make_frame(rows), Noise(EXACT.rounds, right)))
    assert one.pick["technique"] == "t1"
    assert 0.3 < one.good_enough < 1
    assert one.ahead == pytest.approx(0.76, abs=0.1)  # Φ(ln(2/1.9) / (0.051 · √2))


def test_without_doubt_none_is_stated() -> None:
    (one, *_) = find_verdicts(make_frame([row(1e3, 1.0, 0.9)]), EXACT)
    assert np.isnan(one.good_enough)
    assert np.isnan(one.ahead)
    assert one.next is None
