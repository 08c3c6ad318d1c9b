"""How sure it is that a cell is on the frontier, against sweeps whose truth is known."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import binom
from simulated import make_frame, simulate

from harness.decide.answer import answer
from harness.decide.blocks import find_rounds
from harness.decide.frontier import Objective, find_frontiers, mark_frontier
from harness.decide.membership import judge, measure_hypervolume, tell_ahead
from harness.decide.noise import Noise, average_draws
from harness.measure.disturbance import Disturbance
from harness.record import METRICS
from harness.rounds import CAUSES, ONE_PROCESS, find_latencies
from harness.stats import Floats
from harness.sweep.heat import Member, TimedBlock
from tests.sweep.scripted import Samples

OBJECTIVES = [Objective("latency_s", "lower"), Objective("accuracy", "higher")]
NO_ROUNDS = pd.DataFrame(columns=["cell_id", "heat", "session", "round", "log_s"])
ACCURACY = next(one for one in METRICS if one.name == "accuracy")
SWEEPS = 400
DRAWN = 200
"""Enough to tell 5 % from 10 %."""


def judged(frame, noise, objectives=OBJECTIVES):
    (group,) = find_frontiers(frame, objectives)
    return judge(group, frame, objectives, noise)


def rows_of(group):
    return pd.concat([group.members, group.dominated]).set_index("technique")


@pytest.mark.slow
@pytest.mark.longest
def test_of_the_cells_that_are_given_80_to_90_percent_as_many_are_members() -> None:
    """The whole table of this simulation stands in docs/decision.md."""
    generator = np.random.default_rng(1)
    told, truth = [], []
    for number in range(SWEEPS):
        sweep = simulate(generator, noise=(0.01, 0.03, 0.1)[number % 3])
        group = judged(sweep.frame, sweep.noise)
        cells = pd.concat([group.members, group.dominated])
        told += cells["membership"].tolist()
        truth += [sweep.truly[cell] for cell in cells["cell_id"]]
    table = pd.DataFrame({"told": told, "truth": truth})
    table["bin"] = (table["told"] * 10).clip(upper=9.999).astype(int)
    shares = table.groupby("bin")["truth"].mean()
    print(table.groupby("bin").agg({"told": "mean", "truth": ["mean", "count"]}))
    assert 0.75 <= shares[8] <= 0.95
    assert shares[9] >= 0.9
    assert shares[0] <= 0.1
    assert shares.is_monotonic_increasing


@pytest.mark.slow
@pytest.mark.parametrize("noise", [0.03, 0.1])
@pytest.mark.parametrize(("cells", "rounds"), [(2, 30), (2, 60), (3, 60), (6, 30)])
def test_two_equal_cells_are_rarely_told_apart_however_few_are_in_their_heat(
    cells: int, rounds: int, noise: float
) -> None:
    """What is told with 90 % or more in either direction is wrong in 20 % of the heats."""
    generator, told, heats = np.random.default_rng(6), [], 200
    for _ in range(heats):
        machine = 0.05 * generator.standard_normal(rounds)
        logs = noise * generator.standard_normal((cells + 1, rounds)) + machine
        ids = [*(f"c{n}" for n in range(cells)), "control-0"]
        table = pd.DataFrame({
            "cell_id": np.repeat(ids, rounds), "heat": "h", "session": 0,
            "round": np.tile(np.arange(rounds), cells + 1), "log_s": logs.ravel(),
        })  # fmt: skip
        found = find_latencies(
            {one: dict(enumerate(np.exp(row))) for one, row in zip(ids, logs, strict=True)}
        )
        frame = make_frame([{"latency_s": found[one].value} for one in ids[:-1]])
        drawn = Noise(table).draw(frame.cells, frame.metric("latency_s"), draws=DRAWN)
        told.append(float(np.mean(drawn[0] < drawn[1])))
    sure = np.mean((np.array(told) < 0.1) | (np.array(told) > 0.9))
    assert 0.08 <= sure <= 0.32


def draw_two(logs: Floats, spread: float = ONE_PROCESS) -> tuple[Floats, Floats]:
    """Return draws of the latencies of two cells, from logarithms of their rounds (NaN: none).

    What is below the first two rows is the control's.
    """
    names = ("c0", "c1", "control-0")
    known = {
        name: {n: float(np.exp(row[n])) for n in np.flatnonzero(np.isfinite(row))}
        for name, row in zip(names, logs, strict=False)
    }
    table = pd.DataFrame([
        {"cell_id": cell, "heat": "h", "session": 0, "round": n, "log_s": np.log(seconds)}
        for cell, rounds in known.items() for n, seconds in rounds.items()
    ])  # fmt: skip
    found = find_latencies(known)
    frame = make_frame([{"latency_s": found[cell].value, "process_spread": spread, "processes": 1}
                        for cell in names[:2]])  # fmt: skip
    drawn = Noise(table).draw(frame.cells, frame.metric("latency_s"), draws=DRAWN)
    return drawn[0], drawn[1]


def find_told(tables: Iterable[Floats], spread: float = ONE_PROCESS) -> float:
    """Return how often one of two cells is told ahead with 95 % or more."""
    shares = [
        np.nan if np.isnan(first).any() else np.mean(first < second)
        for first, second in (draw_two(logs, spread) for logs in tables)
    ]
    return float(np.mean([share < 0.05 or share > 0.95 for share in shares]))


@pytest.mark.slow
@pytest.mark.parametrize("control", [0, 1])
@pytest.mark.parametrize("rounds", [(1, 12), (2, 2), (5, 5), (8, 8), (1, 2), (1, 1)])
def test_a_few_rounds_tell_no_more_than_they_can(rounds: tuple[int, int], control: int) -> None:
    """Two equal cells that had their budgets spent early, beside the machine's own changes."""
    generator = np.random.default_rng(11)

    def make() -> Floats:
        logs = 0.05 * generator.standard_normal((2 + control, 12))
        for row, count in enumerate(rounds):
            logs[row, count:] = np.nan
        return logs + 0.05 * generator.standard_normal(12)

    told = find_told(make() for _ in range(200))
    assert told <= 0.18  # 10 % where the doubt were known
    if min(rounds) >= 5:
        assert told >= 0.02


