"""The CUDA path on a card that is made of Python: what is called, in which order, in which unit."""

import os
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pynvml
import pytest
import torch

from harness.console.machine import describe_device
from harness.errors import WorkerRefusal
from harness.measure.cuda import CudaDevice
from harness.measure.devices import CpuDevice, open_device
from harness.measure.nvml import THROTTLES, NvmlCard
from harness.measure.tf32 import describe_tf32


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
                return float(end.at - self.at)

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

    def empty_cache(self) -> None:
        self.log.append("empty")

    def memory_allocated(self, index: int) -> int:
        return 4 * 2**20

    def memory_reserved(self, index: int) -> int:
        return 20 * 2**20

    def max_memory_allocated(self, index: int) -> int:
        return 64 * 2**20

    def max_memory_reserved(self, index: int) -> int:
        return 80 * 2**20

    def get_device_properties(self, index: int) -> Any:
        return SimpleNamespace(name="Fake", uuid="1234", total_memory=2**34, major=9, minor=0,
                               L2_cache_size=50 * 2**20, multi_processor_count=132)  # fmt: skip

    def mem_get_info(self, index: int) -> tuple[int, int]:
        return 2**33 + index, 2**34

    def get_allocator_backend(self) -> str:
        return "native"


class Moved(torch.Tensor):
    """A tensor that takes a millisecond of the card's time for each byte that is copied."""

    card: FakeCuda

    def to(self, target: str) -> "Moved":  # type: ignore[override]
        self.card.log.append(f"to {target}")
        self.card.queued_ms += self.nbytes
        return self


def moved(cuda: FakeCuda, size: int) -> Moved:
    tensor = torch.zeros(size, dtype=torch.uint8).as_subclass(Moved)
    tensor.card = cuda
    return tensor


class FakeNvml:
    """NVML with one process of ours on the card, in NVML's own units."""

    NVML_CLOCK_SM = 1

    class NVMLError(Exception):
        pass

    def __init__(self, pid: int = 1, unsupported: str = "", **answers: Any) -> None:
        self.unsupported = unsupported.split()
        ours = SimpleNamespace(pid=pid, usedGpuMemory=7 * 2**20)
        other = SimpleNamespace(pid=pid + 1, usedGpuMemory=5)
        self.answers: dict[str, Any] = {
            "nvmlSystemGetDriverVersion": "580.1",
            "nvmlDeviceGetHandleByUUID": "handle",
            "nvmlDeviceGetComputeRunningProcesses": [other, ours],
            "nvmlDeviceGetClockInfo": {1: 1_980},
            "nvmlDeviceGetMaxClockInfo": {1: 1_985},
            "nvmlDeviceGetCurrentClocksEventReasons": 0,
            "nvmlDeviceGetCurrentClocksThrottleReasons": 0,
            "nvmlDeviceGetEnforcedPowerLimit": 700_000,
            "nvmlDeviceGetPersistenceMode": 1,
            "nvmlDeviceGetComputeMode": 0,
            "nvmlDeviceGetViolationStatus": dict.fromkeys(
                range(12), SimpleNamespace(referenceTime=9, violationTime=2_500_000_000)
            ),
            "nvmlDeviceGetProcessUtilization": [
                SimpleNamespace(pid=pid, smUtil=90),
                SimpleNamespace(pid=2**22 + 1, smUtil=40),
                SimpleNamespace(pid=2**22 + 2, smUtil=0),
            ],
        } | answers

    def __getattr__(self, name: str) -> Callable[..., Any]:
        if not name.startswith("nvml"):
            raise AttributeError(name)
        if name not in self.answers:
            raise AttributeError(f"this pynvml has no {name}")

        def function(*arguments: Any) -> Any:
            if name in self.unsupported:
                raise self.NVMLError("Not Supported")
            answer = self.answers[name]
            return answer[arguments[1]] if isinstance(answer, dict) else answer

        return function


def test_a_cuda_call_ends_when_the_card_is_done() -> None:
    cuda = FakeCuda()
    call = CudaDevice(1, cuda, None).finish(lambda: cuda.work(3.0))
    call()
    assert cuda.log == ["work", "synchronize 1"]
    assert cuda.queued_ms == 0


def test_device_time_is_read_from_events_after_waiting_and_in_seconds() -> None:
    cuda = FakeCuda()
    assert CudaDevice(0, cuda, None).device_time_s(lambda: cuda.work(2.5)) == pytest.approx(2.5e-3)


