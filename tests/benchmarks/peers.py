"""How each harness compares two identical modules: a function each, about 6 s a module.

Each tells the ratio, and how probable one as far from 1 is if there is none: paretogrid by its own
statistic, the others by the rank test that asv takes for its comparisons, on all of their samples.
"""

import json
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from copies import time_copies
from pair import ROWS, make

from harness.sweep.compare import compare
from harness.sweep.grouping import FEWEST
from harness.sweep.heat import Stop
from harness.sweep.launcher import Launcher

HERE = Path(__file__).parent
SECONDS = 6.0
PYPERF = """
import pyperf, torch
torch.set_num_threads(1)
from pair import make
runner = pyperf.Runner()
for name in ("a", "b"):
    module, inputs = make()
    with torch.inference_mode():
        runner.bench_func(name, module, inputs)
"""
PYTEST_BENCHMARK = """
import pytest, torch
from pair import make

@pytest.mark.parametrize("name", ["a", "b"])
def test_call(benchmark, name):
    torch.set_num_threads(1)
    module, inputs = make()
    with torch.inference_mode():
        benchmark(module, inputs)
"""


Told = tuple[float, float]


def compare_samples(samples: Sequence[Sequence[float]]) -> Told:
    """Return the ratio of the medians of two samples, and the p-value of Mann and Whitney."""
    from scipy.stats import mannwhitneyu

    one, other = samples
    return float(np.median(one) / np.median(other)), float(mannwhitneyu(one, other).pvalue)


def plain_loop(folder: Path) -> Told:
    """Time one after the other in this process."""
    torch.set_num_threads(1)
    samples = []
    with torch.inference_mode():
        for _ in range(2):
            module, inputs = make()
            times: list[int] = []
            end = time.perf_counter() + SECONDS
            while time.perf_counter() < end:
                before = time.perf_counter_ns()
                module(inputs)
                times.append(time.perf_counter_ns() - before)
            samples.append(times)
    return compare_samples(samples)


def torch_benchmark(folder: Path) -> Told:
    """torch.utils.benchmark: `blocked_autorange` of one after the other."""
    from torch.utils.benchmark import Timer

    samples = []
    for _ in range(2):
        module, inputs = make()
        timer = Timer(
            "with torch.inference_mode(): module(inputs)",
            globals={"module": module, "inputs": inputs, "torch": torch},
            num_threads=1,
        )
        samples.append(timer.blocked_autorange(min_run_time=SECONDS).times)
    return compare_samples(samples)


def pyperf(folder: Path) -> Told:
    """pyperf: two processes a module, ten values of about 0.3 s."""
    import pyperf as library

    script, result = folder / "pyperf_pair.py", folder / "pyperf.json"
    script.write_text(PYPERF)
    result.unlink(missing_ok=True)
    subprocess.run(
        [sys.executable, str(script), "--processes=2", "--values=10", "--warmups=1",
         "--loops=1024", "--quiet", "-o", str(result)],
        env={"PYTHONPATH": str(HERE)}, check=True, capture_output=True,
    )  # fmt: skip
    suite = library.BenchmarkSuite.load(str(result))
    return compare_samples([suite.get_benchmark(name).get_values() for name in ("a", "b")])


def pytest_benchmark(folder: Path) -> Told:
    """pytest-benchmark with six times its default time."""
    script, result = folder / "test_pair.py", folder / "pytest-benchmark.json"
    script.write_text(PYTEST_BENCHMARK)
    subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-c", "/dev/null",
         str(script), f"--benchmark-max-time={SECONDS}", f"--benchmark-json={result}",
         "--benchmark-save-data"],
        env={"PYTHONPATH": str(HERE)}, cwd=folder, check=True, capture_output=True,
    )  # fmt: skip
    found = {one["param"]: one for one in json.loads(result.read_text())["benchmarks"]}
    return compare_samples([found[name]["stats"]["data"] for name in ("a", "b")])


def paretogrid(launcher: Launcher, variant: str, folder: Path) -> Told:
    """paretogrid: a heat of both, as long each."""
    members = time_copies(
        launcher, variant, ROWS, Stop(0.0, SECONDS, 10), seed=time.time_ns(),
        processes=FEWEST,
    )  # fmt: skip
    found = compare(*members)
    return found.estimate.value, found.p_value
