"""The statistics against closed forms, other libraries, and data whose answer is known."""

from __future__ import annotations

import warnings
from math import comb, isnan, nan, sqrt

import numpy as np
import pytest
from scipy.signal import lfilter

from harness.stats import (
    LEAST_FOR_INTERVAL,
    LEAST_FOR_P90,
    LEAST_FOR_P99,
    Estimate,
    Trend,
    _order_statistics,
    correct_p_values,
    find_trend,
    known_median,
    median_interval,
    percentile,
    robust_deviation,
    series_median_interval,
)

ROUNDS = 30
Z = 1.959963984540054


# Medians


def test_the_median_interval_covers_the_true_median():
    generator = np.random.default_rng(2)
    truth = 0.003
    covered = 0
    for _ in range(300):
        found = median_interval(truth * generator.lognormal(0, 0.2, ROUNDS))
        assert found.low <= found.value <= found.high
        covered += found.low <= truth <= found.high
    assert covered >= 0.92 * 300


def phases(generator, change, count):
    """A machine with two speeds, 1.5 times apart, that changes with some probability each round."""
    slow = (np.cumsum(generator.random(count) < change) + generator.integers(2)) % 2
    return slow, 0.003 * np.where(slow, 1.5, 1.0) * generator.lognormal(0, 0.05, count)


@pytest.mark.parametrize("memory", [0.0, 0.5, 0.8])
def test_the_interval_of_a_series_covers_the_true_median_where_neighbours_are_alike(memory):
    generator = np.random.default_rng(5)
    covered = plain = 0
    for _ in range(400):
        steps = generator.normal(0, sqrt(1 - memory**2), 80 + 50)
        series = np.exp(0.1 * lfilter([1], [1, -memory], steps)[50:])
        found = series_median_interval(series)
        assert found.value == median_interval(series).value
        covered += found.low <= 1 <= found.high
        plain += median_interval(series).low <= 1 <= median_interval(series).high
    assert 0.91 * 400 <= covered <= 0.99 * 400
    if memory:
        assert plain < 0.88 * 400, "as if they were independent: too narrow"


def test_the_interval_of_a_series_spans_both_speeds_of_a_machine_that_seldom_changes():
    generator = np.random.default_rng(6)
    spanning, plain = [], []
    for _ in range(600):
        slow, series = phases(generator, 0.05, 60)
        if 0.3 <= slow.mean() <= 0.7:
            for estimates, found in (
                (spanning, series_median_interval(series)),
                (plain, median_interval(series)),
            ):
                estimates.append(found.high / found.low > 1.3)
    assert len(spanning) > 200
    assert np.mean(spanning) > 0.85 > np.mean(plain)


def test_the_interval_of_a_series_never_leaves_its_values():
    generator = np.random.default_rng(7)
    for count in (6, 7, 20, 61):
        series = np.sort(generator.lognormal(0, 1, count))
        found = series_median_interval(series)
        assert (found.low, found.high) == (series[0], series[-1]), "a series that only rises"
    assert isnan(series_median_interval([1.0, 2.0]).low)
    assert series_median_interval([2.0] * 9) == Estimate(2.0, 2.0, 2.0)


def test_the_median_interval_narrows_with_more_rounds():
    values = np.random.default_rng(3).lognormal(0, 0.1, 400)
    widths = [median_interval(values[:count]).relative_half_width for count in (10, 50, 400)]
    assert widths[0] > widths[1] > widths[2]


def test_the_median_interval_is_the_same_every_time():
    generator = np.random.default_rng(4)
    for count in range(5, 60, 3):
        values = generator.lognormal(0, 0.1, count)
        assert median_interval(values) == median_interval(list(values))


def test_few_values_have_a_median_and_no_interval():
    found = median_interval([3.0, 1.0, 2.0, 4.0])
    assert found.value == 2.5
    assert isnan(found.low)
    assert isnan(found.relative_half_width)
    assert not isnan(median_interval([1.0] * LEAST_FOR_INTERVAL).low)


def test_no_values_have_no_median():
    assert isnan(median_interval([]).value)


def test_a_median_of_values_with_nan_is_nan_and_never_a_number():
    found = median_interval([1.0, nan, 2.0, 3.0, 4.0, 5.0])
    assert isnan(found.value)
    assert isnan(found.low)
    assert isnan(found.high)


