"""A CUDA card as torch drives it: how to wait for it, its memory, its cache, its copies.

Several processes may use one card at a time, as the workers of a heat do. Free memory, clocks,
power and temperature are those of the whole card; the rest is of this process.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from functools import cached_property
from statistics import median
from typing import Any

import torch
from torch import Tensor

from harness.measure.nvml import NvmlCard, leave_out_unknown
from harness.measure.tf32 import describe_tf32

EVENT_PAIRS = 5
COPIES = 7
ASSUMED_L2_BYTES = 64 * 2**20


class CudaDevice:
    """One CUDA card. `cuda` is torch.cuda; `nvml` is pynvml, or None where it does not load.

    It may be a function that returns it: the driver's library is then loaded by who first asks it,
    which is not the model.
    """

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
        self._nvml = nvml
        self._before: dict[str, int] = {}
        """What was on the card before the present peaks began."""
        self._scratch: Any = None

    @cached_property
    def card(self) -> NvmlCard:
        """The card as NVML knows it."""
        nvml = self._nvml() if callable(self._nvml) else self._nvml
        return NvmlCard(nvml, str(getattr(self.properties, "uuid", "")), self.index)

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
        """Begin new peaks of the allocator; what the libraries keep there does not count."""
        self.cuda.empty_cache()
        self.cuda.reset_peak_memory_stats(self.index)
        self._before = {
            "allocated": self.cuda.memory_allocated(self.index),
            "reserved": self.cuda.memory_reserved(self.index),
        }

    def memory(self) -> dict[str, float]:
        """Return allocated and reserved peaks since the reset, and NVML's view of all of it."""
        peaks = {
            "allocated": self.cuda.max_memory_allocated(self.index),
            "reserved": self.cuda.max_memory_reserved(self.index),
        }
        found = {
            f"cuda_{name}_bytes": float(max(0, peak - self._before.get(name, 0)))
            for name, peak in peaks.items()
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
        } | leave_out_unknown(
            l2_cache_bytes=self._l2_bytes(),
            multiprocessors=getattr(self.properties, "multi_processor_count", None),
            sm_clock_max_hz=limits.get("sm_clock_max_hz"),
            power_limit_w=limits.get("power_limit_w"),
            memory_node=self.card.memory_node(),
            **self.card.modes(),
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


def _tensors(value: Any) -> Iterator[Tensor]:
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, Mapping | tuple | list):
        for item in value.values() if isinstance(value, Mapping) else value:
            yield from _tensors(item)