def test_after_a_single_round_no_probability_is_stated() -> None:
    logs = np.array([[0.0, np.nan], [0.02, np.nan]])
    assert np.isnan(draw_two(logs)).all()
    frame = make_frame([{"latency_s": 1.0, "accuracy": 0.8}, {"latency_s": 1.02, "accuracy": 0.9}])
    table = pd.DataFrame(
        {"cell_id": ["c0", "c1"], "heat": "h", "session": 0, "round": 0, "log_s": [0.0, 0.02]}
    )
    assert "membership" not in judged(frame, Noise(table)).members


def test_a_heat_with_a_single_round_is_as_doubtful_as_the_runs_others() -> None:
    generator = np.random.default_rng(14)
    rows = [
        {"cell_id": f"c{cell}", "heat": f"h{cell // 2}", "session": 0, "round": number,
         "log_s": 0.05 * generator.standard_normal()}
        for cell in range(4) for number in range(1 if cell < 2 else 40)
    ]  # fmt: skip
    logs = pd.DataFrame(rows)
    told = np.exp(logs.groupby("cell_id")["log_s"].median())
    frame = make_frame([{"latency_s": value} for value in told])
    drawn = Noise(logs).draw(frame.cells, frame.metric("latency_s"), draws=5_000)
    apart = np.log(drawn[0] / drawn[1])
    assert apart.mean() == pytest.approx(np.log(told["c0"] / told["c1"]), abs=0.01)
    assert apart.std() == pytest.approx(0.05 * np.sqrt(2), rel=0.25)
    assert np.log(drawn[2] / drawn[3]).std() < 0.03


