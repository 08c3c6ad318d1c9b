"""What the C library does with freed memory, told by the pages that a call has anew."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from harness.measure.allocator import LARGEST_KEPT_BYTES, TUNED_BY, describe_allocator

COUNT_FAULTS = """
import json, resource, sys
import torch
from harness.measure.allocator import keep_freed_memory, keep_no_freed_blocks

{setting}()

def call(size):
    first = torch.ones(size // 4)
    second = first + 1  # freed in the order of a network's layers, at the heap's end
    del first
    return second * 2

found = {{}}
for size in json.loads(sys.argv[1]):
    for _ in range(5):
        call(size)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(20):
        call(size)
    found[size] = (resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before) / 20
print(json.dumps(found))
"""
SIZES = [4 * 2**10, 130 * 2**10, 2**20, 12 * 2**20, LARGEST_KEPT_BYTES - 2**16]


def count_faults(setting: str, environment: dict[str, str]) -> dict[int, float]:
    """Return the pages that a call has anew, by the bytes of its tensors."""
    known = {"PATH": "/usr/bin", "OMP_NUM_THREADS": "1", **environment}
    told = subprocess.run(
        [sys.executable, "-c", COUNT_FAULTS.format(setting=setting), json.dumps(SIZES)],
        capture_output=True, text=True, check=True, env=known,
    )  # fmt: skip
    return {int(size): faults for size, faults in json.loads(told.stdout).items()}


def test_a_call_finds_the_memory_that_the_one_before_has_freed() -> None:
    faults = count_faults("keep_freed_memory", {})
    assert all(faults[size] < 5 + 0.05 * size / 2**12 for size in SIZES)


def test_without_that_every_call_has_its_memory_from_the_kernel() -> None:
    faults = count_faults("keep_no_freed_blocks", {})
    assert faults[SIZES[0]] < 5
    assert all(faults[size] > size / 2**12 for size in SIZES[1:])


def test_what_a_user_has_set_stays() -> None:
    faults = count_faults("keep_freed_memory", {"MALLOC_MMAP_THRESHOLD_": "131072"})
    assert all(faults[size] > size / 2**12 for size in SIZES[1:])


@pytest.mark.parametrize(
    ("library", "environment", "told"),
    [
        ("libjemalloc.so.2", {}, "jemalloc"),
        ("libjemalloc.so.2", {"MALLOC_TRIM_THRESHOLD_": "1"}, "jemalloc"),
        ("libc.so.6", {}, "libc, keeps what is freed"),
        ("libc.so.6", {"MALLOC_TRIM_THRESHOLD_": "1"}, "libc, MALLOC_TRIM_THRESHOLD_=1"),
    ],
)
def test_the_allocator_is_named(
    tmp_path: Path, library: str, environment: dict[str, str], told: str
) -> None:
    maps = tmp_path / "maps"
    maps.write_text(f"7f r-xp 00000000 08:01 1 /usr/lib/{library}\n")
    assert describe_allocator(maps, environment) == told
    assert describe_allocator(tmp_path / "absent", environment) == ""
    assert "GLIBC_TUNABLES" in TUNED_BY
