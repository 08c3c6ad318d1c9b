"""Settings: asked for, applied, and read back as they are in effect."""

from __future__ import annotations

import contextlib
import os
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch.overrides import _get_current_function_mode_stack
from torch.utils._python_dispatch import _get_current_dispatch_mode_stack

from harness.measure.allocator import describe_allocator
from harness.measure.processor import container_limits
from harness.measure.topology import choose_processors, describe_choice
from harness.wording import counted

DENORMAL = 1e-40
LARGE, LOOKS = 2**20, (8, 16, 32, 64, 128)
"""Numbers of an operator that every thread takes part in, and how often it runs until each look:
the kernel tells what a thread has worked by the tick, which may be after several runs."""
WORKING_SHARE = 0.05
"""Of the busiest thread's time, from which on another one is said to work."""
LIMITS = ("OMP_DYNAMIC", "OMP_THREAD_LIMIT", "OMP_NUM_THREADS", "MKL_NUM_THREADS", "MKL_DYNAMIC")
"""Variables that may take threads away."""


def describe_build() -> dict[str, str]:
    """Return how torch was built, and which instructions of the processor its kernels use."""
    lines = [line.strip(" -") for line in torch.__config__.show().splitlines()]
    return {
        "torch_build": "; ".join(line for line in lines if line),
        "torch_capability": torch.backends.cpu.get_cpu_capability(),
    }


def apply_threads(threads: int, pin: bool, near: int | None = None) -> None:
    """Give this process so many threads, pinned to as many of its processors, a core each.

    On the memory node `near` if there is room. Threads that an import has started are pinned too.
    """
    if pin:
        chosen = choose_processors(threads, os.sched_getaffinity(0), near=near)
        os.sched_setaffinity(0, chosen)
        for thread in read_worked_ns():
            with contextlib.suppress(OSError):
                os.sched_setaffinity(thread, chosen)
    torch.set_num_threads(threads)


def pin_pool(threads: int) -> None:
    """Give this thread and each working thread of OpenMP's pool a processor of its own.

    Otherwise two processes with the same work differ for as long as they live (seen: by 1.4
    times), by where the scheduler happens to leave their threads. Call it after the warm-up: the
    threads that have worked most are the pool, whatever else a library has started.
    """
    processors = choose_processors(threads, os.sched_getaffinity(0))
    if threads < 2 or len(processors) < threads:
        return
    mine = threading.get_native_id()
    worked_ns = read_worked_ns()
    pool = sorted(worked_ns.keys() - {mine}, key=lambda thread: -worked_ns[thread])
    for thread, processor in zip([mine, *pool[: threads - 1]], processors, strict=False):
        with contextlib.suppress(OSError):
            os.sched_setaffinity(thread, {processor})


def read_worked_ns() -> dict[int, int]:
    """Return how long each thread of this process has run, in nanoseconds."""
    worked_ns = {}
    for path in Path("/proc/self/task").iterdir():
        with contextlib.suppress(OSError, ValueError, IndexError):
            worked_ns[int(path.name)] = int((path / "schedstat").read_text().split()[0])
    return worked_ns


def count_working_threads() -> int:
    """Return how many threads work on an operator that is large enough for all of them.

    OpenMP's limits (OMP_THREAD_LIMIT, OMP_DYNAMIC) take threads away without a word.
    """
    if torch.get_num_threads() == 1:
        return 1
    numbers = torch.zeros(LARGE, dtype=torch.float32, device="cpu")
    numbers.exp()  # starts the threads
    before = read_worked_ns()
    working = 1
    for repeats in LOOKS:
        for _ in range(repeats):
            numbers.exp()
        took_ns = [end - before.get(thread, 0) for thread, end in read_worked_ns().items()]
        most_ns = max(took_ns, default=0)
        working = sum(took > WORKING_SHARE * most_ns for took in took_ns)
        if working >= torch.get_num_threads():
            break
    return max(1, min(working, torch.get_num_threads()))


def read_settings(dtypes: Sequence[str], processors_used: float) -> dict[str, Any]:
    """Return the settings as they are in effect in this process.

    `dtypes` are those of the operators that multiplied, `processors_used` the processor time of
    the warm-up over its wall time: threads that never ran show there.
    """
    spin = os.environ.get("GOMP_SPINCOUNT")
    policy = os.environ.get("OMP_WAIT_POLICY", "").lower()
    affinity = read_affinity()
    autocast = [kind for kind in ("cpu", "cuda") if torch.is_autocast_enabled(kind)]
    return {
        "threads_in_effect": count_working_threads(),
        "processors_used": processors_used,
        "affinity_in_effect": affinity,
        "placement_in_effect": describe_choice(affinity),
        "wait_policy_in_effect": "passive" if policy == "passive" or spin == "0" else "active",
        "dtype_in_effect": "+".join(dtypes),
        "autocast_in_effect": "+".join(autocast) or "off",
        "matmul_precision_in_effect": read_matmul_precision(),
        "allocator_in_effect": describe_allocator(),
        "denormals_in_effect": "flushed" if flushes_denormals() else "kept",
    }