def test_the_half_width_of_zero_is_nan():
    assert isnan(Estimate(0.0, 0.0, 0.0).relative_half_width)
    assert Estimate(2.0, 1.9, 2.1).relative_half_width == pytest.approx(0.05)


def test_the_ranks_of_an_interval_cover_what_they_promise():
    for size in (6, 7, 20, 101, 1_000):
        depth, _ = _order_statistics(size)
        outside = sum(comb(size, k) for k in range(depth)) / 2**size
        inside = sum(comb(size, k) for k in range(depth + 1)) / 2**size
        assert 1 - 2 * outside >= 0.95 > 1 - 2 * inside


# Percentiles


@pytest.mark.parametrize(("percent", "least"), [(90, LEAST_FOR_P90), (99, LEAST_FOR_P99)])
def test_a_percentile_needs_its_count(percent, least):
    values = np.arange(least, dtype=float)
    assert percentile(values, percent, least) == pytest.approx((least - 1) * percent / 100)
    assert isnan(percentile(values[1:], percent, least))
    assert isnan(percentile([], percent, least))


def test_percentiles_wait_for_the_counts_of_mlperf():
    # https://github.com/mlcommons/inference_policies, early stopping: 99 % confidence.
    assert (LEAST_FOR_P90, LEAST_FOR_P99) == (64, 662)


def test_a_percentile_of_values_with_nan_is_nan():
    assert isnan(percentile([nan] + [1.0] * 100, 90, LEAST_FOR_P90))


# Trends, corrections, power


def test_a_steady_rise_is_found_with_its_size():
    rng = np.random.default_rng(0)
    trend = find_trend(np.linspace(1.0, 1.2, 40) * (1 + 0.01 * rng.standard_normal(40)))
    assert trend.change == pytest.approx(0.2 / 1.1, abs=0.02)
    assert trend.p_value < 1e-6


def test_noise_without_a_trend_is_seldom_taken_for_one():
    rng = np.random.default_rng(1)
    found = [find_trend(1 + 0.1 * rng.standard_normal(30)).p_value < 0.01 for _ in range(500)]
    assert np.mean(found) <= 0.02


def test_one_stall_is_no_trend():
    values = np.ones(30) + 0.001 * np.random.default_rng(2).standard_normal(30)
    values[-1] = 50.0
    assert abs(find_trend(values).change) < 0.01


def test_constant_and_few_values_have_no_trend():
    assert find_trend(np.ones(20)) == Trend(0.0, 1.0)
    assert isnan(find_trend([1.0, 2.0, 3.0]).change)


def test_q_values_are_those_of_benjamini_and_hochberg():
    # Their paper's example (1995, section 3.2): fifteen p-values, four found at 5 %.
    p_values = [0.0001, 0.0004, 0.0019, 0.0095, 0.0201, 0.0278, 0.0298, 0.0344, 0.0459,
                0.3240, 0.4262, 0.5719, 0.6528, 0.7590, 1.0000]  # fmt: skip
    q_values = correct_p_values(p_values)
    assert int(np.sum(q_values <= 0.05)) == 4
    assert q_values[3] == pytest.approx(0.0095 * 15 / 4)


def test_cells_without_a_p_value_have_no_q_value_and_do_not_count():
    q_values = correct_p_values([0.01, nan, 0.04])
    assert isnan(q_values[1])
    assert q_values[[0, 2]] == pytest.approx([0.02, 0.04])
    assert np.isnan(correct_p_values([nan, nan])).all()


@pytest.mark.parametrize("axis", [0, 1])
@pytest.mark.parametrize("shape", [(1, 1), (1, 7), (6, 4), (5, 31)])
@pytest.mark.parametrize("share", [0.0, 0.3, 0.9, 1.0])
def test_the_median_of_what_is_known_is_numpys(shape, axis, share):
    generator = np.random.default_rng(0)
    for _ in range(20):
        table = generator.standard_normal(shape)
        table[generator.random(shape) < share] = np.nan
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # NumPy's where nothing is known
            wanted = np.nanmedian(table, axis)
        assert known_median(table, axis) == pytest.approx(wanted, nan_ok=True)


def test_the_robust_deviation_is_that_of_normal_noise_and_ignores_outliers():
    values = 0.03 * np.random.default_rng(3).standard_normal(20_000)
    assert robust_deviation(values) == pytest.approx(0.03, rel=0.03)
    values[:100] = 1e6
    assert robust_deviation(values) == pytest.approx(0.03, rel=0.05)
