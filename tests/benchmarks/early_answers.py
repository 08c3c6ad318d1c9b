"""Find out how much sooner a run ends that ends when its answer is known, and with which answer.

    python tests/benchmarks/early_answers.py resnet18 --turns 3

`stop = "interval"` and `stop = "decision"` take turns, everything else is as by default; with
`--before` a third way is the code of another checkout, whatever ends its heats. The models are
prepared before the first turn.
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
WAYS = {"interval": 'stop = "interval"', "decision": 'stop = "decision"', "before": ""}
TOLD = ["latency_ratio", "latency_ratio_low", "latency_ratio_high", "fidelity", "rounds",
        "sessions", "membership"]  # fmt: skip
GRID = """
[grid]
models = ["{models}:{model}"]
techniques = {techniques}
batch = [2]
threads = [1]
[budget]
{stop}
"""


def run_once(folder: Path, grid: str, code: Path | None) -> tuple[float, pd.DataFrame]:
    """Return how long a run took, and its cells with how sure their places are."""
    begin = time.monotonic()
    made = run_grid(folder, grid, code)
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
    parser.add_argument("--before", type=Path, help="a checkout of other code")
    asked = parser.parse_args()
    ways = [way for way in WAYS if asked.before or way != "before"]
    times: dict[str, list[float]] = {way: [] for way in ways}
    with tempfile.TemporaryDirectory() as name:
        for turn in range(-1, asked.turns):  # the first prepares, and is not counted
            for way in ways:
                if turn < 0 and way == "interval":
                    continue
                grid = GRID.format(models=MODELS, model=asked.model, stop=WAYS[way],
                                   techniques=as_toml(TECHNIQUES))  # fmt: skip
                code = asked.before if way == "before" else None
                took_s, cells = run_once(Path(name), grid, code)
                if turn < 0:
                    continue
                times[way].append(took_s)
                told = cells.reindex(columns=TOLD).round(3).to_string()
                print(f"\n{way}: {took_s:.1f} s\n{told}", flush=True)
    print("\n", {stop: [round(one, 1) for one in found] for stop, found in times.items()})


if __name__ == "__main__":
    main()