def test_who_is_ahead_is_unknown_only_where_what_decides_is() -> None:
    first, second = np.array([[1.0, 1.0], [np.nan, 1.0]]), np.array([[2.0, 2.0], [1.0, 2.0]])
    assert tell_ahead(first, second, OBJECTIVES) == 1
    tied = np.array([[1.0, 2.0], [1.0, 2.0]])
    assert np.isnan(tell_ahead(first, tied, OBJECTIVES))
    assert np.isnan(tell_ahead(np.full((1, 3), np.nan), np.ones((1, 3)), OBJECTIVES[:1]))


@pytest.mark.slow
@pytest.mark.parametrize("clean", [0.4, 0.7])
def test_rounds_of_one_cell_alone_do_not_tell_two_equal_ones_apart(clean: float) -> None:
    """Where the control was lost; in most rounds the machine was slow for one of them at most."""
    generator = np.random.default_rng(12)

    def make() -> Floats:
        logs = 0.02 * generator.standard_normal((2, 60)) + 0.1 * generator.standard_normal(60)
        logs[generator.random((2, 60)) > clean] = np.nan
        return logs

    assert 0.03 <= find_told((make() for _ in range(300)), spread=0.0) <= 0.17


def test_the_rounds_of_the_noise_are_those_of_the_headlines() -> None:
    """The least disturbed block of each round, of a level there is enough of; the control's too."""
    generator = np.random.default_rng(13)
    rows = [
        {"heat": "h", "cell_id": cell, "session": 0, "round": number // 2, "block": number,
         "cause": str(generator.choice(CAUSES)), "median_s": float(generator.uniform(1, 2))}
        for cell in ("c0", "c1", "control-0") for number in range(80)
    ]  # fmt: skip
    found = find_rounds(pd.DataFrame(rows))
    for cell in ("c0", "c1", "control-0"):
        member = Member(cell, lambda: Samples(np.ones(1)))
        member.blocks = [
            TimedBlock(row["round"], row["block"], 0, 0.0,
                       Samples(np.array([row["median_s"]]), disturbance=Disturbance(row["cause"])))
            for row in rows if row["cell_id"] == cell
        ]  # fmt: skip
        mine = found[found["cell_id"] == cell].set_index("round")["log_s"]
        assert np.exp(mine).to_dict() == pytest.approx(member.medians())


def test_cells_of_one_heat_are_compared_by_their_rounds() -> None:
    """The machine's speed doubles in some rounds; the order of the cells is never in doubt."""
    generator = np.random.default_rng(0)
    phases = np.log(2) * (np.arange(30) % 7 < 3)
    logs = {"c0": phases, "c1": phases + 0.05}
    table = pd.concat([
        pd.DataFrame({"cell_id": cell, "heat": "h", "session": 0, "round": np.arange(30),
                      "log_s": values + 0.005 * generator.standard_normal(30)})
        for cell, values in logs.items()
    ])  # fmt: skip
    # Each alone, with rounds from half to twice the time, would tell nothing of five percent.
    frame = make_frame([{"latency_s": 1.0, "accuracy": 0.9}, {"latency_s": 1.05, "accuracy": 0.9}])
    group = judged(frame, Noise(table))
    assert rows_of(group).loc["t0", "membership"] > 0.99
    apart = judged(frame, Noise(table.assign(heat=table["cell_id"])))
    assert 0.2 < rows_of(apart).loc["t0", "membership"] < 0.8


def test_cells_with_the_same_answers_are_never_told_apart_by_them() -> None:
    right = np.arange(200) % 10 > 0
    frame = make_frame([{"weight_bytes": 1, "accuracy": 0.9}, {"weight_bytes": 2, "accuracy": 0.9}])
    by_size = [Objective("weight_bytes", "lower"), Objective("accuracy", "higher")]
    group = judged(frame, Noise(NO_ROUNDS, {"c0": right, "c1": right}), by_size)
    assert rows_of(group)["membership"].tolist() == [1, 0]
    other = np.roll(right, 1)
    group = judged(frame, Noise(NO_ROUNDS, {"c0": right, "c1": other}), by_size)
    assert 0.2 < rows_of(group).loc["t1", "membership"] < 0.8


