"""A CUDA card: how to wait for it, its memory and cache, and its state as NVML tells it.

Several processes may use one card at a time, as the workers of a heat do. Free memory, clocks,
power and temperature are those of the whole card; the rest is of this process.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from statistics import median
from typing import Any

import torch
from torch import Tensor

EVENT_PAIRS = 5
COPIES = 7
ASSUMED_L2_BYTES = 64 * 2**20
THROTTLES = {
    0x004: "power cap",
    0x008: "hw slowdown",
    0x010: "sync boost",
    0x020: "thermal",
    0x040: "hw thermal",
    0x080: "hw power brake",
    0x200: "board limit",
    0x400: "reliability",
}
"""Bits of nvmlClocksEventReasons (nvml.h). An idle card (1) and clocks that somebody has set for
applications (2) or displays (0x100) are not throttling."""


POLICIES = {1: "thermal", 2: "sync boost", 3: "board limit", 5: "reliability"}
"""What NVML counts the time of. The power limit (0) is the work's own doing; idling (4) is none."""


class NvmlCard:
    """What NVML knows of one card. Cards and drivers differ: what one cannot say is left out."""

    def __init__(self, nvml: Any, uuid: str, index: int) -> None:
        self.nvml = nvml
        self.handle = None if nvml is None else self._find(uuid, index)
        self._asked_us = int(time.time() * 1e6)

    def _find(self, uuid: str, index: int) -> Any:
        try:
            if uuid:  # NVML counts all cards, CUDA_VISIBLE_DEVICES hides some: the UUID is safe
                return self.nvml.nvmlDeviceGetHandleByUUID(f"GPU-{uuid.removeprefix('GPU-')}")
            return self.nvml.nvmlDeviceGetHandleByIndex(index)
        except self.nvml.NVMLError:  # a MIG slice has a UUID of another kind
            return None

    def ask(self, names: tuple[str, ...], *arguments: Any, scale: float | None = None) -> Any:
        """Return the answer of the first function that has one, scaled; None if none has.

        Functions are renamed over the years: a new name may be missing in the driver, an old one
        in pynvml.
        """
        for function in (getattr(self.nvml, name, None) for name in names):
            if function is None or self.handle is None:
                continue
            try:
                answer = function(self.handle, *arguments)
            except self.nvml.NVMLError:
                continue
            return answer if scale is None else answer * scale
        return None

    def state(self) -> dict[str, Any]:
        """Return the clock (Hz), what holds it down and for how long (s), and who else computes.

        `held_back_s` counts from when the driver was loaded, by reason. `others` are processes of
        other sessions that have computed since the last time; where NVML's process numbers are not
        ours (containers), it is left out.
        """
        if self.handle is None:
            return {}
        reasons = self.ask(
            ("nvmlDeviceGetCurrentClocksEventReasons", "nvmlDeviceGetCurrentClocksThrottleReasons")
        )
        clock = ("nvmlDeviceGetClockInfo",)
        return _known(
            sm_clock_hz=self.ask(clock, self.nvml.NVML_CLOCK_SM, scale=1e6),
            throttle_reasons=None if reasons is None else _throttles(reasons),
            held_back_s=self._held_back_s() or None,
            others=self._count_others(),
        )

    def _held_back_s(self) -> dict[str, float]:
        """How long each policy has held the clock back. Source: nvml.h, nvmlPerfPolicyType_t."""
        told = {
            name: self.ask(("nvmlDeviceGetViolationStatus",), policy)
            for policy, name in POLICIES.items()
        }
        return {name: one.violationTime / 1e9 for name, one in told.items() if one is not None}

    def _count_others(self) -> int | None:
        if self.process_bytes() is None:
            return None
        now_us, since_us = int(time.time() * 1e6), self._asked_us
        samples = self.ask(("nvmlDeviceGetProcessUtilization",), since_us) or []
        self._asked_us = now_us
        return len({one.pid for one in samples if one.smUtil > 0 and not _is_ours(one.pid)})

    def limits(self) -> dict[str, Any]:
        """Return the power limit in force (W) and the highest SM clock (Hz)."""
        if self.handle is None:
            return {}
        power = ("nvmlDeviceGetEnforcedPowerLimit", "nvmlDeviceGetPowerManagementLimit")
        return _known(
            power_limit_w=self.ask(power, scale=1e-3),
            sm_clock_max_hz=self.ask(
                ("nvmlDeviceGetMaxClockInfo",), self.nvml.NVML_CLOCK_SM, scale=1e6
            ),
        )

    def process_bytes(self) -> float | None:
        """Return the memory that this process has on the card; None where NVML does not say.

        NVML lists the host's process numbers. In a container with numbers of its own ours is not
        among them, and to take another process for ours would be a guess.
        """
        processes = self.ask(("nvmlDeviceGetComputeRunningProcesses",)) or []
        mine = [process.usedGpuMemory for process in processes if process.pid == os.getpid()]
        return float(mine[0]) if mine and mine[0] is not None else None

    def memory_node(self, root: Path = Path("/")) -> int | None:
        """Return the host's memory node that the card hangs on; None where there is only one.

        Source: Linux, ABI/testing/sysfs-bus-pci (numa_node; -1 where the firmware does not say).
        """
        place = self.ask(("nvmlDeviceGetPciInfo_v3", "nvmlDeviceGetPciInfo"))
        bus = getattr(place, "busId", b"")
        name = (bus.decode() if isinstance(bus, bytes) else bus).lower()[-len("0000:00:00.0") :]
        try:
            node = int((root / "sys/bus/pci/devices" / name / "numa_node").read_text())
        except (OSError, ValueError):
            return None
        return node if node >= 0 else None

    def driver(self) -> str:
        """Return the driver's version, or nothing."""
        try:
            return str(self.nvml.nvmlSystemGetDriverVersion()) if self.nvml else ""
        except self.nvml.NVMLError:
            return ""


