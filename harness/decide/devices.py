"""Devices: the same variant on two of them, by batch; where one overtakes; scaling with threads."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from itertools import pairwise, product
from math import exp, hypot, log
from typing import Any

import numpy as np
import pandas as pd

from harness.decide.frame import Frame, average_seeds
from harness.decide.mean import mean_interval
from harness.stats import Estimate

SAME = ("task", "model", "technique")
Variant = tuple[Any, ...]
Row = pd.Series | Mapping[Any, Any]
PAYS = 1.05
"""More threads pay where they make a call so many times faster, surely."""


@dataclass(frozen=True)
class AtBatch:
    """How a variant does on two devices with one batch.

    ratio: latency on the first over that on the second; above 1 the second is faster. Each device
    has the runtime and as many threads as serve it best at this batch.
    """

    batch: float
    ratio: Estimate
    first: Row
    second: Row


@dataclass(frozen=True)
class Duel:
    """A variant on two devices: its ratios by ascending batch, and where the second overtakes.

    overtakes_at: the batch from which on the second is faster, between measured batches by
    interpolation of log ratio over log batch; its bounds are those of the ratios' intervals. NaN
    where no measured batch brackets it; `never` and `always` tell these apart.
    """

    key: dict[str, object]
    devices: tuple[str, str]
    at: tuple[AtBatch, ...]
    overtakes_at: Estimate

    @property
    def always(self) -> bool:
        """Tell whether the second device is faster at every batch."""
        return all(one.ratio.value > 1 for one in self.at)

    @property
    def never(self) -> bool:
        """Tell whether the second device is faster at no batch."""
        return all(one.ratio.value <= 1 for one in self.at)


@dataclass(frozen=True)
class Scaling:
    """A variant on one device with one batch, with 1, 2, 4… threads.

    speed_up: latency with the fewest threads over that with so many; efficiency: the same over the
    threads' ratio. pays_up_to: the most threads that are surely PAYS times as fast as the next
    fewer measured.
    """

    key: dict[str, object]
    threads: tuple[int, ...]
    speed_up: tuple[Estimate, ...]
    efficiency: tuple[float, ...]
    pays_up_to: int


def device_kind(device: str) -> str:
    """Return what kind of device this is: "cpu" of "cpu-i9", "cuda" of "cuda:1 (H100)"."""
    return re.split(r"[^a-z]", device, maxsplit=1)[0]


def find_duels(frame: Frame, first: str = "cpu", second: str = "cuda") -> Iterator[Duel]:
    """Yield every variant that was measured on devices of both kinds, for each pair of devices."""
    for key, devices in _list_fastest(frame).items():
        ones = [device for device in devices if device_kind(device) == first]
        others = [device for device in devices if device_kind(device) == second]
        for one, other in product(ones, others):
            mine, theirs = devices[one], devices[other]
            at = tuple(
                AtBatch(batch, divide(mine[batch], theirs[batch]), mine[batch], theirs[batch])
                for batch in sorted(mine.keys() & theirs.keys())
            )
            if at:
                named = dict(zip(SAME, key, strict=True))
                yield Duel(named, (one, other), at, find_crossing(at))


def _list_fastest(frame: Frame) -> dict[Variant, dict[str, dict[float, Row]]]:
    """Return for each variant and device the fastest row of each batch."""
    cells = average_seeds(frame)
    cells = cells[cells["latency_s"].notna()]
    batches = cells["batch"].fillna(1).astype(float)  # published times are of one example
    ordered = cells.assign(batch=batches).sort_values("latency_s", kind="stable")
    best = ordered.drop_duplicates([*SAME, "device", "batch"]).sort_index()
    found: dict[Variant, dict[str, dict[float, Row]]] = {}
    for row in best.to_dict("records"):
        key = tuple(None if pd.isna(row[name]) else row[name] for name in SAME)
        found.setdefault(key, {}).setdefault(str(row["device"]), {})[row["batch"]] = row
    return found


def divide(one: Row, other: Row, name: str = "latency_s") -> Estimate:
    """Return the ratio of a metric of two cells that share no rounds, with its 95 % interval."""
    value = float(one[name]) / float(other[name])
    halves = []
    for sides in (("low", "high"), ("high", "low")):
        logs = [
            log(float(cell[f"{name}_{side}"]) / float(cell[name]))
            for cell, side in zip((one, other), sides, strict=True)
            if pd.notna(cell[f"{name}_{side}"]) and cell[f"{name}_{side}"] > 0
        ]
        halves.append(hypot(*logs) if len(logs) == 2 else float("nan"))
    return Estimate(value, value * exp(-halves[0]), value * exp(halves[1]))


def find_crossing(at: tuple[AtBatch, ...]) -> Estimate:
    """Return the batch at which the ratio passes 1 for good, with the bounds of its intervals."""
    batches = np.log([one.batch for one in at])
    curves = [np.log([getattr(one.ratio, side) for one in at]) for side in ("value", "high", "low")]
    return Estimate(*(_cross(batches, curve) for curve in curves))


def _cross(batches: np.ndarray, logs: np.ndarray) -> float:
    """The last place where a curve over log batch rises above zero; NaN where it does not."""
    rising = [n for n in range(len(logs) - 1) if logs[n] <= 0 < logs[n + 1]]
    if not rising or (logs[rising[-1] + 1 :] <= 0).any():
        return float("nan")
    n = rising[-1]
    share = -logs[n] / (logs[n + 1] - logs[n])
    return float(exp(batches[n] + share * (batches[n + 1] - batches[n])))


def geometric_mean_ratio(duels: list[Duel]) -> Estimate:
    """Return the geometric mean over variants of the ratio at their smallest common batch.

    The interval is that of the mean of logs over variants (t distribution).
    """
    found = mean_interval(np.log([duel.at[0].ratio.value for duel in duels]))
    return Estimate(*(exp(bound) for bound in (found.value, found.low, found.high)))


def memory_in_use(cell: Row) -> float:
    """Return the bytes that a cell takes on its card, or on the host where it has none."""
    on_card = cell.get("cuda_process_bytes")
    return float(on_card if pd.notna(on_card) else cell["peak_memory_bytes"])


def energy_of_inference(cell: Row) -> float:
    """Return the joules that one example takes."""
    examples: Any = cell["call_examples"]
    return float(cell["energy_j"]) / float(cell["batch"] if pd.isna(examples) else examples)


def find_scalings(frame: Frame) -> Iterator[Scaling]:
    """Yield how each variant on each device with each batch speeds up with threads.

    Cells that had fewer threads than they were given tell nothing of it.
    """
    measured = frame.measured
    if "threads_in_effect" in measured:
        fewer = measured["threads_in_effect"] < measured["threads"]
        frame = replace(frame, cells=measured[~fewer.fillna(False).astype(bool)])
    cells = average_seeds(frame)
    cells = cells[cells["latency_s"].notna() & cells["threads"].notna()]
    by = [*SAME, "runtime", "device", "batch"]
    several = cells.duplicated(by, keep=False)
    for key, rows in cells[several].groupby(by, sort=False, dropna=False):
        ordered = rows.sort_values("threads")
        found = [row for _, row in ordered.iterrows()]
        threads = tuple(int(row["threads"]) for row in found)
        speed_up = tuple(divide(found[0], row) for row in found)
        efficiency = tuple(
            one.value * threads[0] / count for one, count in zip(speed_up, threads, strict=True)
        )
        pays = threads[0]
        for fewer, more in pairwise(found):
            step = divide(fewer, more)
            sure = step.low if np.isfinite(step.low) else step.value
            if sure < PAYS:
                break
            pays = int(more["threads"])
        yield Scaling(dict(zip(by, key, strict=True)), threads, speed_up, efficiency, pays)
