"""Scores of answers against closed forms, other libraries, and data whose answer is known."""

from __future__ import annotations

from math import exp, inf, isnan, nan, sqrt

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import binomtest
from sklearn.metrics import f1_score

from harness.scores import (
    clustered_interval,
    macro_f1,
    mark_masked,
    r2_interval,
    relative_fidelity,
    wilson_interval,
)

Z = 1.959963984540054


@pytest.mark.parametrize(
    ("hits", "trials", "low", "high"),
    [(8, 10, 0.4902, 0.9433), (0, 10, 0.0, 0.2775), (10, 10, 0.7225, 1.0), (1, 1, 0.2065, 1.0),
     (50, 100, 0.4038, 0.5962), (990, 1000, 0.9817, 0.9946)],
)  # fmt: skip
def test_wilson_gives_the_published_intervals(hits, trials, low, high):
    found = wilson_interval(hits, trials)
    assert found.value == hits / trials
    assert (found.low, found.high) == (pytest.approx(low, abs=5e-5), pytest.approx(high, abs=5e-5))


def test_wilson_agrees_with_scipy_and_with_the_closed_form_on_random_data():
    generator = np.random.default_rng(0)
    for _ in range(300):
        trials = int(generator.integers(1, 5_000))
        hits = int(generator.integers(0, trials + 1))
        found = wilson_interval(hits, trials)
        other = binomtest(hits, trials).proportion_ci(0.95, method="wilson")
        assert found.low == pytest.approx(other.low, abs=1e-12)
        assert found.high == pytest.approx(other.high, abs=1e-12)
        # The bounds are the shares whose score statistic is z.
        for bound in {found.low, found.high} - {0.0, 1.0}:
            score = (found.value - bound) / sqrt(bound * (1 - bound) / trials)
            assert abs(score) == pytest.approx(Z, rel=1e-6)


@pytest.mark.parametrize("share", [0.1, 0.5, 0.9, 0.98])
def test_wilson_covers_the_true_share(share):
    generator = np.random.default_rng(1)
    intervals = [wilson_interval(int(hits), 300) for hits in generator.binomial(300, share, 2_000)]
    covered = np.mean([found.low <= share <= found.high for found in intervals])
    assert 0.93 <= covered <= 0.97


def test_no_trials_have_no_share():
    found = wilson_interval(0, 0)
    assert isnan(found.value)
    assert isnan(found.low)
    assert isnan(found.high)


def test_macro_f1_agrees_with_scikit_learn_on_random_data():
    generator = np.random.default_rng(8)
    for _ in range(100):
        classes, count = generator.integers(2, 12), generator.integers(1, 200)
        truth = generator.integers(0, classes, count)
        guess = np.where(
            generator.random(count) < 0.6, truth, generator.integers(0, classes, count)
        )
        wanted = f1_score(truth, guess, average="macro", labels=np.union1d(truth, guess))
        assert macro_f1(guess, truth) == pytest.approx(wanted, abs=1e-12)


def test_macro_f1_of_known_answers():
    assert macro_f1([0, 1, 2], [0, 1, 2]) == 1.0
    assert macro_f1([1, 0], [0, 1]) == 0.0
    # class 0: 2 of 2 found and one too many, F1 = 4/5; class 1: none found, F1 = 0
    assert macro_f1([0, 0, 0], [0, 0, 1]) == pytest.approx(0.4)
    assert isnan(macro_f1([], []))


outputs = st.lists(st.floats(-1e3, 1e3), min_size=1, max_size=20).filter(
    lambda values: np.linalg.norm(values) > 1e-3
)


@given(outputs)
def test_outputs_are_faithful_to_themselves(values):
    assert relative_fidelity(values, values) == 1.0


@given(outputs, st.floats(0, 1))
def test_fidelity_falls_by_the_relative_error(values, error):
    changed = np.asarray(values) * (1 - error)
    assert relative_fidelity(changed, values) == pytest.approx(1 - error, abs=1e-9)