class CudaDevice:
    """One CUDA card. `cuda` is torch.cuda; `nvml` is pynvml, or None where it does not load."""

    def __init__(
        self,
        index: int,
        cuda: Any,
        nvml: Any,
        empty: Callable[..., Any] = torch.empty,
        clock: Callable[[], float] = time.perf_counter,
    ) -> None:
        self.name = f"cuda:{index}"
        self.index = index
        self.cuda = cuda
        self.empty = empty
        self.clock = clock
        self.properties = cuda.get_device_properties(index)
        self.card = NvmlCard(nvml, str(getattr(self.properties, "uuid", "")), index)
        self._scratch: Any = None

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
        process = self.card.process_bytes()
        return found | ({} if process is None else {"cuda_process_bytes": process})

    def free_memory_bytes(self) -> int | None:
        """Return what any process could still allocate on the card, in bytes."""
        return int(self.cuda.mem_get_info(self.index)[0])

    def flush_cache(self) -> None:
        """Push everything out of the L2 cache by writing twice its size; wait until it is done.

        The buffer is allocated once and stays: it counts in `memory()`.
        """
        if self._scratch is None:
            size = 2 * (self._l2_bytes() or ASSUMED_L2_BYTES)
            self._scratch = self.empty(size, dtype=torch.uint8, device=self.name)
        # A tensor that was made in inference mode may only be written in inference mode.
        with torch.inference_mode():
            self._scratch.zero_()
        self.synchronize()

    def device_time_s(self, call: Callable[[], Any]) -> float | None:
        """Return the median time between two events around a call, in seconds.

        Give it a call that only queues its work. One that waits for the card puts the host's time
        between the events; so does one whose kernels are shorter than it takes to queue them.
        """
        pairs = []
        for _ in range(EVENT_PAIRS):
            begin, end = (self.cuda.Event(enable_timing=True) for _ in range(2))
            begin.record()
            call()
            end.record()
            pairs.append((begin, end))
        self.synchronize()
        return median(float(begin.elapsed_time(end)) for begin, end in pairs) / 1e3

    def transfer_times_s(self, inputs: tuple[Tensor, ...], outputs: Any) -> dict[str, float]:
        """Return the median times to bring the inputs to the card and the outputs back, in seconds.

        Plain pageable host memory on both sides, allocation of the copies included. `outputs` is
        what the model returned; its tensors are found.
        """
        host = [value.to("cpu") for value in inputs]
        return {
            "host_to_device_s": self._copy_time_s(host, self.name),
            "device_to_host_s": self._copy_time_s(list(_tensors(outputs)), "cpu"),
        }

    def read_state(self) -> dict[str, Any]:
        """Return what may change between blocks: the clock, what holds it back, who else computes.

        Read when the block's work is done, while the card still has its clock.
        """
        return self.card.state()

    def settings(self) -> dict[str, Any]:
        """Return what is set for the card and for torch on it, by the record's columns."""
        return self.card.limits() | {
            "tf32_in_effect": describe_tf32(),
            "cuda_allocator_in_effect": str(self.cuda.get_allocator_backend()),
        }

    def describe(self) -> dict[str, Any]:
        """Return name, UUID, sizes, compute capability, driver and limits of the card."""
        limits = self.card.limits()
        return {
            "gpu_name": str(self.properties.name),
            "gpu_uuid": str(getattr(self.properties, "uuid", "")),
            "gpu_memory_bytes": int(self.properties.total_memory),
            "compute_capability": f"{self.properties.major}.{self.properties.minor}",
            "driver": self.card.driver(),
        } | _known(
            l2_cache_bytes=self._l2_bytes(),
            multiprocessors=getattr(self.properties, "multi_processor_count", None),
            sm_clock_max_hz=limits.get("sm_clock_max_hz"),
            power_limit_w=limits.get("power_limit_w"),
            memory_node=self.card.memory_node(),
        )

    def _l2_bytes(self) -> int | None:
        return getattr(self.properties, "L2_cache_size", None) or None

    def _copy_time_s(self, tensors: list[Tensor], target: str) -> float:
        times = []
        for _ in range(COPIES + 1):
            self.synchronize()
            begin = self.clock()
            copies = [tensor.to(target) for tensor in tensors]
            self.synchronize()
            times.append(self.clock() - begin)
            del copies  # or the next copies would need memory beside these
        return median(times[1:])  # the first allocates from the driver


