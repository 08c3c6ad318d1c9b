"""A million cells: loaded, and their frontier found, in seconds and in little memory."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from harness.published.table import make_cells
from harness.store import Run

pytestmark = pytest.mark.clock

MOST_S, MOST_BYTES = 3.0, 2e9
SCRIPT = """
import sys
from pathlib import Path
from harness.decide.frame import load_frame
from harness.decide.frontier import Objective, find_frontiers
from harness.store import Run
import resource, time
began = time.perf_counter()
names = {"latency_s": "lower", "accuracy": "higher", "params": "lower"}
frame = load_frame(Run(Path(sys.argv[1])), list(names))
groups = list(find_frontiers(frame, [Objective(*one) for one in names.items()]))
spent = time.perf_counter() - began
members = sum(len(group.members) for group in groups)
print(spent, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024, members, len(frame.cells))
"""


def write_million(root: Path) -> Path:
    count = 1_000_000
    generator = np.random.default_rng(0)
    effort = generator.uniform(0, 1, count)
    cells = pd.DataFrame({
        "model": [f"net{number}" for number in range(count)], "device": "cpu", "task": "t",
        "latency_s": np.exp(effort + 0.1 * generator.standard_normal(count)),
        "accuracy": effort + 0.1 * generator.standard_normal(count),
        "params": np.exp(effort + generator.standard_normal(count)),
    })  # fmt: skip
    made = Run.create(root, "million", {})
    made.write_cells(make_cells(cells, "now"))
    return made.folder


def test_a_million_cells_are_loaded_and_judged(benchmark: Any, tmp_path: Path) -> None:
    if benchmark.disabled:
        pytest.skip("a time, for a quiet machine: run `make bench`")

    folder = write_million(tmp_path)

    def decide() -> list[float]:
        command = [sys.executable, "-P", "-c", SCRIPT, str(folder)]
        finished = subprocess.run(command, capture_output=True, text=True, check=True)
        return [float(word) for word in finished.stdout.split()]

    spent_s, memory_bytes, members, count = benchmark.pedantic(decide, rounds=1)
    print(f"\n{spent_s:.2f} s, {memory_bytes / 1e9:.2f} GB, {members:.0f} of {count:.0f} cells")
    assert count == 1_000_000
    assert members > 100
    assert spent_s <= MOST_S
    assert memory_bytes <= MOST_BYTES