@given(outputs, outputs, st.floats(1e-3, 1e3))
def test_fidelity_is_a_share_and_does_not_depend_on_the_unit(first, second, unit):
    count = min(len(first), len(second))
    one, other = np.asarray(first[:count]), np.asarray(second[:count])
    if np.linalg.norm(other) < 1e-3:
        return
    found = relative_fidelity(one, other)
    assert 0 <= found <= 1
    assert relative_fidelity(unit * one, unit * other) == pytest.approx(found, abs=1e-9)


def test_fidelity_is_nan_where_it_has_no_meaning():
    assert isnan(relative_fidelity([1.0, 2.0], [1.0]))
    assert isnan(relative_fidelity([1.0], [0.0]))
    assert isnan(relative_fidelity([1.0], [nan]))
    assert isnan(relative_fidelity([], []))


def test_outputs_that_are_no_numbers_are_not_faithful():
    assert relative_fidelity([nan, 1.0], [1.0, 1.0]) == 0.0
    assert relative_fidelity([inf, 1.0], [1.0, 1.0]) == 0.0


def test_a_large_error_is_no_negative_fidelity():
    assert relative_fidelity([exp(20)], [1.0]) == 0.0


@pytest.mark.parametrize("mask", [-np.inf, np.inf, np.nan, np.finfo(np.float32).min])
def test_masked_outputs_are_left_out_of_fidelity_where_both_have_them(mask: float) -> None:
    wanted = np.array([[mask, 3.0, 4.0]] * 2)
    assert relative_fidelity(wanted, wanted) == 1
    near = np.where(wanted == 3.0, 3.5, wanted)
    assert relative_fidelity(near, wanted) == pytest.approx(1 - 0.5 / 5)
    assert relative_fidelity(np.array([[0.0, 3.0, 4.0]] * 2), wanted) == 0
    assert relative_fidelity(wanted, np.array([[0.0, 3.0, 4.0]] * 2)) == 0


SIZES = st.one_of(st.floats(0, 36), st.floats(60, 300))


@given(st.integers(0, 10_000), SIZES, st.floats(0.001, 0.5))
def test_numbers_of_any_size_are_compared_as_numbers(seed: int, size: float, error: float) -> None:
    """A mask occurs more than once, or is the largest number that there is."""
    random = np.random.default_rng(seed)
    wanted = random.normal(size=50) * 10**size
    wrong = wanted * (1 + error * random.choice([-1, 1], 50))
    assert relative_fidelity(wrong, wanted) == pytest.approx(1 - error)
    assert relative_fidelity(wrong[:1], wanted[:1]) == pytest.approx(1 - error)


@given(st.lists(st.sampled_from([-1e32, -2e32, -3.4028235e38]), min_size=1, max_size=3))
def test_masks_of_several_sizes_are_left_out(masks: list[float]) -> None:
    """As of padding and of what is to come, one added to the other."""
    wanted = np.array([3.0, 4.0, *masks * 2])
    wrong = np.array([3.5, 4.0, *masks * 2])
    assert relative_fidelity(wrong, wanted) == pytest.approx(1 - 0.5 / 5)


HALF, BRAIN, SINGLE = -65504.0, -3.3895313892515355e38, -3.4028234663852886e38


@given(
    st.lists(st.floats(-30, 30), min_size=3, max_size=30).filter(lambda all_: max(all_) > 1),
    st.sampled_from([HALF, BRAIN, SINGLE, -np.inf]),
    st.sampled_from([HALF, BRAIN, SINGLE, -np.inf]),
    st.integers(1, 4),
)
def test_masks_of_any_type_stand_for_the_same(
    numbers: list[float], mine: float, its: float, count: int
) -> None:
    """The least number of a type is what `torch.finfo` gives: float16's is 65,504."""
    wanted = np.array([*numbers, *[its] * count], np.float64)
    found = np.array([*(0.9 * np.array(numbers)), *[mine] * count], np.float64)
    assert relative_fidelity(found, wanted) == pytest.approx(0.9, abs=1e-6)
    open_ = np.array([*numbers, *[0.5] * count], np.float64)
    assert relative_fidelity(open_, wanted) == relative_fidelity(found, open_) == 0


