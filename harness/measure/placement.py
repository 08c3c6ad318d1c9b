"""Placement: where a process's memory lies, which decides some tenths of a percent of its speed."""

from __future__ import annotations

import random

import torch
from torch import Tensor

MOST_BUFFERS = 5
MOST_BYTES = 240_000
"""Larger buffers come from the system and leave the heap as it is."""


def shift_heap(generator: random.Random) -> list[Tensor]:
    """Return buffers of random sizes; while they are kept, what is allocated next lies elsewhere.

    A median over blocks is then one over places, instead of that of the place where a process
    happens to have its memory. Source: Curtsinger and Berger, "Stabilizer: Statistically Sound
    Performance Evaluation", ASPLOS 2013.
    """
    count = generator.randint(1, MOST_BUFFERS)
    return [
        torch.ones(generator.randint(1, MOST_BYTES), dtype=torch.uint8, device="cpu")
        for _ in range(count)
    ]
