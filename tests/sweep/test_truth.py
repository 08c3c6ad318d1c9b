"""The instrument against workloads whose true cost is known."""

import time
from collections.abc import Callable, Iterator
from pathlib import Path
from statistics import median

import numpy as np
import pandas as pd
import pytest

from harness.sweep.launcher import Launcher
from harness.sweep.remote import Worker

pytestmark = pytest.mark.clock

WORKLOADS = r"""
import dataclasses, time
import torch
from torch import nn
from bench.registry import build

class Sleep(nn.Module):
    # Tells how long it slept: the kernel wakes a sleeper late, now more and now less.
    def forward(self, x):
        begin = time.perf_counter()
        time.sleep(0.02)
        slept_s = time.perf_counter() - begin
        with open(__file__ + ".slept", "a") as file:  # about 0.2 ms
            print(slept_s, file=file)
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
    assert cell["latency_s_low"] <= cell["latency_s"] <= cell["latency_s_high"]
    assert cell["throughput_per_s"] == pytest.approx(1 / cell["latency_s"])
    if cell["disturbed_share"] > 2 / 3:
        pytest.skip("something else is running: it takes longer than 5 ms")
    assert cell["latency_s"] == pytest.approx(0.005, rel=0.05)


@pytest.fixture
def sleeper(launcher: Launcher, workloads: str) -> Iterator[Worker]:
    with launcher.worker() as worker:
        facts = worker.call("prepare_base", 60, model=f"{workloads}:sleep", recipes=[], seed=0,
                            token="a test", threads=1)  # fmt: skip
        worker.call("load", 60, variant=facts["variant"], device="cpu", runtime="eager", threads=1,
                    batch=1, pin=True, wait_policy="active", flush_cache=False,
                    cold=False)  # fmt: skip
        yield worker


def test_each_sample_is_what_its_call_slept(sleeper: Worker, workloads: str) -> None:
    samples = sleeper.time_block(60, 1.0)
    slept_s = Path(f"{workloads}.slept").read_text().split()
    took_s = [float(line) for line in slept_s[-len(samples.seconds) :]]
    assert samples.loops == 1
    assert len(took_s) > 20, "the calls that came last are those of the block"
    longer = np.divide(samples.seconds, took_s)
    assert min(longer) >= 1
    assert median(longer) < 1.05


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


def test_the_runner_sleeps_while_a_block_is_timed(sleeper: Worker) -> None:
    wall, cpu = time.perf_counter(), time.process_time()
    sleeper.call("block", 60, block_s=1.0)
    assert time.process_time() - cpu < 0.05 * (time.perf_counter() - wall)
