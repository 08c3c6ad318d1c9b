"""Sweeps with a known truth: what noise does to cells whose real latency and accuracy are known."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd
from scipy.special import ndtr

from harness.decide.frame import Frame
from harness.decide.frontier import mark_frontier
from harness.decide.noise import Noise
from harness.record import METRICS, schema
from harness.rounds import ONE_PROCESS, find_latencies


@dataclass(frozen=True)
class Sweep:
    """A measured sweep, and which of its cells really are on the frontier."""

    frame: Frame
    noise: Noise
    truly: dict[str, bool]


def make_frame(rows: list[dict[str, object]]) -> Frame:
    """Return a frame of measured cells; each row names what differs from a plain cell."""
    plain = dict.fromkeys(schema().names) | {
        "model": "m", "device": "cpu", "threads": 1, "batch": 1, "runtime": "eager", "seed": 0,
        "task": "t", "status": "measured", "realization": "", "headline_blocks": "clean",
    }  # fmt: skip
    told = [{**plain, "cell_id": f"c{n}", "technique": f"t{n}"} | row for n, row in enumerate(rows)]
    numbers = {column for metric in METRICS for column in metric.columns()}
    # Column by column: pandas takes thirty times as long to tell what a list of rows is.
    columns = {name: [row[name] for row in told] for row in told for name in row}
    cells = pd.DataFrame({
        name: np.array(values, dtype=float) if name in numbers else values
        for name, values in columns.items()
    })  # fmt: skip
    return Frame("a run", cells, {metric.name: metric for metric in METRICS})


def simulate(
    generator: np.random.Generator, cells: int = 12, rounds: int = 30, examples: int = 1_000,
    noise: float = 0.03, spread: float = 0.3,
) -> Sweep:  # fmt: skip
    """Return a sweep of so many cells along a trade-off, with noise of a cell and of its rounds.

    A cell answers an example right if its ability is above the example's difficulty, which all
    cells share, and a chance of its own. Rounds are fast or slow for all cells.
    """
    effort = np.sort(generator.uniform(0, 1, cells))
    latency = np.exp(spread * effort + 0.02 * generator.standard_normal(cells))
    ability = 1.2 + 0.3 * effort + 0.05 * generator.standard_normal(cells)
    own = 0.3
    accuracy = ndtr(ability / np.hypot(1, own))
    process = ONE_PROCESS * generator.standard_normal((cells, 1))
    machine = 0.05 * generator.standard_normal(rounds).cumsum() / np.sqrt(rounds)
    logs = np.log(latency)[:, None] + process + machine
    logs = logs + noise * generator.standard_normal((cells, rounds))
    difficulty = generator.standard_normal(examples)
    chance = own * generator.standard_normal((cells, examples))
    right = ability[:, None] + chance > difficulty
    ids = [f"c{n}" for n in range(cells)]
    headlines = find_latencies({ids[n]: dict(enumerate(np.exp(logs[n]))) for n in range(cells)})
    frame = make_frame([
        {"latency_s": headlines[ids[n]].value, "accuracy": right[n].mean()} for n in range(cells)
    ])  # fmt: skip
    table = pd.DataFrame({
        "cell_id": np.repeat(ids, rounds), "heat": "h", "session": 0,
        "round": np.tile(np.arange(rounds), cells), "log_s": logs.ravel(),
    })  # fmt: skip
    truly = mark_frontier(np.column_stack([latency, accuracy]), [False, True])
    answers = dict(zip(ids, right, strict=True))
    return Sweep(frame, Noise(table, answers), dict(zip(ids, truly.tolist(), strict=True)))
