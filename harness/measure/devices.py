"""Devices: where tensors live, how to wait for them, and what memory they took."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any, Protocol

import torch

from harness.errors import WorkerRefusal


class Device(Protocol):
    """What the instrument needs of a device."""

    name: str

    def place(self, value: Any) -> Any:
        """Return a module or tensor on this device."""

    def synchronize(self) -> None:
        """Wait until everything asked of the device is done."""

    def finish(self, call: Callable[[], Any]) -> Callable[[], Any]:
        """Return a call that ends when its outputs are ready."""

    def reset_peak(self) -> None:
        """Begin a new memory peak."""

    def memory(self) -> dict[str, float]:
        """Return memory metrics since the last reset; empty where the host's memory is it."""

    def device_time_s(self, call: Callable[[], Any]) -> float | None:
        """Return one call's time on the device's own clock, or None where it has none."""

    def describe(self) -> dict[str, Any]:
        """Return the device's name, identity and driver."""


class CpuDevice:
    """The host's processor: calls end when they return."""

    name = "cpu"

    def place(self, value: Any) -> Any:
        """Return the value on the host."""
        return value.to("cpu")

    def synchronize(self) -> None:
        """Return at once: host calls are synchronous."""

    def finish(self, call: Callable[[], Any]) -> Callable[[], Any]:
        """Return the call itself, so that timing adds nothing to it."""
        return call

    def reset_peak(self) -> None:
        """Do nothing: the host's memory is measured in its own process."""

    def memory(self) -> dict[str, float]:
        """Return nothing: see `harness.measure.memory`."""
        return {}

    def device_time_s(self, call: Callable[[], Any]) -> float | None:
        """Return None: the host has no clock but the wall clock."""
        return None

    def describe(self) -> dict[str, Any]:
        """Return nothing beyond the machine's fingerprint."""
        return {}


class CudaDevice:
    """One CUDA card. `cuda` is torch.cuda; `nvml` is pynvml, or None where it does not load."""

    def __init__(self, index: int, cuda: Any, nvml: Any) -> None:
        self.name = f"cuda:{index}"
        self.index = index
        self.cuda = cuda
        self.nvml = nvml

    def place(self, value: Any) -> Any:
        """Return the value on the card."""
        return value.to(self.name)

    def synchronize(self) -> None:
        """Wait for every stream of the card."""
        self.cuda.synchronize(self.index)

    def finish(self, call: Callable[[], Any]) -> Callable[[], Any]:
        """Return a call that waits for the card, so that wall time is the time to the outputs."""
        synchronize, index = self.cuda.synchronize, self.index

        def finished() -> Any:
            outputs = call()
            synchronize(index)
            return outputs

        return finished

    def reset_peak(self) -> None:
        """Begin new peaks of the caching allocator."""
        self.cuda.reset_peak_memory_stats(self.index)

    def memory(self) -> dict[str, float]:
        """Return allocated and reserved peaks, and NVML's view of this process."""
        found = {
            "cuda_allocated_bytes": float(self.cuda.max_memory_allocated(self.index)),
            "cuda_reserved_bytes": float(self.cuda.max_memory_reserved(self.index)),
        }
        process = self._process_bytes()
        return found | ({} if process is None else {"cuda_process_bytes": process})

    def device_time_s(self, call: Callable[[], Any]) -> float | None:
        """Return the time between two events around the call, in seconds."""
        begin, end = (self.cuda.Event(enable_timing=True) for _ in range(2))
        begin.record()
        call()
        end.record()
        self.synchronize()
        return float(begin.elapsed_time(end)) / 1e3

    def describe(self) -> dict[str, Any]:
        """Return name, UUID, memory, compute capability and driver of the card."""
        properties = self.cuda.get_device_properties(self.index)
        return {
            "gpu_name": str(properties.name),
            "gpu_uuid": str(getattr(properties, "uuid", "")),
            "gpu_memory_bytes": int(properties.total_memory),
            "compute_capability": f"{properties.major}.{properties.minor}",
            "driver": self._driver(),
        }

    def _handle(self) -> Any:
        uuid = str(getattr(self.cuda.get_device_properties(self.index), "uuid", ""))
        if uuid:  # NVML counts all cards, CUDA_VISIBLE_DEVICES hides some: the UUID is safe
            return self.nvml.nvmlDeviceGetHandleByUUID(f"GPU-{uuid.removeprefix('GPU-')}")
        return self.nvml.nvmlDeviceGetHandleByIndex(self.index)

    def _process_bytes(self) -> float | None:
        if self.nvml is None:
            return None
        try:
            processes = self.nvml.nvmlDeviceGetComputeRunningProcesses(self._handle())
        except self.nvml.NVMLError:
            return None
        mine = [process.usedGpuMemory for process in processes if process.pid == os.getpid()]
        return float(mine[0]) if mine and mine[0] is not None else None

    def _driver(self) -> str:
        try:
            return str(self.nvml.nvmlSystemGetDriverVersion()) if self.nvml else ""
        except self.nvml.NVMLError:
            return ""


def open_device(name: str) -> Device:
    """Return the device of that name; raise WorkerRefusal with the reason where there is none."""
    if name == "cpu":
        return CpuDevice()
    if not torch.cuda.is_available():
        why = (
            "no NVIDIA driver or card was found"
            if torch.backends.cuda.is_built()
            else f"torch {torch.__version__} was built without CUDA"
        )
        raise WorkerRefusal(f'no CUDA device here: {why}. Use device "cpu", or run where one is.')
    index = int(name.partition(":")[2] or 0)
    if index >= torch.cuda.device_count():
        raise WorkerRefusal(f"no {name} here: it has {torch.cuda.device_count()} CUDA cards")
    torch.cuda.set_device(index)
    return CudaDevice(index, torch.cuda, load_nvml())


def load_nvml() -> Any:
    """Return pynvml, initialised, or None where the driver's library is absent."""
    import pynvml

    try:
        pynvml.nvmlInit()
    except pynvml.NVMLError:
        return None
    return pynvml
