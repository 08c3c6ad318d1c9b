"""Blocks: looped where the clock is too coarse, never fewer calls than asked."""

import time
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch

from harness.measure.disturbance import Watch
from harness.measure.timing import LEAST_CALLS, Pace, clock_cost_s, time_block, warm_up

pytestmark = pytest.mark.clock


def test_a_call_shorter_than_the_clock_is_looped() -> None:
    pace = warm_up(lambda: None)
    assert pace.loops > 1
    block = time_block(lambda: None, pace, 0.002, Watch())
    assert block.loops == pace.loops
    assert np.median(block.seconds) < clock_cost_s()


def test_a_long_call_is_not_looped_and_is_called_a_few_times() -> None:
    pace = warm_up(lambda: time.sleep(0.02))
    block = time_block(lambda: time.sleep(0.02), pace, 0.001, Watch())
    assert pace.loops == 1
    assert len(block.seconds) == LEAST_CALLS


def test_one_call_of_many_milliseconds_is_a_block_unless_more_fit_into_its_time() -> None:
    pace = warm_up(lambda: time.sleep(0.04))
    assert len(time_block(lambda: time.sleep(0.04), pace, 0.01, Watch()).seconds) == 1
    assert len(time_block(lambda: time.sleep(0.04), pace, 0.1, Watch()).seconds) == 3


def test_a_block_goes_on_until_its_time_is_over() -> None:
    block = time_block(lambda: time.sleep(0.001), Pace(0.001, 1, 3, 3), 0.05, Watch())
    assert 10 < len(block.seconds) <= 50
    assert block.seconds.sum() >= 0.05 * 0.9


def test_seconds_are_of_one_call_however_many_are_looped() -> None:
    calls = []
    block = time_block(lambda: calls.append(time.sleep(0.001)), Pace(0.001, 5, 3, 3), 0.02, Watch())
    looped = 5 * len(block.seconds)
    assert looped < len(calls) <= looped + 3, "the calls before that warm up are few"
    assert block.seconds.min() >= 0.001
    assert 5 * block.seconds.sum() <= block.disturbance.wall_s


def bare_loop(call: Callable[[], Any], seconds: float) -> float:
    """The median of a loop with nothing in it but the clock."""
    clock, times = time.perf_counter_ns, []
    end = clock() + int(seconds * 1e9)
    while clock() < end:
        before = clock()
        call()
        times.append(clock() - before)
    return float(np.median(times)) / 1e9


@pytest.mark.usefixtures("one_thread")  # several need all processors, which others may have
def test_timing_a_call_of_20_us_costs_less_than_1_percent_of_it() -> None:
    rows, weights = torch.randn(8, 256), torch.randn(256, 256)
    repeats = 1

    def call() -> None:
        for _ in range(repeats):
            rows @ weights

    with torch.inference_mode():
        while bare_loop(call, 0.01) < 20e-6:
            repeats += 1
        pace, watch = Pace(20e-6, 1, LEAST_CALLS, 0), Watch()
        # In turns, because the machine changes; the order is reversed each time.
        ratios = []
        for number in range(600):
            if number % 2:
                block_s = float(np.median(time_block(call, pace, 0.003, watch).seconds))
                bare_s = bare_loop(call, 0.003)
            else:
                bare_s = bare_loop(call, 0.003)
                block_s = float(np.median(time_block(call, pace, 0.003, watch).seconds))
            ratios.append(block_s / bare_s)
    assert np.median(ratios) == pytest.approx(1.0, abs=0.01)


def test_a_cache_that_is_flushed_is_flushed_before_every_sample_and_outside_its_time() -> None:
    flushed: list[float] = []
    pace = warm_up(lambda: time.sleep(0.001), looped=False)
    block = time_block(
        lambda: time.sleep(0.001), pace, 0.02, Watch(), lambda: flushed.append(time.sleep(0.003))
    )
    assert len(flushed) == len(block.seconds)
    assert np.median(block.seconds) < 0.003


def test_a_call_is_not_looped_where_every_call_counts() -> None:
    assert warm_up(lambda: None, looped=False).loops == 1


def test_the_warm_up_tells_how_many_processors_were_used() -> None:
    def spin() -> None:
        end = time.perf_counter() + 0.002
        while time.perf_counter() < end:
            pass

    assert warm_up(lambda: time.sleep(0.002)).processors_used < 0.3
    assert warm_up(spin).processors_used > warm_up(lambda: time.sleep(0.002)).processors_used


def test_inputs_are_refreshed_before_every_call_and_outside_its_time() -> None:
    done: list[str] = []

    def refresh() -> None:
        time.sleep(0.003)
        done.append("refresh")

    def call() -> None:
        time.sleep(0.001)
        done.append("call")

    pace = warm_up(call, refresh=refresh)
    block = time_block(call, pace, 0.02, Watch(), refresh=refresh)
    assert pace.loops == 1
    assert done == ["refresh", "call"] * (len(done) // 2)
    assert np.median(block.seconds) < 0.003
    assert pace.call_s < 0.003