def test_device_time_is_the_median_of_calls_that_are_waited_for_once() -> None:
    cuda = FakeCuda()
    times_ms = iter([90.0, 2.0, 1.0, 2.0, 2.0, *[2.0] * 100])
    assert CudaDevice(0, cuda, None).device_time_s(
        lambda: cuda.work(next(times_ms))
    ) == pytest.approx(2e-3)
    assert cuda.log.count("work") >= 5
    assert cuda.log[cuda.log.index("synchronize 0") :] == ["synchronize 0"]


def test_cuda_memory_is_allocated_reserved_and_what_nvml_sees_of_this_process() -> None:
    device = CudaDevice(0, FakeCuda(), FakeNvml(os.getpid()))
    assert device.memory() == {
        "cuda_allocated_bytes": 64 * 2**20,
        "cuda_reserved_bytes": 80 * 2**20,
        "cuda_process_bytes": 7 * 2**20,
    }


def test_what_the_libraries_keep_on_the_card_is_not_the_models() -> None:
    device = CudaDevice(0, FakeCuda(), None)
    device.reset_peak()
    assert device.cuda.log == ["empty", "reset 0"]
    assert device.memory() == {
        "cuda_allocated_bytes": 60 * 2**20,
        "cuda_reserved_bytes": 60 * 2**20,
    }


def test_the_drivers_library_is_loaded_by_who_first_asks_it() -> None:
    asked: list[str] = []

    def load() -> Any:
        asked.append("nvml")
        return FakeNvml(os.getpid())

    cuda = FakeCuda()
    device = CudaDevice(0, cuda, load)
    device.finish(lambda: cuda.work(1.0))()
    assert asked == [], "a cold start does not pay for it"
    device.read_state()
    device.describe()
    assert asked == ["nvml"]


def test_without_nvml_the_process_memory_is_left_out() -> None:
    assert "cuda_process_bytes" not in CudaDevice(0, FakeCuda(), None).memory()


def test_another_process_is_never_taken_for_this_one() -> None:
    alone = [SimpleNamespace(pid=os.getpid() + 1, usedGpuMemory=5)]
    nvml = FakeNvml(nvmlDeviceGetComputeRunningProcesses=alone)
    assert "cuda_process_bytes" not in CudaDevice(0, FakeCuda(), nvml).memory()


def test_free_memory_is_what_the_card_has_left() -> None:
    assert CudaDevice(3, FakeCuda(), None).free_memory_bytes() == 2**33 + 3


def test_a_card_is_described_by_name_uuid_driver_and_limits() -> None:
    described = CudaDevice(0, FakeCuda(), FakeNvml(1)).describe()
    assert described["gpu_name"] == "Fake"
    assert described["gpu_uuid"] == "1234"
    assert described["driver"] == "580.1"
    assert described["compute_capability"] == "9.0"
    assert described["l2_cache_bytes"] == 50 * 2**20
    assert described["multiprocessors"] == 132
    assert described["sm_clock_max_hz"] == 1_985e6
    assert described["power_limit_w"] == 700.0


@pytest.mark.parametrize(("l2_bytes", "wanted"), [(50 * 2**20, 100 * 2**20), (None, 128 * 2**20)])
def test_the_cache_is_flushed_by_one_buffer_of_twice_its_size(
    l2_bytes: int | None, wanted: int
) -> None:
    class Unsized(FakeCuda):
        def get_device_properties(self, index: int) -> Any:
            properties = super().get_device_properties(index)
            properties.L2_cache_size = l2_bytes
            return properties

    made: list[tuple[int, str]] = []
    cuda = Unsized()

    def empty(size: int, dtype: torch.dtype, device: str) -> Any:
        made.append((size * dtype.itemsize, device))
        return SimpleNamespace(zero_=lambda: cuda.work(1.0))

    device = CudaDevice(1, cuda, None, empty=empty)
    assert made == [], "memory is taken only where a flush is asked for"
    device.flush_cache()
    device.flush_cache()
    assert made == [(wanted, "cuda:1")]
    assert cuda.log == ["work", "synchronize 1"] * 2


def test_a_flush_buffer_made_in_inference_mode_can_be_written_outside_of_it() -> None:
    def empty(size: int, dtype: torch.dtype, device: str) -> torch.Tensor:
        return torch.empty(size, dtype=dtype)

    device = CudaDevice(0, FakeCuda(), None, empty=empty)
    with torch.inference_mode():
        device.flush_cache()
    device.flush_cache()


