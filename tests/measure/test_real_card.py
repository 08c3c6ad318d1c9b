"""The CUDA path on a real card, where there is one."""

import subprocess
import sys
import time
from collections.abc import Callable
from statistics import median
from typing import Any

import pytest
import torch

from harness.errors import WorkerRefusal
from harness.measure.devices import open_device

pytestmark = pytest.mark.skipif(
    not torch.cuda.is_available(), reason="needs a CUDA card; none here"
)


def test_a_real_card_is_opened_and_waited_for() -> None:
    device = open_device("cuda")
    values = device.place(torch.ones(256, 256))
    product = device.finish(lambda: values @ values)()
    assert product.device.type == "cuda"
    assert (device.device_time_s(lambda: values @ values) or 0) > 0
    assert device.memory()["cuda_allocated_bytes"] >= 2 * values.nbytes
    assert device.describe()["gpu_name"]


def test_a_card_that_does_not_exist_is_refused_with_the_number_of_cards() -> None:
    with pytest.raises(WorkerRefusal, match="CUDA cards"):
        open_device(f"cuda:{torch.cuda.device_count()}")


def wall_time_s(call: Callable[[], Any]) -> float:
    begin = time.perf_counter()
    call()
    return time.perf_counter() - begin


def test_on_a_real_card_a_flush_makes_the_next_call_slower_than_a_warm_one() -> None:
    device = open_device("cuda")
    # Summing down columns, a thread waits for each load: it feels where the data are.
    rows = device.describe()["l2_cache_bytes"] // 8 // (128 * 4)
    values = device.place(torch.ones(rows, 128))
    call = device.finish(lambda: torch.cumsum(values, 0))
    call()
    warm, cold = [], []
    for _ in range(15):
        call()
        warm.append(wall_time_s(call))
        device.flush_cache()
        cold.append(wall_time_s(call))
    assert median(cold) > median(warm)


def test_on_a_real_card_larger_tensors_take_longer_to_copy() -> None:
    device = open_device("cuda")
    small, large = torch.ones(2**10), torch.ones(2**26)
    little = device.transfer_times_s((small,), device.place(small))
    much = device.transfer_times_s((large,), device.place(large))
    for way in ("host_to_device_s", "device_to_host_s"):
        assert 0 < little[way] < much[way]


def test_on_a_real_card_the_device_s_time_is_within_the_wall_time() -> None:
    device = open_device("cuda")
    values = device.place(torch.ones(4096, 4096))
    call = device.finish(lambda: values @ values)
    for _ in range(10):
        call()
    wall_s = median(wall_time_s(call) for _ in range(15))
    device_s = device.device_time_s(lambda: values @ values)
    assert device_s is not None and 0 < device_s <= 1.1 * wall_s


def test_on_a_real_card_state_and_settings_can_be_read() -> None:
    device = open_device("cuda")
    state, free = device.read_state(), device.free_memory_bytes()
    assert free is not None and 0 < free <= device.describe()["gpu_memory_bytes"]
    assert all(isinstance(value, int | float | list | dict) for value in state.values())
    assert {"tf32_in_effect", "cuda_allocator_in_effect"} <= set(device.settings())


def test_two_processes_share_a_real_card() -> None:
    program = (
        "import torch; from harness.measure.devices import open_device; d = open_device('cuda');"
        "x = d.place(torch.ones(64, 64)); print('open', flush=True); input(); d.flush_cache();"
        "print(float(d.finish(lambda: (x @ x).sum())()), d.free_memory_bytes() > 0)"
    )
    workers = [
        subprocess.Popen([sys.executable, "-c", program], text=True,
                         stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        for _ in range(2)
    ]  # fmt: skip
    try:
        for worker in workers:
            assert worker.stdout is not None and worker.stdout.readline() == "open\n"
        answers = [worker.communicate("go\n", timeout=120)[0] for worker in workers]
    finally:
        for worker in workers:
            worker.kill()
    assert answers == ["262144.0 True\n"] * 2
