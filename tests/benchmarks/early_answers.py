"""Find out how much sooner a run ends that ends when its answer is known, and with which answer.

    python tests/benchmarks/early_answers.py resnet18 --turns 3

`stop = "interval"` and `stop = "decision"` take turns, everything else is as by default. The models
are prepared before the first turn.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from pathlib import Path

import pandas as pd
from commands import as_toml, run_grid

from harness.decide.frontier import choose_objectives, find_frontiers
from harness.decide.membership import judge
from harness.decide.sources import load_source

MODELS = Path(__file__).with_name("large.py")
TECHNIQUES = ("bf16", "int8-dynamic", "int8-weight-only", "low-rank(0.5)",
              "prune-magnitude(0.5)")  # fmt: skip
STOPS = ("interval", "decision")
GRID = """
[grid]
models = ["{models}:{model}"]
techniques = {techniques}
batch = [2]
threads = [1]
[budget]
stop = "{stop}"
"""


def run_once(folder: Path, grid: str) -> tuple[float, pd.DataFrame]:
    """Return how long a run took, and its cells with how sure their places are."""
    begin = time.monotonic()
    made = run_grid(folder, grid)
    took_s = time.monotonic() - begin
    source = load_source([made])
    objectives = choose_objectives(source.frame)
    (group,) = find_frontiers(source.frame, objectives)
    judged = judge(group, source.frame, objectives, source.noise)
    return took_s, pd.concat([judged.members, judged.dominated]).set_index("technique")


def main() -> None:
    """Run both in turns and print how long each took, and what it found."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("model", choices=("resnet18", "bert"))
    parser.add_argument("--turns", type=int, default=3)
    asked = parser.parse_args()
    times: dict[str, list[float]] = {stop: [] for stop in STOPS}
    with tempfile.TemporaryDirectory() as name:
        for turn in range(-1, asked.turns):  # the first prepares, and is not counted
            for stop in STOPS if turn >= 0 else ("decision",):
                grid = GRID.format(models=MODELS, model=asked.model, stop=stop,
                                   techniques=as_toml(TECHNIQUES))  # fmt: skip
                took_s, cells = run_once(Path(name), grid)
                if turn < 0:
                    continue
                times[stop].append(took_s)
                told = cells[["latency_ratio", "latency_ratio_low", "latency_ratio_high",
                              "fidelity", "rounds", "sessions", "membership"]]  # fmt: skip
                print(f"\n{stop}: {took_s:.1f} s\n{told.round(3).to_string()}", flush=True)
    print("\n", {stop: [round(one, 1) for one in found] for stop, found in times.items()})


if __name__ == "__main__":
    main()
