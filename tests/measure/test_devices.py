"""The CUDA path on a card that is made of Python: what is called, in which order, in which unit."""

from types import SimpleNamespace
from typing import Any

import pytest
import torch

from harness.errors import WorkerRefusal
from harness.measure.devices import CpuDevice, CudaDevice, open_device

GPU_MISSING = not torch.cuda.is_available()


class FakeCuda:
    """A card whose clock advances when it is told to, and only when it is waited for."""

    def __init__(self) -> None:
        self.log: list[str] = []
        self.queued_ms = 0.0
        self.clock_ms = 0.0

    def Event(self, enable_timing: bool) -> Any:  # noqa: N802  # torch's name
        assert enable_timing
        cuda = self

        class Event:
            def record(self) -> None:
                self.at = cuda.clock_ms + cuda.queued_ms

            def elapsed_time(self, end: Any) -> float:
                assert cuda.queued_ms == 0, "read before the card was waited for"
                return end.at - self.at

        return Event()

    def work(self, milliseconds: float) -> None:
        self.log.append("work")
        self.queued_ms += milliseconds

    def synchronize(self, index: int) -> None:
        self.log.append(f"synchronize {index}")
        self.clock_ms += self.queued_ms
        self.queued_ms = 0.0

    def reset_peak_memory_stats(self, index: int) -> None:
        self.log.append(f"reset {index}")

    def max_memory_allocated(self, index: int) -> int:
        return 64 * 2**20

    def max_memory_reserved(self, index: int) -> int:
        return 80 * 2**20

    def get_device_properties(self, index: int) -> Any:
        return SimpleNamespace(name="Fake", uuid="1234", total_memory=2**34, major=9, minor=0)


class FakeNvml:
    """NVML with one process of ours on the card."""

    class NVMLError(Exception):
        pass

    def __init__(self, pid: int) -> None:
        self.pid = pid

    def nvmlDeviceGetHandleByUUID(self, uuid: str) -> str:  # noqa: N802  # NVML's name
        assert uuid == "GPU-1234"
        return uuid

    def nvmlDeviceGetComputeRunningProcesses(self, handle: str) -> list[Any]:  # noqa: N802
        return [
            SimpleNamespace(pid=self.pid + 1, usedGpuMemory=5),
            SimpleNamespace(pid=self.pid, usedGpuMemory=7 * 2**20),
        ]

    def nvmlSystemGetDriverVersion(self) -> str:  # noqa: N802
        return "580.1"


def test_a_cuda_call_ends_when_the_card_is_done() -> None:
    cuda = FakeCuda()
    call = CudaDevice(1, cuda, None).finish(lambda: cuda.work(3.0))
    call()
    assert cuda.log == ["work", "synchronize 1"]
    assert cuda.queued_ms == 0


def test_device_time_is_read_from_events_after_waiting_and_in_seconds() -> None:
    cuda = FakeCuda()
    assert CudaDevice(0, cuda, None).device_time_s(lambda: cuda.work(2.5)) == pytest.approx(2.5e-3)


def test_cuda_memory_is_allocated_reserved_and_what_nvml_sees_of_this_process() -> None:
    import os

    device = CudaDevice(0, FakeCuda(), FakeNvml(os.getpid()))
    assert device.memory() == {
        "cuda_allocated_bytes": 64 * 2**20,
        "cuda_reserved_bytes": 80 * 2**20,
        "cuda_process_bytes": 7 * 2**20,
    }


def test_without_nvml_the_process_memory_is_left_out() -> None:
    assert "cuda_process_bytes" not in CudaDevice(0, FakeCuda(), None).memory()


def test_a_card_is_described_by_name_uuid_and_driver() -> None:
    described = CudaDevice(0, FakeCuda(), FakeNvml(1)).describe()
    assert described["gpu_name"] == "Fake"
    assert described["gpu_uuid"] == "1234"
    assert described["driver"] == "580.1"
    assert described["compute_capability"] == "9.0"


def test_the_processor_adds_nothing_to_a_call() -> None:
    def call() -> None:
        return None

    assert CpuDevice().finish(call) is call


@pytest.mark.skipif(not GPU_MISSING, reason="this machine has a CUDA card")
def test_asking_for_a_card_where_there_is_none_is_refused_with_the_reason() -> None:
    with pytest.raises(WorkerRefusal, match="no CUDA device here"):
        open_device("cuda:0")


@pytest.mark.skipif(GPU_MISSING, reason="needs a CUDA card; none here")
def test_a_real_card_is_opened_and_waited_for() -> None:
    device = open_device("cuda")
    values = device.place(torch.ones(256, 256))
    product = device.finish(lambda: values @ values)()
    assert product.device.type == "cuda"
    assert (device.device_time_s(lambda: values @ values) or 0) > 0
    assert device.memory()["cuda_allocated_bytes"] >= 2 * values.nbytes
    assert device.describe()["gpu_name"]


@pytest.mark.skipif(GPU_MISSING, reason="needs a CUDA card; none here")
def test_a_card_that_does_not_exist_is_refused_with_the_number_of_cards() -> None:
    with pytest.raises(WorkerRefusal, match="CUDA cards"):
        open_device(f"cuda:{torch.cuda.device_count()}")
