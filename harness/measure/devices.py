"""Devices: where tensors live, how to wait for them, and what memory they took."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

import torch
from torch import Tensor

from harness.errors import WorkerRefusal
from harness.measure.cuda import CudaDevice
from harness.measure.nvml import load_nvml


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

    def free_memory_bytes(self) -> int | None:
        """Return the device's free memory in bytes, or None where the host's memory is it."""

    def flush_cache(self) -> None:
        """Push earlier calls' data out of the device's cache, where that can be done."""

    def device_time_s(self, call: Callable[[], Any]) -> float | None:
        """Return one call's time on the device's own clock, or None where it has none."""

    def transfer_times_s(self, inputs: tuple[Tensor, ...], outputs: Any) -> dict[str, float]:
        """Return the times of the copies to and from the host; empty where there are none."""

    def read_state(self) -> dict[str, Any]:
        """Return what may change between blocks, such as clocks; what is unknown is left out."""

    def settings(self) -> dict[str, Any]:
        """Return what is set for the device, as it is in effect."""

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

    def free_memory_bytes(self) -> int | None:
        """Return None: see `harness.measure.machine`."""
        return None

    def flush_cache(self) -> None:
        """Do nothing: the host's caches are left as they are."""

    def device_time_s(self, call: Callable[[], Any]) -> float | None:
        """Return None: the host has no clock but the wall clock."""
        return None

    def transfer_times_s(self, inputs: tuple[Tensor, ...], outputs: Any) -> dict[str, float]:
        """Return nothing: what is on the host stays there."""
        return {}

    def read_state(self) -> dict[str, Any]:
        """Return nothing: the host's disturbances are watched elsewhere."""
        return {}

    def settings(self) -> dict[str, Any]:
        """Return nothing: see `harness.measure.settings`."""
        return {}

    def describe(self) -> dict[str, Any]:
        """Return nothing beyond the machine's fingerprint."""
        return {}


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
    return CudaDevice(index, torch.cuda, load_nvml)
