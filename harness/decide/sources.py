"""Sources: one run, or several of different machines together, as a frame with its noise."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pandas as pd

from harness.decide.blocks import load_noise
from harness.decide.devices import device_kind
from harness.decide.frame import GROUP, VARIANT, Frame
from harness.decide.noise import Noise
from harness.decide.prices import load_priced
from harness.errors import UserError
from harness.record import TIMED
from harness.store import Run
from harness.wording import counted


@dataclass(frozen=True)
class Source:
    """What is decided from: the cells, their doubt, and what is known of the run."""

    name: str
    frame: Frame
    noise: Noise
    facts: dict[str, Any]


def load_source(runs: Sequence[Run], prices: Path | None = None) -> Source:
    """Return one run as it is, or several with each device named after its machine.

    Raises UserError where two runs hold the same cell of the same device.
    """
    frames = [load_priced(run, prices) for run in runs]
    noises = [load_noise(run) for run in runs]
    if len(runs) == 1:
        return Source(runs[0].run_id, frames[0], noises[0], runs[0].facts())
    named = [_name_devices(run, frame) for run, frame in zip(runs, frames, strict=True)]
    cells = pd.concat([frame.cells for frame in named], ignore_index=True)
    keys = [*VARIANT, *GROUP, "seed"]
    twice = cells[cells.duplicated(keys) & cells["status"].isin(TIMED)]
    if len(twice):
        cell = twice.iloc[0]
        raise UserError(
            f"Two of these runs share {counted(len(twice), 'cell')}, the first is {cell['model']}, "
            f"{cell['technique']}, {cell['device']}: name runs of different machines or grids."
        )
    metrics = {name: metric for frame in frames for name, metric in frame.metrics.items()}
    name = f"{runs[0].run_id}-and-{len(runs) - 1}-more"
    facts = {
        "roofs": {}, "machine": {}, "created_at": max(run.facts()["created_at"] for run in runs),
        "command": "paretogrid report " + " ".join(run.run_id for run in runs),
    }  # fmt: skip
    return Source(name, Frame(name, cells, metrics), _join_noises(runs, noises), facts)


def _name_devices(run: Run, frame: Frame) -> Frame:
    """Return the frame with devices named after the machine, and cells after the run."""
    cells = frame.cells
    names = {
        device: _name_device(str(device), rows["environment"].iloc[0])
        for device, rows in cells.groupby("device")
    }
    ids = f"{run.run_id}:" + cells["cell_id"]
    return replace(frame, cells=cells.assign(device=cells["device"].map(names), cell_id=ids))


def _name_device(device: str, environment: str | None) -> str:
    """Return "cpu (AMD EPYC 7B13)" of a device and what is known of where it was."""
    known = json.loads(environment) if environment else {}
    model = known.get("cpu_model" if device_kind(device) == "cpu" else "gpu_name")
    return f"{device} ({model})" if model else device


def _join_noises(runs: Sequence[Run], noises: Sequence[Noise]) -> Noise:
    def label(run: Run, table: pd.DataFrame) -> pd.DataFrame:
        prefix = f"{run.run_id}:"
        return table.assign(cell_id=prefix + table["cell_id"], heat=prefix + table["heat"])

    pairs = list(zip(runs, noises, strict=True))
    return Noise(
        pd.concat([label(run, noise.rounds) for run, noise in pairs], ignore_index=True),
        {
            f"{run.run_id}:{cell}": answers
            for run, noise in pairs
            for cell, answers in noise.answers.items()
        },
        pd.concat([label(run, noise.blocks) for run, noise in pairs], ignore_index=True),
    )
