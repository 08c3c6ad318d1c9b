"""Intervals for a repeat, on sessions whose truth is known."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import ArrayLike
from scipy.special import ndtr

from harness.known import WITHIN, Known
from harness.power import smallest_difference, smallest_unlike_difference
from harness.repeats import (
    Comparison,
    average_runs,
    average_sessions,
    compare_sessions,
    find_sessions,
    pay_for_looks,
    pool_rounds,
)
from harness.stats import LEAST_FOR_INTERVAL, PROCESS_SPREAD, Z95, find_trend

TRIALS = 1_000
ROUNDS = 30


def simulate(
    generator: np.random.Generator, sessions: int, known: Known, error: float
) -> tuple[np.ndarray, np.ndarray]:
    """Return values around 0 and their errors; how far sessions are apart is drawn as `known`."""
    variance = known.variance * known.sessions / generator.chisquare(known.sessions)
    errors = error * generator.uniform(0.5, 2, sessions)
    own = np.sqrt(variance) * generator.standard_normal(sessions)
    return own + errors * generator.standard_normal(sessions), errors


@pytest.mark.parametrize("sessions", [1, 2, 3, 8])
@pytest.mark.parametrize("error", [0.001, 0.02])
@pytest.mark.parametrize("weight", [4, 40])
def test_intervals_cover_the_mean_of_all_sessions_as_often_as_they_say(
    sessions: int, error: float, weight: float
) -> None:
    generator, known = np.random.default_rng(3), Known(0.01**2, weight)
    covered = flagged = 0
    for _ in range(TRIALS):
        found = average_sessions(*simulate(generator, sessions, known, error), known)
        interval = found.interval()
        covered += interval.low <= 0 <= interval.high
        flagged += found.p_value() < 0.01
    assert 0.93 <= covered / TRIALS <= 0.97
    assert flagged / TRIALS <= 0.02


@pytest.mark.parametrize("shared", [0.001, 0.03])
@pytest.mark.parametrize("runs", [4, 40])
def test_intervals_cover_another_run_as_often_as_they_say(shared: float, runs: float) -> None:
    """How far runs are apart is drawn as it is known, like how far sessions are."""
    generator = np.random.default_rng(5)
    known = Known(0.01**2, 10, shared**2, runs)
    covered = flagged = 0
    for _ in range(TRIALS):
        values, errors = simulate(generator, 3, known, 0.002)
        off = shared / np.sqrt(generator.chisquare(runs) / runs) * generator.standard_normal()
        found = average_runs(values + off, errors, known)
        interval = found.interval()
        covered += interval.low <= 0 <= interval.high
        flagged += found.p_value() < 0.01
    assert 0.93 <= covered / TRIALS <= 0.97
    assert flagged / TRIALS <= 0.02


@pytest.mark.slow
@pytest.mark.parametrize(
    ("sessions", "rounds"), [(1, 3), (1, 6), (3, 6), (2, 2), (1, 12), (3, 15), (1, 30)]
)
def test_small_p_values_of_few_rounds_are_as_rare_as_they_say(sessions: int, rounds: int) -> None:
    """Also far out, where tables of many cells look for what is one of a thousand."""
    generator, known = np.random.default_rng(6), Known(1e-12, 30)
    found = np.array([
        compare_sessions(
            [0.01 * generator.standard_normal(rounds) for _ in range(sessions)],
            [0.0] * sessions, known,
        ).p_value
        for _ in range(4 * TRIALS)
    ])  # fmt: skip
    for asked in (0.01, 0.001, 0.0001):
        assert (found < asked).sum() < 4 * asked * len(found) + 2


def test_many_sessions_outweigh_what_is_known() -> None:
    """As 410 sessions would, of which ten were as it is known."""
    generator = np.random.default_rng(4)
    for truth in (0.001, 0.01, 0.1):
        values = truth * generator.standard_normal(400)
        found = average_sessions(values, np.full(400, 1e-4), Known(0.01**2, 10))
        together = np.sqrt((10 * 0.01**2 + 400 * truth**2) / 410)
        interval = found.interval()
        half = (interval.high - interval.low) / 2
        assert half == pytest.approx(Z95 * together / 20, rel=0.15)


@given(
    st.lists(st.floats(-3, 3), min_size=1, max_size=8), st.floats(1e-6, 1.0),
    st.floats(1e-6, 1.0), st.floats(1, 100), st.floats(-5, 5),
)  # fmt: skip
def test_an_interval_moves_with_its_values_and_holds_its_mean(
    values: list[float], error: float, spread: float, weight: float, shift: float
) -> None:
    known, errors = Known(spread**2, weight), np.full(len(values), error)
    found = average_sessions(values, errors, known)
    interval = found.interval()
    assert min(values) - 1e-9 <= found.mean <= max(values) + 1e-9
    assert interval.low < interval.value < interval.high
    moved = average_sessions(np.array(values) + shift, errors, known).interval()
    width = interval.high - interval.low
    assert moved.low == pytest.approx(interval.low + shift, abs=0.02 * width)
    assert moved.high == pytest.approx(interval.high + shift, abs=0.02 * width)
    assert 0 < found.p_value() <= 1
    assert (found.p_value() < 0.05) == (interval.low > 0 or interval.high < 0) or (
        min(abs(interval.low), abs(interval.high)) < 0.02 * width
    )


NOISES = {
    "normal": lambda generator, size: generator.standard_normal(size),
    "heavy": lambda generator, size: generator.standard_t(3, size),
    "peaked": lambda generator, size: generator.laplace(size=size),
}


@pytest.mark.parametrize("noise", NOISES)
@pytest.mark.parametrize("sizes", [(1, 2), (2, 2, 2), (10, 3), (60,), (3, 3, 3), (6,), (30, 30)])
def test_the_error_of_a_session_is_that_of_its_middle(sizes: tuple[int, ...], noise: str) -> None:
    """At the bounds of an interval, and at those of a flag: of few rounds tails are longer."""
    generator, away = np.random.default_rng(6), []
    for _ in range(TRIALS):
        sessions = [NOISES[noise](generator, size) for size in sizes]
        middles, errors = find_sessions(sessions)
        _, flagging = find_sessions(sessions, 0.01)
        away.append(abs(middles[0]) / [errors[0] * 1.96, flagging[0] * 2.576])
    covered, unflagged = np.mean(np.array(away) < 1, 0)
    assert covered >= 0.925
    assert unflagged >= 0.975


def test_rounds_that_are_alone_in_their_sessions_tell_no_deviation() -> None:
    deviation, free = pool_rounds([np.array([1.0]), np.array([2.0])])
    assert free == 0
    assert np.isnan(deviation)
    middles, errors = find_sessions([np.array([1.0]), np.array([2.0])])
    assert middles.tolist() == [1.0, 2.0]
    assert np.isnan(errors).all()


def compare(logs: ArrayLike, spread: float = 0.0) -> Comparison:
    return compare_sessions([np.asarray(logs, dtype=float)], [spread], WITHIN.work)


def simulate_heat(generator: np.random.Generator, ratio: float) -> np.ndarray:
    """Log-ratios of a variant and its baseline that sometimes hang, each in one process."""
    hangs = np.where(generator.random((2, ROUNDS)) < 0.03, np.log(1.5), 0.0)
    own = hangs + 0.03 / np.sqrt(2) * generator.standard_normal((2, ROUNDS))
    return np.asarray(
        np.log(ratio) + PROCESS_SPREAD * generator.standard_normal() + own[0] - own[1]
    )


def test_a_ratio_finds_three_percent_in_a_noisy_heat_and_seldom_what_is_not_there() -> None:
    generator = np.random.default_rng(5)
    found = [compare(simulate_heat(generator, 1.03), PROCESS_SPREAD) for _ in range(400)]
    assert np.mean([one.p_value < 0.05 for one in found]) >= 0.90
    assert np.mean([one.estimate.low <= 1.03 <= one.estimate.high for one in found]) >= 0.93
    equal = [compare(simulate_heat(generator, 1.0), PROCESS_SPREAD) for _ in range(1000)]
    assert np.mean([one.p_value < 0.05 for one in equal]) <= 0.07
    assert np.mean([one.p_value < 0.01 for one in equal]) <= 0.02


def test_a_cell_is_as_fast_as_itself_and_no_rounds_have_no_ratio() -> None:
    found = compare(np.zeros(ROUNDS))
    assert found.estimate.low < found.estimate.value == 1.0 < found.estimate.high
    assert found.p_value == pytest.approx(1.0)
    nothing = compare_sessions([], [], WITHIN.work)
    assert np.isnan([nothing.estimate.value, nothing.p_value]).all()


SHAPES = {
    "noise": lambda rng, n: rng.standard_normal(n),
    "far from zero": lambda rng, n: 5 + rng.standard_normal(n),
    "all equal": lambda rng, n: np.full(n, 0.25),
    "all zero": lambda rng, n: np.zeros(n),
    "ties": lambda rng, n: rng.integers(-2, 3, n) / 7,
    "of one sign and tiny": lambda rng, n: 1e-9 * (1 + rng.random(n)),
    "mostly zero": lambda rng, n: np.where(rng.random(n) < 0.9, 0.0, 1.0),
}


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("rounds", [1, 2, 5, 6, 7, 30, 51, 1_000, 100_000])
@pytest.mark.parametrize("spread", [0.0, 0.004])
def test_any_number_of_rounds_of_any_values_has_a_p_value_and_an_interval(
    shape: str, rounds: int, spread: float
) -> None:
    logs = SHAPES[shape](np.random.default_rng(rounds), rounds)
    found = compare(logs, spread)
    if rounds == 1:
        assert np.isnan([found.estimate.low, found.p_value, found.within.high]).all()
        return
    for estimate in (found.estimate, found.within):
        assert estimate.low <= estimate.value <= estimate.high
    assert 0 < found.p_value <= 1
    trend = find_trend(np.exp(logs))
    assert rounds < LEAST_FOR_INTERVAL or np.isfinite([trend.change, trend.p_value]).all()


def test_a_surer_difference_never_has_a_larger_p_value() -> None:
    values = 0.05 + 0.01 * np.random.default_rng(3).standard_normal(100_000)
    found = [compare(values[:count]).p_value for count in (8, 64, 1_000, 30_000, 100_000)]
    assert found == sorted(found, reverse=True) and found[-1] > 0


@pytest.mark.slow
def test_the_smallest_difference_is_found_as_often_as_promised() -> None:
    generator = np.random.default_rng(4)
    series = [0.03 * generator.standard_normal(30) for _ in range(10)]
    shift = np.log1p(smallest_difference(series, 30))
    found = [compare(0.03 * generator.standard_normal(30) + shift).p_value for _ in range(500)]
    assert 0.90 <= np.mean(np.array(found) < 0.05) <= 0.99


@pytest.mark.slow
def test_more_noise_or_fewer_rounds_hide_larger_differences() -> None:
    generator = np.random.default_rng(5)
    noise = [generator.standard_normal(40) for _ in range(5)]
    quiet, loud = ([scale * values for values in noise] for scale in (0.01, 0.05))
    assert smallest_difference(loud, 30) > 3 * smallest_difference(quiet, 30)
    assert smallest_difference(quiet, 10) > 1.3 * smallest_difference(quiet, 30)


@pytest.mark.slow
@pytest.mark.parametrize("noises", [(0.01, 0.01, 0.06), (0.002, 0.05), (0.03, 0.03, 0.03)])
@pytest.mark.parametrize("rounds", [30, 100])
def test_a_session_that_is_noisier_than_the_others_is_as_doubtful_as_it_is(
    noises: tuple[float, ...], rounds: int
) -> None:
    """A neighbour came for one of them: the same work, of which all sessions tell the same."""
    generator, covered, flagged = np.random.default_rng(12), 0, 0
    for _ in range(TRIALS):
        sessions = [noise * generator.standard_normal(rounds) for noise in noises]
        found = compare_sessions(sessions, [0.0] * len(sessions), WITHIN.work)
        covered += found.estimate.low <= 1 <= found.estimate.high
        flagged += found.p_value < 0.01
    assert covered / TRIALS >= 0.93
    assert flagged / TRIALS <= 0.03


@pytest.mark.parametrize(("counts", "least"), [((1e6, 1e6), 0.92), ((30, 30), 0.92), ((4, 4), 0.9)])
def test_a_difference_of_unlike_cells_is_found_as_often_as_is_said(
    counts: tuple[float, float], least: float
) -> None:
    """In three sessions, each off by its own: where runs are apart as it is known."""
    known = Known(0.01**2, counts[0], 0.003**2, counts[1])
    generator, found = np.random.default_rng(14), 0
    shift = np.log1p(smallest_unlike_difference(0.0, known, 3))
    for _ in range(TRIALS):
        run = 0.003 * generator.standard_normal()
        values = shift + run + 0.01 * generator.standard_normal(3)
        found += average_runs(values, np.full(3, 1e-6), known).p_value() < 0.05
    assert least <= found / TRIALS <= 0.99


@given(st.lists(st.floats(1e-300, 1.0), min_size=2, max_size=2), st.integers(6, 100_000))
def test_a_surer_difference_never_pays_so_much_that_it_is_less_sure(
    p_values: list[float], rounds: int
) -> None:
    less, more = sorted(p_values)
    assert pay_for_looks(less, rounds) <= pay_for_looks(more, rounds) + 1e-12


@given(st.floats(1e-300, 1.0), st.integers(0, 100_000), st.integers(0, 100_000))
def test_what_looks_cost_rises_with_their_number_and_is_nothing_at_the_first(
    p_value: float, fewer: int, more: int
) -> None:
    fewer, more = sorted((fewer, more))
    assert p_value <= pay_for_looks(p_value, fewer) <= pay_for_looks(p_value, more) <= 1
    assert pay_for_looks(p_value, LEAST_FOR_INTERVAL) == p_value
    assert np.isnan(pay_for_looks(float("nan"), more))


@pytest.mark.parametrize("rounds", [20, 200])
@pytest.mark.parametrize("threshold", [0.01, 0.05])
def test_the_least_p_value_of_all_looks_is_paid_for(rounds: int, threshold: float) -> None:
    generator = np.random.default_rng(15)
    looks = np.arange(LEAST_FOR_INTERVAL, rounds + 1)
    sums = np.cumsum(generator.standard_normal((TRIALS, rounds)), axis=1)[:, looks - 1]
    least = 2 * ndtr(-np.abs(sums / np.sqrt(looks)).max(1))
    paid = np.array([pay_for_looks(float(one), rounds) for one in least])
    assert (least < threshold).mean() > 2 * threshold
    assert 0.2 * threshold <= (paid < threshold).mean() <= 1.3 * threshold
