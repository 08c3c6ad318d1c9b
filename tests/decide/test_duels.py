"""GPU against CPU on a store whose crossover is known, and on published tables."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from simulated import make_frame

from harness.decide.devices import (
    device_kind,
    divide,
    find_duels,
    find_scalings,
    geometric_mean_ratio,
)
from harness.decide.frame import Frame
from harness.decide.prices import parse_prices, with_prices
from harness.errors import UserError
from harness.published.table import make_cells
from harness.published.timm import read_timm
from harness.record import METRICS

TIMM = Path(__file__).parent.parent / "data" / "timm"
BATCHES = (1, 4, 16, 64, 256)


def timed(latency_s: float, spread: float = 0.02, **axes: object) -> dict[str, object]:
    low, high = latency_s * (1 - spread), latency_s * (1 + spread)
    examples = axes.get("batch", 1)
    return {
        "technique": "baseline", "latency_s": latency_s, "latency_s_low": low,
        "latency_s_high": high, "throughput_per_s": examples / latency_s,
        "throughput_per_s_low": examples / high, "throughput_per_s_high": examples / low, **axes,
    }  # fmt: skip


def store(cpu_s: float = 1e-3, card_s: float = 10e-3, card_per_example_s: float = 1e-5) -> Frame:
    """A host takes 1 ms an example; a card 10 ms a call: they meet at 10.1 examples."""
    rows = [timed(cpu_s * batch, device="cpu", batch=batch) for batch in BATCHES]
    rows += [
        timed(card_s + card_per_example_s * batch, device="cuda", batch=batch) for batch in BATCHES
    ]
    return make_frame(rows)


def test_the_batch_at_which_the_card_overtakes_is_the_known_one() -> None:
    (duel,) = find_duels(store())
    assert duel.devices == ("cpu", "cuda")
    assert [one.batch for one in duel.at] == list(BATCHES)
    known = 10e-3 / (1e-3 - 1e-5)
    assert duel.overtakes_at.value == pytest.approx(known, rel=0.05)
    assert duel.overtakes_at.low < duel.overtakes_at.value < duel.overtakes_at.high
    assert not duel.always
    assert not duel.never


def test_a_card_that_is_always_or_never_faster_crosses_nowhere() -> None:
    (always,) = find_duels(store(card_s=1e-5))
    assert always.always
    assert np.isnan(always.overtakes_at.value)
    (never,) = find_duels(store(card_s=10.0))
    assert never.never
    assert np.isnan(never.overtakes_at.value)


def test_each_device_has_the_threads_that_serve_it_best() -> None:
    rows = [timed(1.0, device="cpu", threads=1), timed(0.4, device="cpu", threads=2),
            timed(0.5, device="cuda", threads=1)]  # fmt: skip
    (duel,) = find_duels(make_frame(rows))
    assert duel.at[0].ratio.value == pytest.approx(0.8)
    assert duel.at[0].first["threads"] == 2


def test_the_interval_of_a_ratio_has_both_cells_doubts() -> None:
    one, other = (make_frame([timed(value)]).cells.iloc[0] for value in (2.0, 1.0))
    ratio = divide(one, other)
    assert ratio.value == 2
    assert ratio.low == pytest.approx(2 * np.exp(-np.hypot(np.log(0.98), np.log(1.02))), rel=1e-6)


def test_scaling_says_where_more_threads_stop_paying() -> None:
    latencies = {1: 1.0, 2: 0.55, 4: 0.35, 8: 0.345, 16: 0.5}
    frame = make_frame([timed(s, 0.01, threads=n) for n, s in latencies.items()])
    (found,) = find_scalings(frame)
    assert found.threads == (1, 2, 4, 8, 16)
    assert found.speed_up[2].value == pytest.approx(1 / 0.35)
    assert found.efficiency[1] == pytest.approx(1 / 0.55 / 2)
    assert found.pays_up_to == 4


@pytest.mark.parametrize(
    ("device", "kind"),
    [
        ("cpu", "cpu"), ("cuda:1", "cuda"), ("cuda-rtx3090", "cuda"), ("cuda:0 (H100)", "cuda"),
        ("cpu (EPYC)", "cpu"), ("cpu-i9_10940x", "cpu"),
    ],
)  # fmt: skip
def test_a_device_is_of_a_kind(device: str, kind: str) -> None:
    assert device_kind(device) == kind


def test_published_tables_compare_as_pandas_computes() -> None:
    files = {"cpu": "benchmark-infer-fp32-nchw-pt221-cpu-i9_10940x-dynamo.csv",
             "cuda": "benchmark-infer-amp-nhwc-pt210-cu121-rtx3090.csv"}  # fmt: skip
    cells = read_timm([TIMM / name for name in files.values()], TIMM / "results-imagenet.csv").cells
    frame = Frame("r", make_cells(cells, "now").to_pandas(), {m.name: m for m in METRICS})
    found = geometric_mean_ratio(list(find_duels(frame)))
    tables = {
        name: pd.read_csv(TIMM / file).assign(
            time=lambda t: t["infer_step_time"] / t["infer_batch_size"] / 1000
        )
        for name, file in files.items()
    }
    both = tables["cpu"].merge(tables["cuda"], on=["model", "infer_img_size"])
    quality = pd.read_csv(TIMM / "results-imagenet.csv")
    quality["architecture"] = quality["model"].str.split(".").str[0]
    joined = both.merge(
        quality,
        left_on=["model", "infer_img_size"],
        right_on=["architecture", "img_size"],
        how="left",
    )
    direct = np.exp(np.log(joined["time_x"] / joined["time_y"]).mean())
    assert found.value == pytest.approx(direct, rel=1e-9)


PRICES = {"date": "2026-11-01", "source": "a test", "currency": "USD",
          "per_hour": {"cpu": 0.36, "cuda*": 3.6, "cuda:1": 7.2}}  # fmt: skip


def test_a_million_inferences_cost_what_the_hour_costs() -> None:
    rows = [
        timed(1e-3 * 64, device=device, batch=64) for device in ("cpu", "cuda", "cuda:1", "tpu")
    ]
    priced = with_prices(make_frame(rows), parse_prices(PRICES, "the test"))
    # 1,000 examples a second: a million take 1,000 s
    assert priced.cells["cost_per_million"].tolist()[:3] == pytest.approx([0.1, 1.0, 2.0])
    assert np.isnan(priced.cells["cost_per_million"].tolist()[3])
    low, value, high = priced.cells.loc[
        0, ["cost_per_million_low", "cost_per_million", "cost_per_million_high"]
    ]
    assert low < value < high
    assert priced.metric("cost_per_million").unit == "USD"


@pytest.mark.parametrize("gone", ["date", "source", "currency", "per_hour"])
def test_a_price_table_names_its_date_and_source(gone: str) -> None:
    data = {name: value for name, value in PRICES.items() if name != gone}
    with pytest.raises(UserError, match=f"the test, {gone}"):
        parse_prices(data, "the test")


def test_threads_that_never_worked_say_nothing_of_threads() -> None:
    """As where the environment takes them away: the record has how many there were."""
    rows = [timed(1.0, threads=count, threads_in_effect=1) for count in (1, 2)]
    assert not [*find_scalings(make_frame(rows))]
    rows[1]["threads_in_effect"] = 2
    (found,) = find_scalings(make_frame(rows))
    assert found.threads == (1, 2)
