"""The headline latency of a heat disturbed from its middle on, against that of a quiet one."""

from contextlib import ExitStack
from functools import partial
from typing import Any

import numpy as np
import pytest
from copies import busy_neighbour

from harness.sweep.heat import Member, Stop, run_heat
from harness.sweep.launcher import Launcher

TURNS = 12
ROUNDS = 60


def time_control(launcher: Launcher, stack: ExitStack, disturbed: bool) -> Member:
    """Return the control workload, timed for ROUNDS rounds on one thread."""
    worker = stack.enter_context(launcher.worker())
    worker.call("load_control", 60, device="cpu", threads=1, pin=True)
    worker.pause()
    take, visits = partial(worker.time_block, 60, 0.01), iter(range(10**6))

    def time_block() -> Any:
        if next(visits) == ROUNDS // 2 and disturbed:
            stack.enter_context(busy_neighbour())
        return take()

    member = Member("control", time_block)
    run_heat([member], Stop(0.0, 60.0, ROUNDS, ROUNDS), seed=0)
    return member


def test_a_neighbour_that_comes_in_the_middle_moves_the_headline_by_less_than_5_percent(
    launcher: Launcher, benchmark: Any
) -> None:
    if benchmark.disabled:
        pytest.skip("a figure of a quiet machine: run `make bench`")
    changes, quiet_changes, marked = [], [], []
    for _ in range(TURNS):
        latency = []
        for disturbed in (False, True, False):
            with ExitStack() as stack:
                member = time_control(launcher, stack, disturbed)
            latency.append(member.latency().value)
            if disturbed:
                assert member.headline_level() == 0, "more than a third of the blocks were clean"
                late = [b for b in member.blocks if b.round > ROUNDS // 2 + 10]
                marked.append(np.mean([bool(b.samples.disturbance.cause) for b in late]))
        before, between, after = latency
        changes.append(between / np.sqrt(before * after) - 1)
        quiet_changes.append(after / before - 1)
    benchmark.extra_info |= {"changes": changes, "quiet": quiet_changes, "marked": marked}
    print(f"\nheadline with a neighbour to without: {np.round(100 * np.sort(changes), 1)} %")
    print(f"two quiet heats with each other: {np.round(100 * np.sort(quiet_changes), 1)} %")
    print(f"blocks marked while the neighbour ran: {np.mean(marked):.0%}")
    with ExitStack() as stack:
        benchmark.pedantic(time_control, (launcher, stack, False), rounds=1)
    assert abs(np.median(changes)) < 0.05
    assert np.mean(marked) > 0.9
