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


def warm_up(call: Callable[[], Any], looped: bool = True) -> Pace:
    """Call for a fixed time and learn the pace: loops until the clock's share is small.

    Not `looped`, every call is a sample, however short.
    """
    times: list[float] = []
    begin, used = time.perf_counter(), time.process_time()
    while len(times) < WARM_UP_CALLS or time.perf_counter() - begin < WARM_UP_S:
        before = time.perf_counter()
        call()
        times.append(time.perf_counter() - before)
        if times[-1] > LONG_CALL_S and len(times) >= 2:
            break
    processors = (time.process_time() - used) / (time.perf_counter() - begin)
    call_s = median(times[len(times) // 2 :])
    loops = max(1, int(np.ceil(clock_cost_s() / CLOCK_SHARE / max(call_s, 1e-9)))) if looped else 1
    return Pace(call_s, loops, 1 if call_s > LONG_CALL_S else LEAST_CALLS, len(times), processors)


def time_block(
    call: Callable[[], Any],
    pace: Pace,
    block_s: float,
    watch: Watch,
    flush: Callable[[], None] | None = None,
) -> Block:
    """Return samples over about `block_s` seconds, after unrecorded calls that warm the caches.

    With `flush`, the device's cache is emptied before every sample, outside its time.
    """
    begin = time.perf_counter()
    enabled = gc.isenabled()
    gc.disable()
    try:
        call()
        while time.perf_counter() - begin < REWARM_S:
            call()
        before = watch.read()
        if pace.call_s < REWARM_S:  # a short call would notice that reading cooled the caches
            call()
        nanoseconds = _sample(call, pace, block_s, flush)
        after = watch.read()
    finally:
        if enabled:
            gc.enable()
    seconds = np.asarray(nanoseconds, dtype=np.float64) / (1e9 * pace.loops)
    return Block(seconds, pace.loops, watch.judge(before, after))


def _sample(
    call: Callable[[], Any], pace: Pace, block_s: float, flush: Callable[[], None] | None
) -> list[int]:
    clock, samples = time.perf_counter_ns, []
    deadline = clock() + int(block_s * 1e9)
    while True:
        if flush is not None:
            flush()
        if pace.loops == 1:
            before = clock()
            call()
            after = clock()
        else:
            calls = repeat(None, pace.loops)
            before = clock()
            for _ in calls:
                call()
            after = clock()
        samples.append(after - before)
        if after >= deadline and len(samples) >= pace.least_calls:
            return samples
