"""The instrument against workloads whose true cost is known."""

import time
from collections.abc import Callable
from pathlib import Path
from statistics import median

import pandas as pd
import pytest

from harness.sweep.launcher import Launcher

WORKLOADS = r"""
import dataclasses, time
import torch
from torch import nn
from bench.registry import build

class Sleep(nn.Module):
    # Tells how long it slept: the kernel wakes a sleeper late, now more and now less.
    def __init__(self):
        super().__init__()
        self.slept_s = []

    def forward(self, x):
        begin = time.perf_counter()
        time.sleep(0.005)
        self.slept_s.append(time.perf_counter() - begin)
        if len(self.slept_s) == 8:  # writing takes time: a median does not see one call in 8
            with open(__file__ + ".slept", "a") as file:
                print(*self.slept_s, sep="\n", file=file)
            self.slept_s.clear()
        return x

class Wait(nn.Module):
    # Takes 5 ms by the clock, without the kernel's part in waking a sleeper.
    def forward(self, x):
        end = time.perf_counter() + 0.005
        while time.perf_counter() < end:
            pass
        return x

def sleep():
    return Sleep(), torch.ones(1, 4)

def wait():
    return Wait(), torch.ones(1, 4)

def wide():
    return dataclasses.replace(build("model", "mnist1d-cnn-wide"), recipe=None)
"""


@pytest.fixture
def workloads(tmp_path: Path) -> str:
    file = tmp_path / "workloads.py"
    file.write_text(WORKLOADS)
    return str(file)


def test_a_module_that_takes_5_ms_measures_5_ms(
    measure: Callable[..., pd.DataFrame], workloads: str
) -> None:
    (cell,) = measure(models=[f"{workloads}:wait"]).to_dict("records")
    assert cell["latency_s"] == pytest.approx(0.005, rel=0.05)
    assert cell["latency_s_low"] <= cell["latency_s"] <= cell["latency_s_high"]
    assert cell["throughput_per_s"] == pytest.approx(1 / cell["latency_s"])


def test_a_module_that_sleeps_measures_what_the_sleep_took(
    measure: Callable[..., pd.DataFrame], workloads: str
) -> None:
    (cell,) = measure(models=[f"{workloads}:sleep"]).to_dict("records")
    slept_s = [float(line) for line in Path(f"{workloads}.slept").read_text().split()]
    assert len(slept_s) > cell["rounds"]
    assert cell["latency_s"] == pytest.approx(median(slept_s), rel=0.05)


def test_removed_channels_make_tensors_smaller_and_the_wide_model_faster(
    measure: Callable[..., pd.DataFrame], workloads: str
) -> None:
    cells = measure(
        budget={"max_seconds_per_cell": 2},  # enough rounds for a machine that is busy meanwhile
        models=[f"{workloads}:wide"], techniques=["prune-channels(0.5)"], batch=[64],
    ).set_index("technique")  # fmt: skip
    whole, pruned = cells.loc["baseline"], cells.loc["prune-channels(0.5)"]
    assert pruned["params"] < 0.4 * whole["params"]
    assert pruned["weight_bytes"] < 0.4 * whole["weight_bytes"]
    assert pruned["disk_bytes"] < 0.5 * whole["disk_bytes"]
    assert pruned["macs"] < 0.4 * whole["macs"]
    assert pruned["peak_memory_bytes"] < whole["peak_memory_bytes"]
    assert pruned["latency_ratio_high"] < 1
    assert pruned["latency_ratio_p_value"] < 0.01


def test_the_runner_sleeps_while_a_block_is_timed(launcher: Launcher, tmp_path: Path) -> None:
    file = tmp_path / "own.py"
    file.write_text(WORKLOADS)
    with launcher.worker() as worker:
        facts = worker.call(
            "prepare_base", 60, model=f"{file}:sleep", recipes=[], seed=0, plugins=[], threads=1
        )
        worker.call(
            "load", 60, variant=facts["variant"], device="cpu", runtime="eager", threads=1, batch=1,
            pin=True, wait_policy="active", flush_cache=False,
        )  # fmt: skip
        wall, cpu = time.perf_counter(), time.process_time()
        worker.call("block", 60, block_s=1.0)
        assert time.process_time() - cpu < 0.05 * (time.perf_counter() - wall)
