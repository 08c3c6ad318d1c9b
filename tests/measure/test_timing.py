"""Blocks: looped where the clock is too coarse, never fewer calls than asked."""

import time

import numpy as np

from harness.measure.timing import LEAST_CALLS, Pace, clock_cost_s, time_block, warm_up


def test_a_call_shorter_than_the_clock_is_looped() -> None:
    pace = warm_up(lambda: None)
    assert pace.loops > 1
    block = time_block(lambda: None, pace, 0.002)
    assert block.loops == pace.loops
    assert np.median(block.seconds) < clock_cost_s()


def test_a_long_call_is_not_looped_and_is_called_a_few_times() -> None:
    pace = warm_up(lambda: time.sleep(0.02))
    block = time_block(lambda: time.sleep(0.02), pace, 0.001)
    assert pace.loops == 1
    assert len(block.seconds) == LEAST_CALLS


def test_a_block_goes_on_until_its_time_is_over() -> None:
    block = time_block(lambda: time.sleep(0.001), Pace(0.001, 1, 3, 3), 0.05)
    assert 10 < len(block.seconds) <= 50
    assert block.seconds.sum() >= 0.05 * 0.9


def test_seconds_are_of_one_call_however_many_are_looped() -> None:
    calls = []
    block = time_block(lambda: calls.append(time.sleep(0.001)), Pace(0.001, 5, 3, 3), 0.02)
    looped = 5 * len(block.seconds)
    assert looped < len(calls) <= looped + 3, "the calls before that warm up are few"
    assert block.seconds.min() >= 0.001
    assert 5 * block.seconds.sum() <= block.took_s