@pytest.mark.parametrize(("more", "fewer"), [(1, 0), (2, 0), (3, 0), (6, 0), (3, 1), (10, 4)])
@pytest.mark.parametrize("examples", [20, 360, 10_000])
def test_a_few_answers_more_tell_who_is_better_as_surely_as_a_flat_prior_does(
    more: int, fewer: int, examples: int
) -> None:
    """Where one is right and the other is not: so many times each way."""
    first = np.arange(examples) >= 1
    second = first.copy()
    first[1 : 1 + fewer], second[-more:] = False, False
    frame = make_frame([{"weight_bytes": 2, "accuracy": first.mean()},
                        {"weight_bytes": 1, "accuracy": second.mean()}])  # fmt: skip
    by_size = [Objective("weight_bytes", "lower"), Objective("accuracy", "higher")]
    group = judged(frame, Noise(NO_ROUNDS, {"c0": first, "c1": second}), by_size)
    wanted = 1 - binom.cdf(more, more + fewer + 1, 0.5)
    sure = rows_of(group).loc["t0", "membership"]
    assert 1 - sure == pytest.approx(wanted, abs=0.06)


@given(seed=st.integers(0, 99), examples=st.integers(1, 300), share=st.floats(0, 1))
def test_accuracies_are_drawn_around_themselves_and_are_shares(
    seed: int, examples: int, share: float
) -> None:
    right = np.random.default_rng(seed).random(examples) < share
    cells = make_frame([{"accuracy": right.mean()}]).measured
    drawn = Noise(NO_ROUNDS, {"c0": right}).draw(cells, ACCURACY, draws=4_000)
    assert ((drawn >= 0) & (drawn <= 1)).all()
    off = 0.4 / examples if 0 < right.mean() < 1 else 0.6 / examples  # beyond 1 there is nothing
    assert drawn.mean() == pytest.approx(right.mean(), abs=off + 4 * drawn.std() / 60)


def test_a_dominated_cell_names_the_member_that_beats_it() -> None:
    frame = make_frame([
        {"latency_s": 1.0, "latency_s_low": 0.99, "latency_s_high": 1.01, "accuracy": 0.8},
        {"latency_s": 2.0, "latency_s_low": 1.99, "latency_s_high": 2.01, "accuracy": 0.9},
        {"latency_s": 3.0, "latency_s_low": 2.99, "latency_s_high": 3.01, "accuracy": 0.85},
        {"latency_s": 2.001, "latency_s_low": 1.99, "latency_s_high": 2.01, "accuracy": 0.9},
    ])  # fmt: skip
    group = judged(frame, Noise(NO_ROUNDS))
    rows = rows_of(group)
    assert rows["standing"].to_dict() == {
        "t0": "member", "t1": "member", "t2": "dominated", "t3": "near",
    }  # fmt: skip
    assert rows["dominated_by"].to_dict() == {"t0": "", "t1": "", "t2": "c1", "t3": "c1"}
    (one,) = answer(frame, OBJECTIVES, Noise(NO_ROUNDS))
    assert one.near["technique"].tolist() == ["t3"]


def test_where_nothing_tells_of_doubt_no_probability_is_stated() -> None:
    frame = make_frame([{"latency_s": 1.0, "accuracy": 0.8}, {"latency_s": 2.0, "accuracy": 0.9}])
    group = judged(frame, Noise(NO_ROUNDS))
    assert "membership" not in group.members
    assert group.hypervolume is None


def test_seeds_of_one_variant_are_drawn_with_it() -> None:
    rows = [
        {"technique": technique, "seed": seed, "weight_bytes": size, "accuracy": accuracy,
         "accuracy_low": accuracy, "accuracy_high": accuracy}
        for technique, size, accuracies in (
            ("small", 1, (0.80, 0.90, 0.85)), ("large", 2, (0.81, 0.91, 0.83)),
        )
        for seed, accuracy in enumerate(accuracies)
    ]  # fmt: skip
    frame = make_frame(rows)
    by_size = [Objective("weight_bytes", "lower"), Objective("accuracy", "higher")]
    found = rows_of(judged(frame, Noise(NO_ROUNDS), by_size))["membership"]
    assert found["small"] == 1
    assert 0.3 < found["large"] < 0.8  # better in two seeds of three, on average a tie


