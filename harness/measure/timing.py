"""Blocks of samples: short, re-warmed, looped where the clock is too coarse."""

from __future__ import annotations

import gc
import os
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import repeat
from statistics import median
from typing import Any

import numpy as np

from harness.measure.disturbance import Disturbance, Watch
from harness.stats import Floats

WARM_UP_S = 0.1
WARM_UP_CALLS = 3
REWARM_S = 0.002
LEAST_CALLS = 3
SINGLE_CALL_S = 0.03
"""One sample of a call so long is a block: more rounds tell as much as more samples in each."""
LONG_CALL_S = 0.5
CLOCK_SHARE = 0.005
"""The largest share of a sample that reading the clock may take."""


@dataclass(frozen=True)
class Block:
    """Seconds of one call, a value for each sample; each sample is `loops` calls.

    `process` is the id of the process that took them.
    """

    seconds: Floats
    loops: int
    disturbance: Disturbance
    process: int = field(default_factory=os.getpid)


@dataclass(frozen=True)
class Pace:
    """How long a call takes, and how samples are therefore taken."""

    call_s: float
    loops: int
    least_calls: int
    warm_up_calls: int
    processors_used: float = 0.0


def clock_cost_s() -> float:
    """Return the time that one reading of the clock takes, in seconds."""
    clock = time.perf_counter_ns
    begin = clock()
    for _ in repeat(None, 1_000):
        clock()
    return (clock() - begin) / 1e9 / 1_000


def warm_up(
    call: Callable[[], Any], looped: bool = True, refresh: Callable[[], None] | None = None
) -> Pace:
    """Call for a fixed time and learn the pace: loops until the clock's share is small.

    Not `looped`, every call is a sample, however short. So it is with `refresh`, which is done
    before every call, outside its time.
    """
    times: list[float] = []
    used_s = 0.0
    begin = time.perf_counter()
    while len(times) < WARM_UP_CALLS or time.perf_counter() - begin < WARM_UP_S:
        if refresh is not None:
            refresh()
        used = time.process_time()
        start = time.perf_counter()
        call()
        times.append(time.perf_counter() - start)
        used_s += time.process_time() - used
        if times[-1] > LONG_CALL_S and len(times) >= 2:
            break
    processors = used_s / sum(times)
    call_s = median(times[len(times) // 2 :])
    loops = max(1, int(np.ceil(clock_cost_s() / CLOCK_SHARE / max(call_s, 1e-9))))
    loops = loops if looped and refresh is None else 1
    least_calls = 1 if call_s > SINGLE_CALL_S else LEAST_CALLS
    return Pace(call_s, loops, least_calls, len(times), processors)


def time_block(
    call: Callable[[], Any],
    pace: Pace,
    block_s: float,
    watch: Watch,
    flush: Callable[[], None] | None = None,
    refresh: Callable[[], None] | None = None,
) -> Block:
    """Return samples over about `block_s` seconds, after unrecorded calls that warm the caches.

    With `flush`, the device's cache is emptied before every sample, outside its time. With
    `refresh`, inputs that a call has written into are made new before every call, outside its time.
    """
    begin = time.perf_counter()
    enabled = gc.isenabled()
    warm = _in_turn(refresh, call)
    before = _in_turn(refresh, flush) if refresh or flush else None
    gc.disable()
    try:
        # A call so long makes its caches its own; warming it would cost as much as timing it.
        if pace.call_s <= LONG_CALL_S:
            warm()
            while time.perf_counter() - begin < REWARM_S:
                warm()
        first = watch.read()
        if pace.call_s < REWARM_S:  # a short call would notice that reading cooled the caches
            warm()
        nanoseconds = _sample(call, pace, block_s, before)
        last = watch.read()
    finally:
        if enabled:
            gc.enable()
    seconds = np.asarray(nanoseconds, dtype=np.float64) / (1e9 * pace.loops)
    return Block(seconds, pace.loops, watch.judge(first, last))


def _in_turn(*steps: Callable[[], Any] | None) -> Callable[[], None]:
    """What does the steps there are, one after the other."""
    wanted = [step for step in steps if step is not None]

    def do() -> None:
        for step in wanted:
            step()

    return do


def _sample(
    call: Callable[[], Any], pace: Pace, block_s: float, before: Callable[[], None] | None
) -> list[int]:
    clock, samples = time.perf_counter_ns, []
    deadline = clock() + int(block_s * 1e9)
    while True:
        if before is not None:
            before()
        if pace.loops == 1:
            start = clock()
            call()
            after = clock()
        else:
            calls = repeat(None, pace.loops)
            start = clock()
            for _ in calls:
                call()
            after = clock()
        samples.append(after - start)
        if after >= deadline and len(samples) >= pace.least_calls:
            return samples
