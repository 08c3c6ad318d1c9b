"""Intervals for a repeat, on sessions whose truth is known."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.repeats import Known, average_sessions, find_session, pool_rounds

TRIALS = 1_000


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


def test_many_sessions_outweigh_what_is_known() -> None:
    """As 410 sessions would, of which ten were as it is known."""
    generator = np.random.default_rng(4)
    for truth in (0.001, 0.01, 0.1):
        values = truth * generator.standard_normal(400)
        found = average_sessions(values, np.full(400, 1e-4), Known(0.01**2, 10))
        together = np.sqrt((10 * 0.01**2 + 400 * truth**2) / 410)
        assert found.spread == pytest.approx(together, rel=0.15)


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


def test_draws_are_what_the_interval_says() -> None:
    found = average_sessions([0.0, 0.01, 0.03], [0.002, 0.001, 0.004], Known(0.01**2, 5))
    drawn = found.draw(200_000, np.random.default_rng(5))
    low, high = np.quantile(drawn, [0.025, 0.975])
    interval = found.interval()
    assert low == pytest.approx(interval.low, abs=0.0005)
    assert high == pytest.approx(interval.high, abs=0.0005)


@pytest.mark.parametrize("sizes", [(1, 2), (2, 2, 2), (10, 3), (60,), (3, 3, 3)])
def test_the_error_of_a_session_is_that_of_its_median(sizes: tuple[int, ...]) -> None:
    """Of how many it is told by decides how wide Student's distribution makes it."""
    generator, away = np.random.default_rng(6), []
    for _ in range(TRIALS):
        sessions = [generator.standard_normal(size) for size in sizes]
        middle, error = find_session(sessions[0], *pool_rounds(sessions))
        away.append(abs(middle) / error)
    assert np.mean(np.array(away) < 1.959964) == pytest.approx(0.95, abs=0.03)


def test_rounds_that_are_alone_in_their_sessions_tell_no_deviation() -> None:
    deviation, free = pool_rounds([np.array([1.0]), np.array([2.0])])
    assert free == 0
    assert np.isnan(deviation)
    assert np.isnan(find_session(np.array([1.0]), deviation, free)[1])
