"""A busy neighbour in the middle of a heat: which blocks are marked, and what is reported."""

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from harness.sweep.disturbed import with_disturbance
from harness.sweep.heat import Member, Stop, latencies, run_heat
from harness.sweep.imports import Imports
from harness.sweep.launcher import Launcher

PROCESSORS = os.cpu_count() or 1
ROUNDS = 60
pytestmark = [
    pytest.mark.clock,
    pytest.mark.skipif(
        len(os.sched_getaffinity(0)) < 2, reason="one processor: a neighbour leaves nothing"
    ),
]


class Neighbours:
    """Busy processes that can come and go."""

    def __init__(self) -> None:
        self.started: list[subprocess.Popen[bytes]] = []

    def come(self, count: int) -> None:
        busy = [sys.executable, "-c", "while True: pass"]
        self.started += [subprocess.Popen(busy) for _ in range(count)]
        time.sleep(0.3)  # an interpreter takes a while to start

    def leave(self) -> None:
        for process in self.started:
            process.kill()
            process.wait()
        self.started.clear()


@pytest.fixture
def neighbours() -> Iterator[Neighbours]:
    found = Neighbours()
    yield found
    found.leave()


def time_control(
    launcher: Launcher, neighbours: Neighbours, threads: int, come_in_round: int, count: int
) -> Member:
    """Return the control workload, timed for ROUNDS rounds; the neighbours come in one of them."""
    with ExitStack() as stack:
        worker = stack.enter_context(launcher.worker())
        worker.call("load_control", 60, device="cpu", threads=threads, pin=True)
        worker.pause()
        take, visits = partial(worker.time_block, 60, 0.01), iter(range(10**6))

        def time_block() -> Any:
            if next(visits) == come_in_round:
                neighbours.come(count)
            return take()

        member = Member("control", time_block)
        run_heat([member], Stop(0.0, 10.0, ROUNDS, ROUNDS), seed=0)
    return member


def latency_s(member: Member) -> float:
    return latencies([member])[member.name].value


def marked(member: Member, rounds: range) -> float:
    blocks = [block for block in member.blocks if block.round in rounds]
    return float(np.mean([bool(block.samples.disturbance.cause) for block in blocks]))


def test_the_blocks_it_disturbs_are_marked_and_left_out_of_the_headline(
    launcher: Launcher, neighbours: Neighbours
) -> None:
    member = time_control(launcher, neighbours, 1, come_in_round=ROUNDS // 2, count=PROCESSORS)
    before, after = range(ROUNDS // 2 - 1), range(ROUNDS // 2 + 1, ROUNDS)
    assert marked(member, after) > 0.9
    if marked(member, before) > 0.5:
        pytest.skip("something else was running before the neighbours came")
    assert member.headline_level() == 0
    clean = [b.median_s for b in member.blocks if not b.samples.disturbance.cause]
    assert latency_s(member) == pytest.approx(float(np.exp(np.median(np.log(clean)))))


SPIN = """
import time
import torch
from torch import nn

class Spin(nn.Module):
    # Takes 2 ms by the clock: as long on a slow host as on a fast one.
    def forward(self, x):
        end = time.perf_counter() + 0.002
        while time.perf_counter() < end:
            pass
        return x

def spin():
    return Spin(), torch.ones(1, 4)
"""


def test_the_headline_is_that_of_an_undisturbed_run(
    launcher: Launcher, neighbours: Neighbours, tmp_path: Path
) -> None:
    file = tmp_path / "own.py"
    file.write_text(SPIN)
    with launcher.worker() as worker:
        variant = worker.call("prepare_base", 60, model=f"{file}:spin", recipes=[], seed=0,
                              token="a test", threads=1)["variant"]  # fmt: skip
    with launcher.worker(Imports(files=(str(file),))) as worker:
        worker.call("load", 60, variant=variant, device="cpu", runtime="eager", threads=1, batch=1,
                    pin=True, wait_policy="active", flush_cache=False, cold=False)  # fmt: skip
        worker.pause()
        take, visits = partial(worker.time_block, 60, 0.01), iter(range(10**6))

        def time_block() -> Any:
            if next(visits) == ROUNDS // 2:
                neighbours.come(2 * PROCESSORS)
            return take()

        member = Member("spin", time_block)
        run_heat([member], Stop(0.0, 10.0, ROUNDS, ROUNDS), seed=0)
    assert marked(member, range(ROUNDS // 2 + 1, ROUNDS)) > 0.9, "the neighbours were seen"
    if member.headline_level() > 0:
        pytest.skip("something else was running before the neighbours came")
    assert latency_s(member) == pytest.approx(0.002, rel=0.05)


def test_two_threads_beside_a_neighbour_are_oversubscribed(
    launcher: Launcher, neighbours: Neighbours, record: Any
) -> None:
    member = time_control(launcher, neighbours, 2, come_in_round=0, count=PROCESSORS - 1)
    found = with_disturbance(record, member, PROCESSORS)
    assert found.conditions["oversubscribed"]
    (warning,) = found.conditions["warnings"]
    assert warning.startswith("oversubscribed: 2 threads beside ")
    assert warning.endswith(f" on {PROCESSORS} processors")
    assert found.conditions["disturbed_share"] > 0.9
    assert found.conditions["others_processors"] > 0.2


@pytest.fixture
def record() -> Any:
    from harness.grid import Cell
    from harness.record import Record

    return Record("run", Cell("m", "baseline", "cpu", 2, 1, "eager", 0), "measured")


def test_a_paused_worker_takes_no_processor_time(launcher: Launcher) -> None:
    with launcher.worker() as worker:
        worker.call("load_control", 60, device="cpu", threads=2, pin=True)
        worker.time_block(60, 0.01)
        time.sleep(0.05)  # each of its threads has to hear of it
        stat = Path(f"/proc/{worker.pid}/stat")
        before = stat.read_text().rpartition(")")[2].split()
        assert before[0] == "T", "stopped"
        time.sleep(0.2)
        after = stat.read_text().rpartition(")")[2].split()
        assert before[11:13] == after[11:13], "no ticks meanwhile"
        assert len(worker.time_block(60, 0.01).seconds) > 0, "and it goes on when asked"
