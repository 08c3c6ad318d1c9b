"""Memory against allocations of known size, and against the order of measuring."""

from collections.abc import Callable
from pathlib import Path

import pytest

from harness.sweep.imports import Imports
from harness.sweep.launcher import Launcher

MIB = 2**20
ALLOCATE = """
import ctypes
import torch
from torch import nn

class Allocate(nn.Module):
    def __init__(self, mib):
        super().__init__()
        self.mib = mib
    def forward(self, x):
        return x + torch.ones(self.mib * 2**18)[0] if self.mib else x + 1

def allocate(mib=0):
    return Allocate(mib), torch.ones(1, 4)

class Forgotten(Allocate):
    # Loses file pages in its call, as when the kernel is short of memory.
    def forward(self, x):
        made = super().forward(x)
        libc = ctypes.CDLL(None)
        for line in open("/proc/self/maps"):
            if "libtorch_cpu" in line and " r-xp " in line:
                begin, end = (int(part, 16) for part in line.split()[0].split("-"))
                libc.madvise(ctypes.c_void_p(begin), ctypes.c_size_t(end - begin), 4)
        return made

class Gaps(Allocate):
    # The heap has gaps of 2 MiB; what a call keeps makes the one smaller that it used before.
    def __init__(self, mib):
        super().__init__(mib)
        blocks = [torch.ones(25_000) for _ in range(200)]
        self.kept = blocks[::21]
    def forward(self, x):
        made = super().forward(x)
        self.kept.append(torch.ones(1_000))
        return made

def gaps(mib):
    return Gaps(mib), torch.ones(1, 4)

def forgotten(mib):
    return Forgotten(mib), torch.ones(1, 4)

def weights(mib=64):
    return nn.Linear(mib * 2**8, 1024, bias=False), torch.ones(1, mib * 2**8)
"""
Measure = Callable[[str], dict[str, float]]


@pytest.fixture
def memory_of(launcher: Launcher, tmp_path: Path) -> Measure:
    """Return a model's memory, measured in a fresh process."""
    file = tmp_path / "own.py"
    file.write_text(ALLOCATE)

    def measure(call: str) -> dict[str, float]:
        with launcher.worker() as worker:
            facts = worker.call(
                "prepare_base", 60, model=f"{file}:{call}", recipes=[], seed=0, token="a test",
                threads=1,
            )  # fmt: skip
        with launcher.worker(Imports(files=(str(file),))) as worker:
            found: dict[str, float] = worker.call(
                "measure_memory", 60, variant=facts["variant"], device="cpu", runtime="eager",
                threads=1, batch=1,
            )  # fmt: skip
        return found

    return measure


@pytest.mark.parametrize("mib", [1, 2, 4, 16, 64, 256, 1024, 2048])
def test_what_a_call_allocates_is_measured_within_1_mib_and_1_percent(
    memory_of: Measure, mib: int
) -> None:
    found = memory_of(f"allocate({mib})")
    assert found["working_memory_bytes"] == pytest.approx(mib * MIB, abs=MIB + 0.01 * mib * MIB)
    assert found["peak_memory_bytes"] == pytest.approx(mib * MIB, abs=MIB + 0.01 * mib * MIB)
    assert found["weight_memory_bytes"] < MIB


def test_gaps_of_the_heap_that_earlier_calls_filled_are_not_the_model_s(
    memory_of: Measure,
) -> None:
    found = memory_of("gaps(1)")
    assert found["working_memory_bytes"] == pytest.approx(MIB, abs=0.2 * MIB)


def test_file_pages_that_the_kernel_takes_back_are_not_the_model_s(memory_of: Measure) -> None:
    found = memory_of("forgotten(4)")
    assert found["working_memory_bytes"] == pytest.approx(4 * MIB, abs=MIB)


@pytest.mark.parametrize("mib", [1, 64, 512])
def test_weights_are_measured_and_loading_takes_at_least_as_much(
    memory_of: Measure, mib: int
) -> None:
    found = memory_of(f"weights({mib})")
    assert found["weight_memory_bytes"] == pytest.approx(mib * MIB, abs=MIB + 0.01 * mib * MIB)
    assert found["load_memory_bytes"] >= found["weight_memory_bytes"] - MIB
    assert found["peak_memory_bytes"] >= found["weight_memory_bytes"] - MIB


def test_a_model_measures_the_same_first_and_fiftieth_before_and_after_a_large_one(
    memory_of: Measure,
) -> None:
    first = memory_of("weights(8)")
    memory_of("weights(512)")
    after_large = memory_of("weights(8)")
    for _ in range(46):
        memory_of("allocate(1)")
    fiftieth = memory_of("weights(8)")
    for name, value in first.items():
        allowed = MIB + 0.01 * value
        assert after_large[name] == pytest.approx(value, abs=allowed), name
        assert fiftieth[name] == pytest.approx(value, abs=allowed), name
