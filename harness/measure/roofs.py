"""Roofs: the fastest that this machine was seen to compute, copy and dispatch.

A roof is the best that was seen: what else runs on the machine can only take from it. All are
measured in turn, several times, because a virtual machine's processor may be shared for seconds
(seen: dispatch 2 times and bfloat16 products 3 times slower for 2 s, then fast again).
"""

from __future__ import annotations

import contextlib
import json
import time
import warnings
from collections.abc import Callable
from functools import partial
from itertools import cycle
from pathlib import Path
from statistics import median
from typing import Any

import psutil
import torch
from torch import Tensor

from harness.durable import write_durably
from harness.measure.devices import Device
from harness.measure.disturbance import count_others
from harness.measure.machine import available_memory_bytes, fingerprint
from harness.measure.processor import data_caches
from harness.measure.roofline import Roofs, best_of

DTYPES = ("float32", "bfloat16", "float16", "float64", "int8")
CUDA_DTYPES = (*DTYPES, "tf32", "float8_e4m3fn")
SIDES = (256, 512, 1024, 2048)
CUDA_SIDES = (4096, 8192)
"""Sides of the square products; small ones do not fill a graphics card."""
LONGEST_CALL_S = 0.4
MOST_TIMES = 3
"""On a machine that is never quiet, the best of so many is as good as it gets."""
ROUNDS = 4
VISIT_S = 0.02
"""Time for each call in each round: twenty products, three copies, one operator in 5 s."""
BLOCK_S = 0.001
PART_BYTES = 32 * 2**20
"""Copied by one call on a processor: a whole large set takes longer than a busy system lets run."""
LARGEST_SET_BYTES = 2 * 2**30
CUDA_SET_BYTES = 16 * 2**20
"""Lies in the cache of every card that has one worth the name."""


def roofs_for(device: Device, threads: int, machine: dict[str, Any], folder: Path) -> Roofs:
    """Return the device's roofs, read from `folder` or measured and kept there.

    Roofs that were measured beside other work are measured again the next time, MOST_TIMES at most,
    and the best is kept: others can only take from a roof. Measures with the threads that torch
    has, and raises ValueError if these are not `threads`. `machine` is the whole one, from
    `describe_machine` (a pinned process sees fewer processors).
    """
    name = f"{device.name.replace(':', '-')}-{threads}.json"
    path = folder / fingerprint({**machine, **device.describe()}) / name
    kept = None
    # A file that cannot be read, or is of another version, is measured anew.
    with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
        kept = Roofs.from_json(json.loads(path.read_text()))
    if kept is not None and (kept.quiet or kept.times >= MOST_TIMES):
        return kept
    if torch.get_num_threads() != threads:
        raise ValueError(f"threads {threads} asked for, torch has {torch.get_num_threads()}")
    roofs = measure_roofs(device, data_caches(machine))
    if kept is not None:
        roofs = best_of(roofs, kept)
    with contextlib.suppress(OSError):  # a folder that is full or read-only costs time only
        path.parent.mkdir(parents=True, exist_ok=True)
        text = json.dumps(roofs.to_json(), indent=1)
        write_durably(path, lambda temporary: temporary.write_text(text))
    return roofs


def measure_roofs(device: Device, cache_bytes: list[int]) -> Roofs:
    """Return the roofs with the threads that torch has now: about 5 s with one.

    `cache_bytes` are the sizes of the processor's data caches, first level first. Rates are FLOP/s
    of square products and bytes/s of a copy (read and written); a type that raises is left out.
    """
    with torch.inference_mode():
        one = torch.ones(1, device=device.name)
        sizes, bounded = _working_sets(device, cache_bytes)  # before we take memory ourselves
        products, short = _products(device)
        moved, copies = zip(*(_make_copy(size, device) for size in sizes), strict=True)
        dispatch = partial(torch.add, one, one)
        (dispatch_s, *rest), alone = _fastest_s([dispatch, *copies, *products.values()], device)
        quiet = alone and not short and not bounded
    sets = tuple((size, part / rest.pop(0)) for size, part in zip(sizes, moved, strict=True))
    flops_per_s: dict[str, float] = {}
    for (dtype, side), took_s in zip(products, rest, strict=True):
        flops_per_s[dtype] = max(flops_per_s.get(dtype, 0.0), 2 * side**3 / took_s)
    return Roofs(flops_per_s, sets, dispatch_s, quiet)


def _products(device: Device) -> tuple[dict[tuple[str, int], Callable[[], Any]], bool]:
    """Products by type and side, and whether memory was too short for some.

    The sides grow until a call would take too long.
    """
    calls: dict[tuple[str, int], Callable[[], Any]] = {}
    short = False
    for dtype in DTYPES if device.name == "cpu" else CUDA_DTYPES:
        try:
            _make_product(dtype, SIDES[0], device)()  # the first call sets the library up
            for side in SIDES if device.name == "cpu" else SIDES + CUDA_SIDES:
                call = calls[dtype, side] = _make_product(dtype, side, device)
                if 8 * _block_s(call, 1, device) > LONGEST_CALL_S:
                    break
        except torch.OutOfMemoryError:
            short = True
        except (RuntimeError, AttributeError, NotImplementedError):
            continue  # there is no kernel for it
    return calls, short