def test_transfers_are_timed_from_quiet_card_to_quiet_card_and_by_direction() -> None:
    cuda = FakeCuda()
    device = CudaDevice(0, cuda, None, clock=lambda: cuda.clock_ms / 1e3)
    outputs = {"logits": moved(cuda, 4), "more": [moved(cuda, 1), None]}
    times = device.transfer_times_s((moved(cuda, 2), moved(cuda, 8)), outputs)
    assert times == {
        "host_to_device_s": pytest.approx(10e-3),
        "device_to_host_s": pytest.approx(5e-3),
    }
    assert "to cuda:0" in cuda.log and cuda.log[-3:] == ["to cpu", "to cpu", "synchronize 0"]


def test_the_state_is_in_si_units_and_names_what_holds_the_clocks_down() -> None:
    nvml = FakeNvml(nvmlDeviceGetCurrentClocksEventReasons=0x1 | 0x2 | 0x4 | 0x8 | 0x20 | 0x100)
    assert CudaDevice(0, FakeCuda(), nvml).read_state() == {
        "sm_clock_hz": 1_980e6,
        "throttle_reasons": ["power cap", "hw slowdown", "thermal"],
        "held_back_s": {"thermal": 2.5, "sync boost": 2.5, "board limit": 2.5, "reliability": 2.5},
    }


def test_who_else_computes_on_the_card_is_counted_where_our_own_number_is_known() -> None:
    """The kernel's largest process number is 2**22: nobody here has those."""
    ours = CudaDevice(0, FakeCuda(), FakeNvml(pid=os.getpid())).read_state()
    assert ours["others"] == 1
    assert "others" not in CudaDevice(0, FakeCuda(), FakeNvml(pid=2**22 + 9)).read_state()
    nobody = FakeNvml(pid=os.getpid(), unsupported="nvmlDeviceGetProcessUtilization")
    assert CudaDevice(0, FakeCuda(), nobody).read_state()["others"] == 0


def test_what_a_card_cannot_tell_is_left_out_and_the_rest_stays() -> None:
    unsupported = "nvmlDeviceGetViolationStatus nvmlDeviceGetEnforcedPowerLimit"
    device = CudaDevice(0, FakeCuda(), FakeNvml(unsupported=unsupported))
    assert set(device.read_state()) == {"sm_clock_hz", "throttle_reasons"}
    assert "power_limit_w" not in device.settings() | device.describe()


def test_older_drivers_and_older_pynvml_are_asked_by_the_older_names() -> None:
    driver = FakeNvml(
        unsupported="nvmlDeviceGetCurrentClocksEventReasons",
        nvmlDeviceGetCurrentClocksThrottleReasons=0x40,
    )
    wrapper = FakeNvml(nvmlDeviceGetCurrentClocksThrottleReasons=0x40)
    del wrapper.answers["nvmlDeviceGetCurrentClocksEventReasons"]
    for nvml in (driver, wrapper):
        state = CudaDevice(0, FakeCuda(), nvml).read_state()
        assert state["throttle_reasons"] == ["hw thermal"]


@pytest.mark.parametrize("nvml", [None, FakeNvml(unsupported="nvmlDeviceGetHandleByUUID")])
def test_a_card_that_nvml_does_not_know_has_no_state_and_torch_s_settings(nvml: Any) -> None:
    device = CudaDevice(0, FakeCuda(), nvml)
    assert device.read_state() == {}
    assert set(device.settings()) == {"tf32_in_effect", "cuda_allocator_in_effect"}
    assert device.settings()["cuda_allocator_in_effect"] == "native"


def test_every_nvml_name_and_throttle_bit_is_pynvml_s_own() -> None:
    assert [name for name in FakeNvml().answers if not hasattr(pynvml, name)] == []
    prefix = "nvmlClocksThrottleReason"
    kept = ("None", "All", "GpuIdle", "DisplayClockSetting")
    bits = {
        value
        for name, value in vars(pynvml).items()
        if name.startswith(prefix) and name.removeprefix(prefix) not in kept
    }
    assert set(THROTTLES) == bits - {pynvml.nvmlClocksThrottleReasonApplicationsClocksSetting}


def test_tf32_is_read_also_where_torch_s_older_getter_refuses() -> None:
    assert describe_tf32() == "matmul off, conv on, rnn on"
    matmul = torch.backends.cuda.matmul
    before = matmul.fp32_precision
    matmul.fp32_precision = "tf32"
    try:
        with pytest.raises(RuntimeError, match="mix of the legacy and new"):
            _ = matmul.allow_tf32
        assert describe_tf32() == "matmul on, conv on, rnn on"
    finally:
        matmul.fp32_precision = before