def describe_tf32() -> str:
    """Return for each kind of float32 operator whether it may run in TF32: "matmul off, ...".

    Read through `fp32_precision`: the older `allow_tf32` raises once anybody has set the newer one
    (pytorch/pytorch#179445), while these getters know what was set through either.
    """
    cudnn: Any = torch.backends.cudnn  # torch declares no types for its members
    kinds = {"matmul": torch.backends.cuda.matmul, "conv": cudnn.conv, "rnn": cudnn.rnn}
    return ", ".join(
        f"{kind} {'on' if place.fp32_precision == 'tf32' else 'off'}"
        for kind, place in kinds.items()
    )


def load_nvml() -> Any:
    """Return pynvml, initialised, or None where the driver's library is absent."""
    import pynvml

    try:
        pynvml.nvmlInit()
    except pynvml.NVMLError:
        return None
    return pynvml


def _throttles(mask: int) -> list[str]:
    return [name for bit, name in THROTTLES.items() if mask & bit]


def _is_ours(process: int) -> bool:
    """Tell whether a process is of this run: its server's session, that of all its workers."""
    try:
        return os.getsid(process) == os.getsid(0)
    except (ProcessLookupError, PermissionError):
        return False


def _known(**values: Any) -> dict[str, Any]:
    return {name: value for name, value in values.items() if value is not None}


def _tensors(value: Any) -> Iterator[Tensor]:
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, Mapping | tuple | list):
        for item in value.values() if isinstance(value, Mapping) else value:
            yield from _tensors(item)
