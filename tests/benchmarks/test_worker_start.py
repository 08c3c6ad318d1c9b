"""What isolation costs: a worker forked from the server against one spawned anew."""

import subprocess
import sys
import time
from pathlib import Path
from statistics import median
from typing import Any

import pytest

from harness.sweep.imports import NOTHING, Imports
from harness.sweep.launcher import Launcher

pytestmark = pytest.mark.clock

IMPORTS = (
    "import torch, harness.worker.serve; from bench import registry; registry.load_built_ins()"
)


HEAVY = "import torch._inductor.compile_fx, sklearn.ensemble, matplotlib.pyplot, torchao"


def fork_and_ask(launcher: Launcher, imports: Imports = NOTHING) -> None:
    with launcher.worker(imports) as worker:
        worker.call("probe_device", 60, device="cpu")


def time_spawn_s() -> float:
    """Return the time of a fresh interpreter that imports what a worker needs."""
    begin = time.perf_counter()
    subprocess.run([sys.executable, "-P", "-c", IMPORTS], check=True)
    return time.perf_counter() - begin


def time_fork_s(launcher: Launcher, imports: Imports = NOTHING) -> float:
    """Return the time until a forked worker has answered."""
    begin = time.perf_counter()
    fork_and_ask(launcher, imports)
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


def test_a_heavy_import_of_a_user_s_file_is_paid_once(
    launcher: Launcher, benchmark: Any, tmp_path: Path
) -> None:
    (tmp_path / "heavy.py").write_text(HEAVY)
    imports = Imports(folders=(str(tmp_path),), files=(str(tmp_path / "heavy.py"),))
    first = time_fork_s(launcher, imports)
    fork_and_ask(launcher)
    pairs = [(time_fork_s(launcher, imports), time_fork_s(launcher)) for _ in range(15)]
    benchmark.extra_info["first_s"] = first
    benchmark.extra_info["beyond_a_plain_worker_s"] = median(one - other for one, other in pairs)
    benchmark(fork_and_ask, launcher, imports)
    assert median(one for one, _ in pairs) < 0.1 * first
