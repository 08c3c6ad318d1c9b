"""Blocks: what a run's samples and answers hold, as the noise of its cells is drawn from it."""

from __future__ import annotations

import numpy as np
import pandas as pd

from harness.decide.noise import BLOCK_COLUMNS, Noise
from harness.examples import read_right
from harness.rounds import CAUSES, choose_rounds
from harness.store import Run


def load_noise(run: Run) -> Noise:
    """Return the noise of a run's cells, from its samples and its answers where these are there."""
    blocks = _read_blocks(run)
    return Noise(find_rounds(blocks), read_right(run), blocks)


def _read_blocks(run: Run) -> pd.DataFrame:
    """Return the median of every block; the samples may be more than fit in memory."""
    names = BLOCK_COLUMNS[:-1]
    found: list[pd.DataFrame] = []
    rest: list[pd.DataFrame] = []
    for batch in run.batches("samples", [*names, "seconds"]):
        table: pd.DataFrame = pd.concat([*rest, batch.to_pandas()])
        if table.empty:
            continue
        last = table["cell_id"] == table["cell_id"].iloc[-1]  # it may go on in the next batch
        rest = [table[last]]
        found.append(_find_medians(table[~last]))
    found += map(_find_medians, rest)
    return pd.concat(found, ignore_index=True) if found else pd.DataFrame(columns=BLOCK_COLUMNS)


def _find_medians(samples: pd.DataFrame) -> pd.DataFrame:
    names = BLOCK_COLUMNS[:-1]
    known = samples[samples["seconds"] > 0]
    known = known.reindex(columns=[*names, "seconds"])  # of an old run there are no sessions
    known = known.assign(cause=known["cause"].fillna(""), session=known["session"].fillna(0))
    medians = known.groupby(names, sort=True)["seconds"].median()
    return medians.rename("median_s").reset_index()


def find_rounds(blocks: pd.DataFrame) -> pd.DataFrame:
    """Return the blocks that the headlines were made of: the least disturbed one of each round.

    blocks: with BLOCK_COLUMNS. The control's are chosen like any cell's.
    """
    level = blocks["cause"].map(CAUSES.index)
    order = blocks.assign(level=level).sort_values(["level", "block"], kind="stable")
    best = order.drop_duplicates(["heat", "cell_id", "round"]).sort_values("round")
    found = []
    for _, rounds in best.groupby(["heat", "cell_id"], sort=True):
        levels = dict(zip(rounds["round"], rounds["level"], strict=True))
        found.append(rounds[rounds["round"].isin(choose_rounds(levels)[0])])
    chosen = pd.concat(found) if found else best
    logs = np.log(chosen["median_s"].to_numpy(float))
    return chosen[["heat", "cell_id", "session", "round"]].assign(log_s=logs).reset_index(drop=True)