def _make_product(dtype: str, side: int, device: Device) -> Callable[[], Any]:
    """A call that multiplies two square matrices, by the kernel that models run in this type."""
    a, b = (torch.randn(side, side, device=device.name) for _ in range(2))
    if dtype == "tf32":
        return partial(_multiply_in_tf32, a, b, torch.empty_like(a))
    if dtype == "float8_e4m3fn":  # a card's kernel wants the second one column by column
        one = torch.ones((), device=device.name)
        small = [matrix.to(torch.float8_e4m3fn) for matrix in (a, b)]
        return partial(torch._scaled_mm, small[0], small[1].t(), one, one, out_dtype=torch.bfloat16)
    if dtype != "int8":
        a, b = (matrix.to(getattr(torch, dtype)) for matrix in (a, b))
        return partial(torch.mm, a, b, out=torch.empty_like(a))
    if device.name == "cpu":  # what int8-dynamic runs: quantizes the activations on the way
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # quantized tensors are deprecated and still there
            weight = torch.quantize_per_tensor(b, 0.03, 0, torch.qint8)
        packed = torch.ops.quantized.linear_prepack(weight, None)
        return partial(torch.ops.quantized.linear_dynamic, a, packed, True)
    a, b = ((matrix * 30).to(torch.int8) for matrix in (a, b))
    return partial(torch._int_mm, a, b.t())  # cuBLASLt wants the second one column by column


def _multiply_in_tf32(a: Tensor, b: Tensor, out: Tensor) -> None:
    """Multiply float32 matrices as a card may do it that was allowed to; setting it takes a µs."""
    place = torch.backends.cuda.matmul
    before = place.fp32_precision
    place.fp32_precision = "tf32"
    try:
        torch.mm(a, b, out=out)
    finally:
        place.fp32_precision = before


def _working_sets(device: Device, cache_bytes: list[int]) -> tuple[list[int], bool]:
    """Half of the second level, a few times it, clearly beyond the last; if others bound them.

    They do where they have half of the memory, and a set is smaller for it.
    """
    if device.name == "cpu":
        available, whole = available_memory_bytes(), psutil.virtual_memory().total
        second = cache_bytes[1] if len(cache_bytes) > 1 else 2**20
        # Some systems do not list their last level: 64 MiB is beyond it where none is known.
        wanted = [second // 2, 4 * second, max(4 * max(cache_bytes, default=0), 64 * 2**20)]
    else:
        available, whole = torch.cuda.mem_get_info(device.name)
        wanted = [CUDA_SET_BYTES, LARGEST_SET_BYTES]
    limit = min(available // 8, LARGEST_SET_BYTES)
    bounded = available < whole / 2 and limit < min(max(wanted), LARGEST_SET_BYTES)
    return sorted({min(size, limit) for size in wanted}), bounded


def _make_copy(working_set_bytes: int, device: Device) -> tuple[int, Callable[[], Any]]:
    """A call that copies the next part of the working set, and how many bytes it moves.

    Source and target together are the working set; when a part's turn comes again, all others have
    been through the caches.
    """
    part_bytes = min(working_set_bytes, PART_BYTES if device.name == "cpu" else LARGEST_SET_BYTES)
    elements, parts = part_bytes // 8, working_set_bytes // part_bytes
    source, target = (torch.ones(parts, elements, device=device.name) for _ in range(2))
    rows = cycle(zip(target.unbind(), source.unbind(), strict=True))

    def copy_next() -> None:
        into, values = next(rows)
        into.copy_(values)

    return 8 * elements, copy_next


def _fastest_s(calls: list[Callable[[], Any]], device: Device) -> tuple[list[float], bool]:
    """Seconds of one call of each: the least mean of short blocks; whether nothing else ran."""
    best, others = [float("inf")] * len(calls), []
    for _ in range(ROUNDS):
        for index, call in enumerate(calls):
            deadline = time.perf_counter() + VISIT_S
            took_s = _block_s(call, 1, device)
            while True:
                best[index] = min(best[index], took_s)
                if time.perf_counter() >= deadline:
                    break
                took_s = _block_s(call, max(1, int(BLOCK_S / best[index])), device)
        others.append(count_others() + device.read_state().get("others", 0))
    return best, median(others) == 0


def _block_s(call: Callable[[], Any], loops: int, device: Device) -> float:
    """Seconds of one call, the mean of so many."""
    begin = time.perf_counter()
    for _ in range(loops):
        call()
    device.synchronize()
    return (time.perf_counter() - begin) / loops