@pytest.mark.parametrize("mask", [-1e4, -1e8, -1e9, -998244352.0, -9984.0])
def test_the_least_of_all_scores_is_a_mask_where_it_is_far_beyond_and_often(mask: float) -> None:
    """Beside such a mask the others would not count in any norm."""
    wanted = np.array([3.0, 4.0, mask, mask])
    assert relative_fidelity([3.5, 4.0, mask, mask], wanted) == pytest.approx(1 - 0.5 / 5)
    few, other = [3.0, mask], [mask / 500, mask, mask]
    odd = [3.0, 1.01 * mask, 1.01 * mask]
    for numbers in (few, other, odd, [-2 * mask, mask, mask], [3.0, -mask, -mask]):
        assert np.isfinite(mark_masked(numbers)).all(), "no mask"


def test_equal_outputs_have_fidelity_one_unless_they_are_no_numbers() -> None:
    for same in (np.zeros(4), np.full(4, 1e25), [5.0], [np.nan, 5.0], [-np.inf, 0.0]):
        assert relative_fidelity(same, same) == 1
    for same in (np.full(4, -np.inf), [np.inf, -np.inf]):
        assert relative_fidelity(same, same) == 1, "as told, though no number is among them"
    for none in ([], np.full(4, np.nan), [np.nan, np.inf]):
        assert isnan(relative_fidelity(none, none))


@pytest.mark.slow
def test_an_interval_over_places_is_as_wide_as_their_examples_allow() -> None:
    random, covered = np.random.default_rng(3), 0
    for _ in range(200):
        chances = random.beta(4, 2, 60)  # how easy each example is: places in it are alike
        hits = random.random((60, 25)) < chances[:, None]
        found = clustered_interval(hits, np.ones_like(hits))
        covered += found.low <= 4 / 6 <= found.high
    assert 178 <= covered <= 199


def test_an_interval_over_places_leaves_out_what_is_not_judged() -> None:
    hits = np.array([[True, False], [True, True], [False, False]])
    judged = np.array([[True, False], [True, True], [False, False]])
    found = clustered_interval(hits & judged, judged)
    assert found.value == 1
    assert found.low < 1 == found.high
    assert isnan(clustered_interval(np.zeros((2, 3)), np.zeros((2, 3))).value)


def test_the_places_of_one_example_tell_little_of_others() -> None:
    for hits in ([True] * 6 + [False] * 4, [True] * 10, [False]):
        found = clustered_interval(np.array([hits]), np.ones((1, len(hits))))
        alone = wilson_interval(found.value, 1)
        assert (found.low, found.high) == (alone.low, alone.high)
    two = clustered_interval(np.array([[1, 1, 1, 0], [1, 0, 0, 0]]), np.ones((2, 4)))
    assert two.value == 0.5
    assert two.low < 0.1 and two.high > 0.9


@pytest.mark.slow
@pytest.mark.parametrize("examples", [3, 8, 60])
@pytest.mark.parametrize("alike", [0.5, 5.0, 500.0])
def test_an_interval_over_places_covers_with_few_examples_too(examples: int, alike: float) -> None:
    random, covered = np.random.default_rng(4), 0
    for _ in range(300):
        chances = random.beta(0.7 * alike, 0.3 * alike, examples)
        hits = random.random((examples, 25)) < chances[:, None]
        found = clustered_interval(hits, np.ones_like(hits))
        covered += found.low <= 0.7 <= found.high
    assert covered >= 0.9 * 300


def test_r2_of_several_numbers_is_that_of_all_of_them_and_nan_where_none_varies() -> None:
    labels = np.random.default_rng(0).normal(size=(400, 3))
    assert r2_interval(labels, labels).value == 1
    assert r2_interval(
        np.broadcast_to(labels.mean(0), labels.shape), labels
    ).value == pytest.approx(0)
    assert isnan(r2_interval(np.zeros(50), np.full(50, 0.1)).value)
