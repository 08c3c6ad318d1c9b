"""What repeats of a heat differ by: a table from a file of `record_repeats.py`.

    python tests/benchmarks/variances.py repeats.parquet

The log-ratio of a cell to its baseline in a heat is that of all heats, and what is common to a
server, to a turn (its time), to a process, and to a round. Standard deviations are in percent.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from dataclasses import dataclass
from math import sqrt

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from harness.grid import BASELINE
from harness.repeats import find_sessions
from harness.stats import LEAST_FOR_INTERVAL
from harness.sweep.apart import ONE_DEVIATION
from harness.sweep.heat import CONTROL

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Components:
    """Variances of a table of servers × turns: each way's own, and what is neither's."""

    servers: float
    turns: float
    rest: float


def split_variance(table: Floats) -> Components:
    """Return the variances of servers (rows), of turns (columns), and of what is left.

    Estimates below zero are zero. Source: two-way random effects without replication; Searle,
    Casella and McCulloch, "Variance Components" (1992), chapter 4.
    """
    rows, columns = table.shape
    by_row, by_column = table.mean(1), table.mean(0)
    rest = table - by_row[:, None] - by_column + table.mean()
    left = float((rest**2).sum() / ((rows - 1) * (columns - 1)))
    of_rows = float(by_row.var(ddof=1)) - left / columns
    of_columns = float(by_column.var(ddof=1)) - left / rows
    return Components(max(0.0, of_rows), max(0.0, of_columns), left)


def process_variance(heats: Mapping[object, pd.DataFrame]) -> float:
    """Return the variance between processes of one heat, beyond that of their blocks, of log-times.

    heats: of each, columns process and rest_log (a block's own, without what its round shares).
    """
    between = []
    for heat in heats.values():
        groups = [one["rest_log"].to_numpy() for _, one in heat.groupby("process")]
        groups = [one for one in groups if len(one) >= LEAST_FOR_INTERVAL]
        if len(groups) < 2:
            continue
        errors = float(np.mean([median_error(one) ** 2 for one in groups]))
        between.append(float(np.var([np.median(one) for one in groups], ddof=1)) - errors)
    return max(0.0, float(np.mean(between)))


def median_error(values: Floats) -> float:
    """Return the standard error of a median, by order statistics: it holds for any distribution."""
    _, errors = find_sessions([values], ONE_DEVIATION)
    return float(errors[0])


def tabulate(blocks: pd.DataFrame) -> pd.DataFrame:
    """Return a row for each cell: how far repeats are apart, and by what, in percent."""
    timed = blocks.assign(log=np.log(blocks["median_s"]))
    keys = ["turn", "server", "round"]
    wide = timed.pivot_table(index=keys, columns="member", values="log", aggfunc="first")
    turns = timed.pivot_table(index=keys, columns="member", values="process", aggfunc="first")
    found = []
    for name in wide.columns.drop([BASELINE, CONTROL]):
        ratios = (wide[name] - wide[BASELINE]).dropna()
        heats = ratios.groupby(["turn", "server"]).median().unstack("turn")
        pairs = [turns[one].reindex(ratios.index) for one in (name, BASELINE)]
        # What is a pair of processes' own is no round's.
        grouped = ratios.groupby([*keys[:2], *pairs])
        errors = grouped.agg(lambda one: median_error(one.to_numpy())) ** 2
        by_heat = errors[grouped.size() >= LEAST_FOR_INTERVAL].groupby(keys[:2])
        parts = split_variance(heats.to_numpy())
        by_rounds = float((by_heat.sum() / by_heat.size() ** 2).mean())
        processes = timed[timed["member"] == name].groupby(["turn", "server"])["process"].nunique()
        own = [_process_variance(timed, wide, one) for one in (name, BASELINE)]
        by_processes = sum(own) / float(processes.mean())
        left = parts.rest - by_rounds - by_processes
        found.append({
            "cell": name, "ratio": float(np.exp(np.median(ratios))),
            "a repeat": sqrt(float(heats.to_numpy().var(ddof=1))),
            "server": sqrt(parts.servers), "time": sqrt(parts.turns), "rest": sqrt(parts.rest),
            "processes": sqrt(by_processes), "rounds": sqrt(by_rounds),
            "unexplained": sqrt(max(0.0, left)),
        })  # fmt: skip
    table = pd.DataFrame(found).set_index("cell")
    return table.assign(**{one: 100 * table[one] for one in table.columns.drop("ratio")})


def _process_variance(timed: pd.DataFrame, wide: pd.DataFrame, name: str) -> float:
    """The variance between processes of one cell, beside what its rounds share with the others."""
    others = wide.drop(columns=name)
    others = others - others.groupby(["turn", "server"]).transform("median")
    mine = timed[timed["member"] == name].set_index(["turn", "server", "round"])
    mine = mine[~mine.index.duplicated()]
    rest = mine["log"] - others.median(axis=1).reindex(mine.index)
    told = mine.assign(rest_log=rest).dropna(subset="rest_log")
    return process_variance(dict(iter(told.groupby(["turn", "server"]))))


def main() -> None:
    """Print the table of each file, of its quiet turns, its loaded ones, and all."""
    for path in sys.argv[1:]:
        blocks = pd.read_parquet(path)
        for name, part in (("quiet", ~blocks["loaded"]), ("loaded", blocks["loaded"]),
                           ("all", blocks["loaded"].notna())):  # fmt: skip
            chosen = blocks[part]
            print(f"\n{path}, {name}: {chosen.groupby(['turn', 'server']).ngroups} heats")
            print(tabulate(chosen).round(2).to_string())


if __name__ == "__main__":
    main()
