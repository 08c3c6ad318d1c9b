"""Where a process's memory lies changes from block to block."""

import random
import subprocess
import sys

from harness.measure.placement import MOST_BUFFERS, MOST_BYTES, shift_heap

COUNT_PLACES = """
import random, sys
import torch
from harness.measure.placement import shift_heap

def count_places(shifted):
    generator, kept, found = random.Random(0), [], set()
    for _ in range(20):
        kept.clear()
        if shifted:
            kept += shift_heap(generator)
        found.add(torch.empty(1_000).data_ptr())
    return len(found)

count_places(False), count_places(True)  # what is allocated once, by the first calls
print(count_places(False), count_places(True))
"""


def test_what_is_allocated_after_a_shift_lies_elsewhere() -> None:
    """In a process of its own, whose heap nothing else changes."""
    done = subprocess.run(
        [sys.executable, "-c", COUNT_PLACES], capture_output=True, text=True, check=True
    )
    still, shifted = map(int, done.stdout.split())
    assert still <= 2
    assert shifted >= 4


def test_a_shift_takes_little_memory() -> None:
    sizes = [sum(map(len, shift_heap(random.Random(seed)))) for seed in range(50)]
    assert 0 < min(sizes) <= max(sizes) <= MOST_BUFFERS * MOST_BYTES