def read_matmul_precision() -> str:
    """Return how products of 32-bit numbers are made: highest, high or medium.

    Where it was set by PyTorch's newer names, as these say it: that of oneDNN, then that of CUDA.
    """
    try:
        return torch.get_float32_matmul_precision()
    except RuntimeError:  # it does not tell where both ways have been used
        backends: Any = torch.backends
        return f"{backends.mkldnn.matmul.fp32_precision}, {backends.cuda.matmul.fp32_precision}"


def read_modes() -> str:
    """Return which modes every call of PyTorch goes through in this thread, the outermost first."""
    modes = [*_get_current_function_mode_stack(), *_get_current_dispatch_mode_stack()]
    return ", ".join(type(mode).__name__ for mode in modes) or "none"


def read_global_settings() -> dict[str, str]:
    """Return what a program can set for the whole process and a model's numbers depend on."""
    cuda, backends = torch.backends.cuda.matmul, torch.backends
    cpu: Any = backends.mkldnn
    card: Any = backends.cudnn
    precise = (cpu.matmul, cpu.conv, cpu.rnn, cuda, card.conv, card.rnn)
    return {
        "matmul precision": read_matmul_precision(),
        "fp32_precision": ", ".join(str(one.fp32_precision) for one in precise),
        "modes": read_modes(),
        "denormals": "flushed" if flushes_denormals() else "kept",
        "default type": str(torch.get_default_dtype()),
        "default device": str(torch.get_default_device()),
        "deterministic algorithms": str(torch.are_deterministic_algorithms_enabled()),
        "oneDNN": str(torch.backends.mkldnn.enabled),
        "quantized engine": torch.backends.quantized.engine,
        "fused attention": str(torch.backends.mha.get_fastpath_enabled()),
        "cuDNN benchmark": str(torch.backends.cudnn.benchmark),
        "flash attention": str(torch.backends.cuda.flash_sdp_enabled()),
        "memory-efficient attention": str(torch.backends.cuda.mem_efficient_sdp_enabled()),
        "plain attention": str(torch.backends.cuda.math_sdp_enabled()),
        "autocast": str(torch.is_autocast_enabled("cpu")),
        "fp16 accumulation": str(cuda.allow_fp16_reduced_precision_reduction),
        "bf16 accumulation": str(cuda.allow_bf16_reduced_precision_reduction),
    }


def compare_global_settings(prepared: Mapping[str, str]) -> list[str]:
    """Return a warning for each setting that differs from what it was when the model was made."""
    return [
        f"{name}: {prepared[name]} where the model was made, {here} where it is timed; set it at "
        "the top of the model's file, not in its function"
        for name, here in read_global_settings().items()
        if name in prepared and prepared[name] != here
    ]


def read_affinity() -> list[int]:
    """Return the processors on which any thread of this process may run."""
    processors: set[int] = set()
    for path in Path("/proc/self/task").iterdir():
        with contextlib.suppress(OSError):
            processors |= os.sched_getaffinity(int(path.name))
    return sorted(processors)


def flushes_denormals() -> bool:
    """Tell whether numbers too small for full precision become zero in this process."""
    # Whatever type and device are the default: another type has no such number.
    number = torch.full((1,), DENORMAL, dtype=torch.float32, device="cpu")
    return bool((number * 0.5).item() == 0.0)


def compare_settings(wanted: Mapping[str, Any], found: Mapping[str, Any]) -> list[str]:
    """Return a warning for each setting that was asked for and did not take effect.

    `wanted` holds threads, pin and wait_policy as the grid asked.
    """
    warnings = []
    threads = wanted["threads"]
    if found["threads_in_effect"] != threads:
        limits = [f"{name}={os.environ[name]}" for name in LIMITS if name in os.environ]
        why = f" ({', '.join(limits)} in the environment)" if limits else ""
        warnings.append(
            f"{counted(threads, 'thread')} asked for, {found['threads_in_effect']} in effect{why}"
        )
    cores = len(found["affinity_in_effect"])
    quota = container_limits(Path("/"))["cpus"]  # the caller is pinned: its own set tells nothing
    if threads > cores:
        warnings.append(
            f"oversubscribed: {counted(threads, 'thread')} on {counted(cores, 'processor')}"
        )
    elif quota is not None and threads > quota:
        warnings.append(
            f"oversubscribed: {counted(threads, 'thread')}, and the container allows the "
            f"time of {counted(quota, 'processor')}"
        )
    elif wanted["pin"] and cores != threads:
        warnings.append(f"pinning to {counted(threads, 'processor')} asked for, {cores} in effect")
    if found["wait_policy_in_effect"] != wanted["wait_policy"]:
        warnings.append(
            f"wait policy {wanted['wait_policy']} asked for, "
            f"{found['wait_policy_in_effect']} in effect"
        )
    return warnings
