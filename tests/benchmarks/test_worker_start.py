"""What isolation costs: a worker forked from the server against one spawned anew."""

import subprocess
import sys
import time
from statistics import median
from typing import Any

from harness.sweep.launcher import Launcher

IMPORTS = (
    "import torch, harness.sweep.worker; from bench import registry; registry.load_built_ins()"
)


def fork_and_ask(launcher: Launcher) -> None:
    with launcher.worker() as worker:
        worker.call("probe_device", 60, device="cpu")


def time_spawn_s() -> float:
    """Return the time of a fresh interpreter that imports what a worker needs."""
    begin = time.perf_counter()
    subprocess.run([sys.executable, "-P", "-c", IMPORTS], check=True)
    return time.perf_counter() - begin


def time_fork_s(launcher: Launcher) -> float:
    """Return the time until a forked worker has answered."""
    begin = time.perf_counter()
    fork_and_ask(launcher)
    return time.perf_counter() - begin


def test_a_forked_worker_costs_at_most_a_tenth_of_a_spawned_one(
    launcher: Launcher, benchmark: Any
) -> None:
    fork_and_ask(launcher)
    pairs = [(time_fork_s(launcher), time_spawn_s()) for _ in range(3)]
    ratio = median(fork / spawn for fork, spawn in pairs)
    benchmark.extra_info["fork_over_spawn"] = ratio
    benchmark(fork_and_ask, launcher)
    assert ratio < 0.1