@pytest.mark.parametrize("count", [2, 3, 10])
def test_few_seeds_of_two_equal_variants_tell_them_apart_as_rarely_as_they_say(count: int) -> None:
    """What is told with 95 % or more in either direction is wrong in 10 % of the cases."""
    generator, told = np.random.default_rng(15), []
    for _ in range(600):
        model = generator.standard_normal(count)  # a seed's model is the same for both
        seeds = [model + 0.3 * generator.standard_normal(count) for _ in range(2)]
        drawn = np.repeat(np.concatenate(seeds)[:, None], DRAWN, axis=1)
        groups = [np.arange(count), count + np.arange(count)]
        first, second = average_draws(drawn, groups, [*range(count), *range(count)])
        told.append(np.mean(first < second))
    sure = np.mean((np.array(told) < 0.05) | (np.array(told) > 0.95))
    assert 0.06 <= sure <= 0.14


def test_seeds_that_differ_are_no_pairs_though_there_are_as_many() -> None:
    """One was trained with the first two, the other with the last two, all of which scatter."""
    drawn = np.repeat([[0.90], [0.92], [0.91], [0.93]], DRAWN, axis=1)
    groups = [np.arange(2), 2 + np.arange(2)]
    for seeds, least, most in (([0, 1, 0, 1], 1.0, 1.0), ([0, 1, 1, 2], 0.5, 0.85)):
        first, second = average_draws(drawn, groups, seeds)
        assert least <= np.mean(first < second) <= most


def test_a_mean_over_seeds_is_that_of_one_seed_where_there_is_one_or_all_are_alike() -> None:
    drawn = np.random.default_rng(16).standard_normal((1, DRAWN))
    alone, alike = average_draws(
        np.repeat(drawn, 4, axis=0), [np.arange(1), np.arange(1, 4)], [0, 0, 1, 2]
    )
    assert np.array_equal(alone, drawn[0])
    assert alike == pytest.approx(drawn[0])


def test_the_hypervolume_is_the_share_of_the_box_up_to_the_worst_values() -> None:
    frame = make_frame([
        {"latency_s": 1.0, "accuracy": 0.5}, {"latency_s": 2.0, "accuracy": 1.0},
        {"latency_s": 3.0, "accuracy": 0.5},
    ])  # fmt: skip
    points = frame.cells[["latency_s", "accuracy"]].to_numpy(float)
    volume = measure_hypervolume(
        frame.cells, np.repeat(points[:, :, None], 3, axis=2), OBJECTIVES, [False, True]
    )
    assert volume.share == pytest.approx(0.5)
    assert volume.reference == {"latency_s": 3.0, "accuracy": 0.5}
    assert (volume.low, volume.high) == (volume.share, volume.share)


@pytest.mark.parametrize("metric", [one for one in METRICS if one.interval], ids=lambda m: m.name)
def test_what_has_an_interval_only_is_drawn_within_it(metric) -> None:
    frame = make_frame([{metric.name: 5.0, f"{metric.name}_low": 4.0, f"{metric.name}_high": 7.0}])
    drawn = Noise(NO_ROUNDS).draw(frame.cells, metric, draws=20_000)
    assert np.quantile(drawn, [0.025, 0.5, 0.975]) == pytest.approx([4, 5, 7], abs=0.1)


def test_the_frontier_of_the_draws_is_that_of_the_values_without_noise() -> None:
    sweep = simulate(np.random.default_rng(3), noise=1e-6, examples=50_000)
    points = sweep.frame.cells[["latency_s", "accuracy"]].to_numpy(float)
    marked = mark_frontier(points, [False, True])
    group = judged(sweep.frame, sweep.noise)
    assert set(group.members["cell_id"]) == set(sweep.frame.cells["cell_id"][marked])
