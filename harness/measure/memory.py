"""Host memory of a model: the high-water mark of a fresh process, less what was there before.

Anonymous memory only. The kernel's high-water mark counts file pages too (the code of libraries
that is touched for the first time), so these are mapped beforehand and subtracted.
"""

from __future__ import annotations

import ctypes
import gc
import io
from collections.abc import Callable, Collection, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from harness.measure.allocator import keep_no_freed_blocks, release_free_memory

CALLS = 3
Mode = Callable[[], AbstractContextManager[Any]]
MADV_POPULATE_READ = 22


@dataclass(frozen=True)
class Usage:
    """Memory of this process in bytes: anonymous now, file pages now, peak of both together."""

    anonymous: int
    file: int
    peak: int


def read_usage() -> Usage:
    """Return this process's memory from /proc/self/status."""
    fields = {}
    for line in Path("/proc/self/status").read_text().splitlines():
        name, _, value = line.partition(":")
        fields[name] = value
    sizes = {
        name: int(fields[name].split()[0]) * 1024
        for name in ("RssAnon", "RssFile", "RssShmem", "VmHWM")
    }
    return Usage(sizes["RssAnon"] + sizes["RssShmem"], sizes["RssFile"], sizes["VmHWM"])


def find_peak(before: Usage, after: Usage) -> int:
    """Return the most anonymous memory that there was between two looks, at least.

    The most file pages of the two were in the peak as well: when memory is short the kernel takes
    them back meanwhile.
    """
    return after.peak - max(before.file, after.file)


def reset_peak() -> bool:
    """Set the high-water mark to the present use; tell whether the kernel allowed it."""
    try:
        Path("/proc/self/clear_refs").write_text("5")
    except OSError:
        return False
    return True


def find_libraries() -> set[str]:
    """Return where the files lie that this process has mapped by now: "begin-end" in hexadecimal.

    Before a model is loaded these are libraries; the files that it maps may be larger than memory.
    """
    return {where for where, _, _ in _mapped_files()}


def map_libraries(known: Collection[str]) -> None:
    """Map the pages of libraries, so that file pages do not grow while we measure.

    Without MADV_POPULATE_READ (before Linux 5.14) nothing happens: the first call maps them.
    """
    libc = ctypes.CDLL(None, use_errno=True)
    for where, begin, end in _mapped_files():
        if where in known:
            libc.madvise(ctypes.c_void_p(begin), ctypes.c_size_t(end - begin), MADV_POPULATE_READ)


def _mapped_files() -> Iterator[tuple[str, int, int]]:
    with Path("/proc/self/maps").open() as lines:  # one by one: all of them would take memory
        for line in lines:
            fields = line.split()
            if len(fields) >= 6 and fields[5].startswith("/") and fields[1][0] == "r":
                begin, end = (int(part, 16) for part in fields[0].split("-"))
                yield fields[0], begin, end


def prime(place: Callable[[Any], Any]) -> None:
    """Run small operations once, so that the libraries' own start-up is not the model's memory.

    `place` brings a module or tensor to the device that is measured.
    """
    with torch.inference_mode():
        for where in (place, lambda value: value):  # a card's libraries start up, and the host's
            where(nn.Linear(8, 8))(where(torch.ones(4, 8)))
            where(nn.Conv1d(4, 4, 3))(where(torch.ones(2, 4, 16)))
            where(nn.Conv2d(4, 4, 3))(where(torch.ones(2, 4, 16, 16)))
            where(torch.ones(64, 64)) @ where(torch.ones(64, 64))
        file = io.BytesIO()
        torch.save(nn.Linear(8, 8), file)
        torch.load(io.BytesIO(file.getvalue()), weights_only=False)(torch.ones(1, 8))


def measure_memory(
    load: Callable[[], tuple[Callable[[], Any], Mode, Callable[[], None]]],
) -> dict[str, float]:
    """Return the model's memory in bytes; `load` loads it and returns the call, its mode, and what
    makes its inputs new before each call.

    peak_memory_bytes: the most that the loaded model and its calls took together.
    load_memory_bytes: the most while it was loaded. weight_memory_bytes: what stays after loading.
    working_memory_bytes: the peak of a call beyond that. Where the kernel does not let us reset
    the mark, the peak of loading counts for calls too.
    """
    libraries = find_libraries()
    map_libraries(libraries)
    keep_no_freed_blocks()
    gc.collect()
    release_free_memory()
    before = read_usage()
    reset_peak()
    call, mode, renew = load()
    load_peak = find_peak(before, read_usage())
    gc.collect()
    release_free_memory()
    loaded = read_usage()
    peaks = []
    with mode():
        for _ in range(CALLS):
            renew()
            if read_usage().file < loaded.file:  # the kernel took some back
                map_libraries(libraries)
            release_free_memory()  # what the call before has freed
            reset_peak()
            started = read_usage()
            call()
            peaks.append(find_peak(started, read_usage()))
    peak = max(peaks)
    return {
        "peak_memory_bytes": float(max(0, peak - before.anonymous)),
        "load_memory_bytes": float(max(0, load_peak - before.anonymous)),
        "weight_memory_bytes": float(max(0, loaded.anonymous - before.anonymous)),
        "working_memory_bytes": float(max(0, peak - loaded.anonymous)),
    }
