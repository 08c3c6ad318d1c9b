"""Side by side: how far from 1 each harness finds the ratio of two identical modules,
and how often it tells the two apart."""

import random
from collections.abc import Callable
from contextlib import nullcontext
from functools import partial
from pathlib import Path
from typing import Any

import copies
import numpy as np
import peers
import pytest

from harness.stats import robust_deviation
from harness.sweep.launcher import Launcher

pytestmark = pytest.mark.clock

TURNS = {"idle": 8, "loaded": 16}
"""A robust sd of few turns is uncertain, and the least of four of them too small."""
SEQUENTIAL = (
    peers.plain_loop, peers.torch_benchmark, peers.pyperf, peers.pytest_benchmark,
)  # fmt: skip
Found = dict[str, list[peers.Told]]


def repeat(methods: dict[str, Callable[[Path], float]], turns: int, folder: Path) -> Found:
    """Let the methods take turns in shuffled order, so that all see the same machine."""
    found: Found = {name: [] for name in methods}
    order = random.Random(0)
    for _ in range(turns):
        for name in order.sample(sorted(methods), len(methods)):
            found[name].append(methods[name](folder))
    return found


def summarize(found: Found) -> dict[str, tuple[float, float, float]]:
    """Return for each method the robust sd of the log-ratio, and shares of what it told.

    Of ratios that are off by more than 3 %; and of those that it tells from 1 (p < 0.01), which a
    repeat does not confirm.
    """
    summary = {}
    for name, told in found.items():
        ratios, p_values = np.array(told).T
        off, apart = np.abs(ratios - 1) > 0.03, p_values < 0.01
        summary[name] = (robust_deviation(np.log(ratios)), float(off.mean()), float(apart.mean()))
    return summary


def table(idle: Found, loaded: Found) -> str:
    """Return the summary as Markdown."""
    quiet, busy = summarize(idle), summarize(loaded)
    lines = ["| harness | sd, idle | off by > 3 % | told apart "
             "| sd, busy neighbour | off by > 3 % | told apart |",
             "|---|---:|---:|---:|---:|---:|---:|"]  # fmt: skip
    for name in quiet:
        sd, off, apart = quiet[name]
        figures = [f"{100 * sd:.1f} %", f"{off:.0%}", f"{apart:.0%}"]
        sd, off, apart = busy[name]
        figures += [f"{100 * sd:.1f} %", f"{off:.0%}", f"{apart:.0%}"]
        lines.append(f"| {name} | " + " | ".join(figures) + " |")
    return "\n".join(lines)


def test_beside_a_busy_neighbour_heats_hold_and_sequences_do_not(
    launcher: Launcher, tmp_path: Path, benchmark: Any
) -> None:
    if benchmark.disabled:
        pytest.skip("half an hour on a quiet machine: run `make bench`")
    variant = copies.prepare(launcher, f"{peers.HERE / 'pair.py'}:net")
    heat = partial(peers.paretogrid, launcher, variant)
    methods = {"paretogrid": heat} | {method.__name__: method for method in SEQUENTIAL}
    results = {}
    for name, neighbour in (("idle", nullcontext), ("loaded", copies.busy_neighbour)):
        with neighbour():
            results[name] = repeat(methods, TURNS[name], tmp_path)
    benchmark.extra_info |= results
    benchmark(heat, tmp_path)
    print("\n" + table(**results))
    spread = {name: sd for name, (sd, *_) in summarize(results["loaded"]).items()}
    heats = spread.pop("paretogrid")
    assert heats <= min(spread.values()) / 4
