"""The allocator: who gives host memory, and whether what is freed is kept or given back."""

from __future__ import annotations

import ctypes
import os
from collections.abc import Mapping
from pathlib import Path

PRELOADED = ("jemalloc", "tcmalloc", "mimalloc")
M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3
LARGEST_KEPT_BYTES = 32 * 2**20
"""Of glibc: what is larger is always given back."""
LEAST_GIVEN_BACK_BYTES = 128 * 2**10
NEVER_TRIM = 2**31 - 1
TUNED_BY = ("MALLOC_MMAP_THRESHOLD_", "MALLOC_TRIM_THRESHOLD_", "MALLOC_TOP_PAD_",
            "MALLOC_MMAP_MAX_", "GLIBC_TUNABLES")  # fmt: skip
"""Variables by which a user says what glibc is to do."""


def keep_freed_memory() -> None:
    """Let the C library keep freed blocks of up to 32 MiB, so that the next call finds them there.

    By default it adapts: what it learns from the first blocks that are freed, and what happens to
    lie at the heap's end, decide whether every call has its memory from the kernel anew. The same
    model took 1.8 times as long in processes of every third server. A user's own settings stay.
    """
    if any(name in os.environ for name in TUNED_BY):
        return
    _set(M_MMAP_THRESHOLD, LARGEST_KEPT_BYTES)
    _set(M_TRIM_THRESHOLD, NEVER_TRIM)


def keep_no_freed_blocks() -> None:
    """Let the C library give every freed block of 128 KiB and more back at once.

    Otherwise it raises that limit as blocks are freed, keeps them, and a call that needs 4 MiB is
    seen to take 8: the heap's fragments, not the model's need.
    """
    _set(M_MMAP_THRESHOLD, LEAST_GIVEN_BACK_BYTES)


def release_free_memory() -> None:
    """Give the heap's free pages back to the kernel: filled anew, they would count for nothing.

    What fits into a gap of the heap goes there, whatever its size; once freed, the gap stays full.
    """
    ctypes.CDLL(None).malloc_trim(0)


def describe_allocator(
    maps: Path = Path("/proc/self/maps"), environment: Mapping[str, str] = os.environ
) -> str:
    """Return which library gives a timed cell's memory, and what it does with what is freed."""
    try:
        text = maps.read_text()
    except OSError:
        return ""
    preloaded = next((name for name in PRELOADED if name in text), "")
    tuned = [f"{name}={environment[name]}" for name in TUNED_BY if name in environment]
    return preloaded or ", ".join(["libc", *(tuned or ["keeps what is freed"])])


def _set(option: int, value: int) -> None:
    """Set an option of glibc; other C libraries have none."""
    set_option = getattr(ctypes.CDLL(None), "mallopt", None)
    if set_option is not None:
        set_option(option, value)
