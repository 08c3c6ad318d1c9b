"""Find out how small a difference runs see: equal layers, of which one cell has some more.

    python tests/benchmarks/resolution.py --layers 100 --more 1 --seconds 3 --runs 20

Each is a `paretogrid run` as its users start it, with cells that are the same as the baseline
beside the one that has more layers. With several values of `--set` (keys of the grid's `[measure]`)
these take turns.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import pandas as pd
from commands import as_toml, run_grid

from harness.grid import BASELINE
from harness.store import read_cells

MODELS = Path(__file__).with_name("layers.py")
P_VALUE = 0.01
USED = ("technique", "settings", "latency_ratio", "latency_ratio_low", "latency_ratio_high",
        "latency_ratio_p_value", "rounds", "processes", "process_spread")  # fmt: skip
GRID = """
[grid]
models = ["{models}:layers_{layers}"]
techniques = {techniques}
batch = [8]
threads = [1]
plugins = ["{models}"]
[budget]
max_seconds_per_cell = {seconds}
stop = "budget"
[measure]
{measure}
"""


def repeat(
    layers: int, techniques: Sequence[str], seconds: float, runs: int, settings: Sequence[str]
) -> Iterator[pd.DataFrame]:
    """Yield the cells of each run, with its number and its settings."""
    with tempfile.TemporaryDirectory() as name:
        for number in range(runs):
            for measure in settings:
                grid = GRID.format(models=MODELS, layers=layers, seconds=seconds, measure=measure,
                                   techniques=as_toml([*techniques]))  # fmt: skip
                cells = read_cells(run_grid(Path(name), grid))
                yield cells.assign(run=number, settings=measure.replace("\n", ", "))
            sys.stderr.write(f"\rrun {number + 1} of {runs} ")


def judge(cells: pd.DataFrame, more: str) -> pd.DataFrame:
    """Return for each setting how often the difference was found, and how often one that is none.

    sd and half widths are in percent.
    """
    found = []
    ratios = cells[cells["technique"] != BASELINE]
    ratios = ratios[[*USED]].copy()
    ratios = ratios.assign(log=np.log(ratios["latency_ratio"]), more=ratios["technique"] == more)
    half = np.log(ratios["latency_ratio_high"]) - np.log(ratios["latency_ratio_low"])
    ratios = ratios.assign(half=50 * half, found=ratios["latency_ratio_p_value"] < P_VALUE)
    for name, rows in ratios.groupby("settings"):
        larger, same = rows[rows["more"]], rows[~rows["more"]]
        found.append({
            "settings": name,
            "more: found": f"{int((larger['found'] & (larger['log'] > 0)).sum())} of {len(larger)}",
            "more: median": float(100 * larger["log"].median()),
            "more: sd": float(100 * larger["log"].std()),
            "same: flagged": f"{int(same['found'].sum())} of {len(same)}",
            "same: rms": float(100 * np.sqrt((same["log"] ** 2).mean())),
            "same: covered": int(((same["latency_ratio_low"] <= 1)
                                  & (same["latency_ratio_high"] >= 1)).sum()),
            "half width": float(rows["half"].median()),
            "rounds": float(rows["rounds"].median()),
            "processes": float(rows["processes"].median()),
            "process spread": float(100 * rows["process_spread"].median()),
        })  # fmt: skip
    return pd.DataFrame(found).set_index("settings")


def main() -> None:
    """Run them and print what was found."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--layers", type=int, choices=(100, 200), default=100)
    parser.add_argument("--more", type=int, default=1)
    parser.add_argument("--seconds", type=float, default=3.0, help="of each cell in a run")
    parser.add_argument("--runs", type=int, default=20)
    parser.add_argument("--same", type=int, default=2, help="cells that are the same")
    parser.add_argument("--set", action="append", dest="settings", help="processes = 4")
    parser.add_argument("--keep", type=Path, help="a Parquet file for the runs' cells")
    asked = parser.parse_args()
    more = f"more-layers({asked.more})"
    techniques = [more, *(f"more-layers(0, copy={number})" for number in range(asked.same))]
    settings = [one.replace(";", "\n") for one in asked.settings or [""]]
    runs = repeat(asked.layers, techniques, asked.seconds, asked.runs, settings)
    cells = pd.concat(runs, ignore_index=True)
    if asked.keep:
        cells.to_parquet(asked.keep)
    print(judge(cells, more).round(3).T.to_string())


if __name__ == "__main__":
    main()
