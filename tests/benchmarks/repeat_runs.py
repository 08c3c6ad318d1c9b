"""Repeat a run of cells that are not alike; say how many intervals hold for the other repeats.

    python tests/benchmarks/repeat_runs.py mlp --runs 24 --seconds 3

Every other run is beside a busy neighbour. Each is a `paretogrid run` as its users start it; what
it knows of this machine's sessions it learns from those before it. An interval holds if the median
of all repeats is in it.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Iterator
from contextlib import nullcontext
from pathlib import Path

import numpy as np
import pandas as pd
from commands import as_toml, run_grid
from copies import busy_neighbour
from unlike import BATCH, WORKLOADS

from harness.grid import BASELINE
from harness.store import read_cells

MODELS = Path(__file__).with_name("unlike.py")
COLUMNS = ("latency_ratio", "latency_s")
GRID = """
[grid]
models = ["{models}:{workload}"]
techniques = {techniques}
batch = [{batch}]
threads = [1]
[budget]
max_seconds_per_cell = {seconds}
stop = "budget"
"""


def repeat(workload: str, runs: int, seconds: float) -> Iterator[pd.DataFrame]:
    """Yield the cells of each run, with its number and whether a neighbour was busy."""
    with tempfile.TemporaryDirectory() as name:
        grid = GRID.format(models=MODELS, workload=workload, batch=BATCH, seconds=seconds,
                           techniques=as_toml(WORKLOADS[workload]))  # fmt: skip
        for number in range(runs):
            loaded = bool(number % 2)
            with busy_neighbour() if loaded else nullcontext():
                cells = read_cells(run_grid(Path(name), grid))
            yield cells.assign(run=number, loaded=loaded)
            sys.stderr.write(f"\rrun {number + 1} of {runs} ")


def judge(cells: pd.DataFrame, column: str) -> pd.DataFrame:
    """Return for each technique how far repeats are apart, and what its intervals cover.

    sd and half widths are in percent; `within`: intervals that are of their own sessions only.
    """
    found = []
    for technique, rows in cells.groupby("technique"):
        if column == "latency_ratio" and technique == BASELINE:
            continue
        logs = np.log(rows[column])
        truth = np.exp(np.median(logs))
        row = {"technique": technique, "median": f"{truth:.4g}", "sd": 100 * float(logs.std())}
        for name, kind in (("repeat", column), ("within", f"{column}_within")):
            low, high = rows[f"{kind}_low"], rows[f"{kind}_high"]
            half = 50 * (np.log(high) - np.log(low))
            row[f"{name}: covered"] = int(((low <= truth) & (truth <= high)).sum())
            row[f"{name}: half width"] = float(half.median())
        found.append(row | {"of": len(rows)})
    return pd.DataFrame(found).set_index("technique")


def main() -> None:
    """Repeat the runs and print what their intervals hold."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("workload", choices=WORKLOADS)
    parser.add_argument("--runs", type=int, default=24)
    parser.add_argument("--seconds", type=float, default=3.0, help="of each cell in a run")
    parser.add_argument("--keep", type=Path, help="a Parquet file for the runs' cells")
    asked = parser.parse_args()
    cells = pd.concat(repeat(asked.workload, asked.runs, asked.seconds), ignore_index=True)
    if asked.keep:
        cells.to_parquet(asked.keep)
    for column in COLUMNS:
        table = judge(cells, column)
        print(f"\n{column}")
        print(table.round(3).to_string())
        for name in ("repeat", "within"):
            print(f"{name}: {table[f'{name}: covered'].sum()} of {table['of'].sum()} covered")


if __name__ == "__main__":
    main()
