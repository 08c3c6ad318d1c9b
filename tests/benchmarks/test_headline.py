"""The headline of a cell that a neighbour disturbs, against that of a twin that none does.

Two quiet heats differ by more than the bound here, because the host changes its speed within
seconds: both cells run in the same rounds, and the neighbour is stopped while the twin is timed.
Each headline is of its own cell's clean rounds.
"""

import signal
from collections.abc import Callable
from contextlib import ExitStack
from functools import partial
from typing import Any

import numpy as np
import pytest
from copies import BLOCK_S, TIMEOUT_S, busy_neighbour

from harness.sweep.heat import Member, Samples, Stop, latencies, run_heat
from harness.sweep.launcher import Launcher

pytestmark = pytest.mark.clock

TURNS = 24
ROUNDS = 150
BOUND = 0.05
COMES, LEAVES = ROUNDS // 3, 2 * ROUNDS // 3


def time_beside_twin(launcher: Launcher) -> tuple[Member, Member]:
    """Return the control workload disturbed in the middle third of its rounds, and its twin."""
    with ExitStack() as stack:
        busy = stack.enter_context(busy_neighbour())
        busy.send_signal(signal.SIGSTOP)
        disturbed = Member("disturbed", _worker_blocks(launcher, stack))
        twin = Member("twin", _worker_blocks(launcher, stack))
        alone = disturbed.time_block

        def beside_the_neighbour() -> Samples:
            if not COMES <= len(disturbed.rounds()) < LEAVES:
                return alone()
            busy.send_signal(signal.SIGCONT)
            try:
                return alone()
            finally:
                busy.send_signal(signal.SIGSTOP)

        disturbed.time_block = beside_the_neighbour
        run_heat([disturbed, twin], Stop(0.0, 60.0, ROUNDS, ROUNDS), seed=0)
    return disturbed, twin


def _worker_blocks(launcher: Launcher, stack: ExitStack) -> Callable[[], Samples]:
    worker = stack.enter_context(launcher.worker())
    worker.call("load_control", TIMEOUT_S, device="cpu", threads=1, pin=True)
    worker.pause()
    return partial(worker.time_block, TIMEOUT_S, BLOCK_S)


def test_a_neighbour_in_the_middle_moves_the_headline_by_less_than_5_percent(
    launcher: Launcher, benchmark: Any
) -> None:
    if benchmark.disabled:
        pytest.skip("a figure of a quiet machine: run `make bench`")
    changes, marked = [], []
    for _ in range(TURNS):
        disturbed, twin = time_beside_twin(launcher)
        if disturbed.headline_level() or twin.headline_level():
            continue  # something else ran: less than a third of the blocks was clean
        middle = [b for b in disturbed.blocks if COMES <= b.round < LEAVES]
        marked.append(np.mean([b.level > 0 for b in middle]))
        found = latencies([disturbed, twin])
        changes.append(found["disturbed"].value / found["twin"].value - 1)
    benchmark.extra_info |= {"change": changes, "marked": marked}
    print(f"\nheats with a third of clean blocks: {len(changes)} of {TURNS}")
    print(f"headline to the twin's: {np.round(100 * np.sort(changes), 1)} %")
    print(f"blocks marked beside the neighbour: {np.mean(marked):.0%}")
    benchmark.pedantic(time_beside_twin, (launcher,), rounds=1)
    assert np.mean(marked) > 0.9
    assert np.all(np.abs(changes) < BOUND)
