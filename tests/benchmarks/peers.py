"""How each harness compares two identical modules: a function each, about 6 s a module."""

import json
import subprocess
import sys
import time
from pathlib import Path
from statistics import median

import torch
from copies import time_copies
from pair import ROWS, make

from harness.sweep.grouping import FEWEST
from harness.sweep.heat import Stop, compare
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


def plain_loop(folder: Path) -> float:
    """Time one after the other in this process; the ratio of the medians."""
    torch.set_num_threads(1)
    medians = []
    with torch.inference_mode():
        for _ in range(2):
            module, inputs = make()
            times: list[int] = []
            end = time.perf_counter() + SECONDS
            while time.perf_counter() < end:
                before = time.perf_counter_ns()
                module(inputs)
                times.append(time.perf_counter_ns() - before)
            medians.append(median(times))
    return medians[0] / medians[1]


def torch_benchmark(folder: Path) -> float:
    """torch.utils.benchmark: `blocked_autorange` of one after the other."""
    from torch.utils.benchmark import Timer

    medians = []
    for _ in range(2):
        module, inputs = make()
        timer = Timer(
            "with torch.inference_mode(): module(inputs)",
            globals={"module": module, "inputs": inputs, "torch": torch},
            num_threads=1,
        )
        medians.append(timer.blocked_autorange(min_run_time=SECONDS).median)
    return medians[0] / medians[1]


def pyperf(folder: Path) -> float:
    """pyperf: two processes a module, ten values of about 0.3 s; the ratio of the medians."""
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
    return float(suite.get_benchmark("a").median() / suite.get_benchmark("b").median())


def pytest_benchmark(folder: Path) -> float:
    """pytest-benchmark with six times its default time; the ratio of the medians."""
    script, result = folder / "test_pair.py", folder / "pytest-benchmark.json"
    script.write_text(PYTEST_BENCHMARK)
    subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-c", "/dev/null",
         str(script), f"--benchmark-max-time={SECONDS}", f"--benchmark-json={result}"],
        env={"PYTHONPATH": str(HERE)}, cwd=folder, check=True, capture_output=True,
    )  # fmt: skip
    found = {one["param"]: one for one in json.loads(result.read_text())["benchmarks"]}
    return float(found["a"]["stats"]["median"] / found["b"]["stats"]["median"])


def paretogrid(launcher: Launcher, variant: str, folder: Path) -> float:
    """paretogrid: a heat of both, as long each; the median of the rounds' ratios."""
    members = time_copies(
        launcher, variant, ROWS, Stop(0.0, SECONDS, 10), seed=time.time_ns(),
        processes=FEWEST,
    )  # fmt: skip
    return compare(*members).estimate.value