def test_the_processor_has_no_card_s_metrics() -> None:
    cpu = CpuDevice()
    cpu.flush_cache()
    assert cpu.free_memory_bytes() is None
    assert cpu.transfer_times_s((torch.ones(1),), torch.ones(1)) == {}
    assert cpu.read_state() == cpu.settings() == cpu.describe() == {}


def test_the_processor_adds_nothing_to_a_call() -> None:
    def call() -> None:
        return None

    assert CpuDevice().finish(call) is call


@pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has a CUDA card")
def test_asking_for_a_card_where_there_is_none_is_refused_with_the_reason() -> None:
    with pytest.raises(WorkerRefusal, match="no CUDA device here"):
        open_device("cuda:0")


@pytest.mark.parametrize("bus", [b"00000000:3B:00.0", "0000:3b:00.0"])
@pytest.mark.parametrize(("text", "node"), [("1\n", 1), ("0\n", 0), ("-1\n", None), (None, None)])
def test_the_cards_memory_node_is_read_where_the_firmware_tells_it(
    tmp_path: Path, bus: str | bytes, text: str | None, node: int | None
) -> None:
    """As an RTX 4090's place on the bus is told by driver 580 (bytes by older pynvml)."""
    folder = tmp_path / "sys/bus/pci/devices/0000:3b:00.0"
    folder.mkdir(parents=True)
    if text is not None:
        (folder / "numa_node").write_text(text)
    card = NvmlCard(FakeNvml(nvmlDeviceGetPciInfo=SimpleNamespace(busId=bus)), "its UUID", 0)
    assert card.memory_node(tmp_path) == node
    assert NvmlCard(None, "", 0).memory_node(tmp_path) is None


def test_a_mig_instance_is_found_by_its_own_uuid_and_has_the_clocks_of_its_card() -> None:
    """As an A100 in MIG mode answers: the instance has no clocks, the card no such processes."""

    class MigNvml(FakeNvml):
        def nvmlDeviceGetHandleByUUID(self, uuid: str) -> str:  # noqa: N802  # NVML's name
            if uuid != "MIG-1234":
                raise self.NVMLError("Not Found")
            return "instance"

        def nvmlDeviceGetDeviceHandleFromMigDeviceHandle(self, handle: str) -> str:  # noqa: N802
            if handle != "instance":
                raise self.NVMLError("Invalid Argument")
            return "card"

        def nvmlDeviceGetClockInfo(self, handle: str, _: int) -> int:  # noqa: N802
            if handle == "instance":
                raise self.NVMLError("Not Supported")
            return 1_410

        def nvmlDeviceGetComputeRunningProcesses(self, handle: str) -> list[Any]:  # noqa: N802
            assert handle == "instance", "the card lists all instances' processes"
            return [SimpleNamespace(pid=os.getpid(), usedGpuMemory=3 * 2**20)]

    nvml = MigNvml(nvmlDeviceGetName="NVIDIA A100-SXM4-40GB MIG 1g.5gb")
    device = CudaDevice(0, FakeCuda(), nvml)
    assert device.card.is_slice
    assert device.read_state()["sm_clock_hz"] == 1_410e6
    assert device.memory()["cuda_process_bytes"] == 3 * 2**20
    assert device.describe()["mig_instance"] == "NVIDIA A100-SXM4-40GB MIG 1g.5gb"
    assert not CudaDevice(0, FakeCuda(), FakeNvml()).card.is_slice


@pytest.mark.parametrize(
    ("compute", "persistence", "modes"),
    [
        (0, 1, {"compute_mode": "default", "persistence_mode": "on"}),
        (3, 0, {"compute_mode": "exclusive process", "persistence_mode": "off"}),
        (2, 1, {"compute_mode": "prohibited", "persistence_mode": "on"}),
        (9, 0, {"compute_mode": "9", "persistence_mode": "off"}),
    ],
)
def test_the_modes_of_a_card_are_told_in_words(
    compute: int, persistence: int, modes: dict[str, str]
) -> None:
    nvml = FakeNvml(
        nvmlDeviceGetComputeMode=compute, nvmlDeviceGetPersistenceMode=persistence,
    )  # fmt: skip
    assert CudaDevice(0, FakeCuda(), nvml).card.modes() == modes
    told = describe_device(CudaDevice(0, FakeCuda(), nvml).describe())
    assert all(value in told for value in modes.values())
    assert "None" not in told and "nan" not in told
    unknown = FakeNvml(unsupported="nvmlDeviceGetComputeMode nvmlDeviceGetPersistenceMode")
    assert CudaDevice(0, FakeCuda(), unknown).card.modes() == {}
