"""Variances that are learnt from sums of squares, some of which tell little."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.known import SHARED, VARIANCES, learn_variance, weigh

BEFORE, COUNT = 0.02**2, 4.0


def draw_squares(
    generator: np.random.Generator, variance: float, explained: np.ndarray, free: float
) -> np.ndarray:
    return (variance + explained) * generator.chisquare(free, len(explained))


@pytest.mark.parametrize("truth", [0.004, 0.01, 0.02, 0.1])
def test_a_variance_is_learnt_from_precise_squares(truth: float) -> None:
    generator, explained, free = np.random.default_rng(1), np.full(20, 1e-8), np.full(20, 2.0)
    found = np.array([
        learn_variance(BEFORE, COUNT, draw_squares(generator, truth**2, explained, 2.0),
                       explained, free)
        for _ in range(50)
    ])  # fmt: skip
    assert np.sqrt(np.median(found[:, 0])) == pytest.approx(truth, rel=0.15)
    assert np.median(found[:, 1]) == pytest.approx(40, rel=0.2)


@pytest.mark.parametrize("times", [10, 5])
def test_a_machine_that_is_steadier_by_far_is_known_after_ten_runs(times: int) -> None:
    """Where what rounds and processes explain is as large as what is asked for."""
    generator, free = np.random.default_rng(3), np.full(10, 2.0)
    truth = BEFORE / times**2
    explained = np.full(10, truth)
    found = [
        learn_variance(BEFORE, COUNT, draw_squares(generator, truth, explained, 2.0),
                       explained, free)
        for _ in range(100)
    ]  # fmt: skip
    farthest = [np.sqrt(variance * (1 + 2 / count)) for variance, count in found]
    assert np.median(farthest) < 1.5 * np.sqrt(truth)


def test_squares_that_something_else_explains_neither_teach_nor_unteach() -> None:
    """A noisy heat may have squares far below or above what explains them: it is not known why."""
    generator, free = np.random.default_rng(2), 2.0
    precise = np.full(10, 1e-6)
    squares = draw_squares(generator, 0.01**2, precise, free)
    told = learn_variance(BEFORE, COUNT, squares, precise, np.full(10, free))
    for wild in (0.0, 0.1, 0.4):
        again = learn_variance(BEFORE, COUNT, [*squares, wild], [*precise, 0.1], np.full(11, free))
        assert np.sqrt(again[0]) == pytest.approx(np.sqrt(told[0]), rel=0.02)
        assert again[1] == pytest.approx(told[1], rel=0.05)
    alone = learn_variance(BEFORE, COUNT, [0.0], [0.1], [free])
    assert alone == pytest.approx((BEFORE, COUNT), rel=0.05)


def test_without_squares_what_was_known_is_known() -> None:
    assert learn_variance(BEFORE, COUNT, [], [], []) == (BEFORE, COUNT)
    assert learn_variance(BEFORE, COUNT, [0.0], [1.0], [0.0]) == (BEFORE, COUNT)


@given(
    st.lists(st.tuples(st.floats(0, 1e6), st.floats(0, 1e3), st.sampled_from([0.0, 1.0, 2.0, 9.0])),
             max_size=30),
    st.floats(1e-9, 10), st.floats(1, 60),
)  # fmt: skip
def test_whatever_squares_are_a_variance_is_positive_and_finite(
    told: list[tuple[float, float, float]], before: float, count: float
) -> None:
    squares, explained, free = zip(*told, strict=True) if told else ((), (), ())
    with np.errstate(all="raise", under="ignore"):
        variance, sessions = learn_variance(before, count, squares, explained, free)
    assert 0 < variance < np.inf
    assert 0 < sessions < np.inf


@pytest.mark.parametrize("multiples", [VARIANCES, SHARED])
@pytest.mark.parametrize("count", [4.0, 8.0, 30.0])
def test_weights_are_those_of_a_scaled_inverse_chi_square(
    multiples: np.ndarray, count: float
) -> None:
    drawn = count / np.random.default_rng(3).chisquare(count, 100_000)
    weights = weigh(multiples, count)
    assert weights.sum() == pytest.approx(1)
    for share in (0.05, 0.5, 0.95):
        at = multiples[np.searchsorted(np.cumsum(weights), share)]
        step = multiples[1] / multiples[0]
        assert np.quantile(drawn, share) == pytest.approx(at, rel=step - 1)
