"""A run of 2,000 cells and 200 million samples: `python tests/benchmarks/scale.py`.

Writes it as a sweep does, cell after cell, joins it, and writes its report, each in a process of
its own; says what each took, and at half the size, so that a step that grows faster than the run
shows. The rows are those of a committed run, in further batches; the samples are drawn.
"""

from __future__ import annotations

import argparse
import json
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT))

from harness.grid import Cell  # noqa: E402  # found by the line above
from harness.record import CONDITIONS, METRICS, SAMPLES_SCHEMA, Record  # noqa: E402
from harness.runs import open_run  # noqa: E402
from harness.store import Run, control_id  # noqa: E402

KNOWN = "techniques-20261122-221020"
SAMPLES_A_ROUND = 100
SESSIONS = {"sessions": 3, "processes": 6, "effective_processes": 6.0, "process_spread": 0.004,
            "work_spread": 0.02, "known_sessions": 4.0, "run_spread": 0.004, "known_runs": 4.0,
            "speed_spread": 0.05, "known_heats": 4.0, "reference_share": 0.5}  # fmt: skip
"""What records say of sessions, which the known run was not timed in."""
AXES = ("model", "technique", "device", "threads", "batch", "runtime", "seed")


def make_cells(count: int) -> pd.DataFrame:
    """Return so many rows: those of the known run, in its batches and in further ones."""
    known = pd.read_parquet(ROOT / "results" / KNOWN / "cells.parquet")
    known = known[known["status"] == "measured"]
    again = [
        known.assign(batch=known["batch"] + number, heat=known["heat"] + f"/{number}")
        for number in range(-(-count // len(known)))
    ]
    return pd.concat(again, ignore_index=True).head(count)


def draw_samples(name: str, heat: str, latency_s: float, samples: int, seed: int) -> pa.Table:
    """Return samples of a cell: noise around its latency, in rounds."""
    generator = np.random.default_rng(seed)
    numbers = np.arange(samples)
    rounds = numbers // SAMPLES_A_ROUND
    seconds = latency_s * np.exp(0.02 * generator.standard_normal(samples))
    columns: dict[str, Any] = {
        "cell_id": pa.array(np.full(samples, name)),
        "heat": pa.array(np.full(samples, heat)),
        "session": rounds * SESSIONS["sessions"] // (rounds.max() + 1),
        "round": rounds, "block": rounds, "position": np.zeros(samples, int),
        "at_s": rounds * 0.1, "seconds": seconds,
        "loops": np.ones(samples, int), "disturbed": np.zeros(samples, bool),
        "cause": pa.array(np.full(samples, "")), "lost_s": np.zeros(samples),
        "switches": np.zeros(samples, int), "others": np.zeros(samples, int),
        "frequency_hz": np.full(samples, 3e9), "process": rounds % 2,
    }  # fmt: skip
    return pa.table({field.name: columns[field.name] for field in SAMPLES_SCHEMA}).cast(
        SAMPLES_SCHEMA
    )


def pick(row: dict[str, Any], names: list[str]) -> dict[str, Any]:
    """Return what a row has of these columns."""
    return {name: row[name] for name in names if name in row and np.all(pd.notna(row[name]))}


def write(folder: Path, cells: int, samples: int) -> None:
    """Keep every cell of a run as a sweep does."""
    facts = json.loads((ROOT / "results" / KNOWN / "run.json").read_text())
    run = Run.create(folder, "scale", {**facts, "state": "finished"})
    metrics = [column for metric in METRICS for column in metric.columns()]
    conditions = [name for name, _ in CONDITIONS]
    heats: set[str] = set()
    for number, row in enumerate(make_cells(cells).to_dict("records")):
        cell = Cell(**{name: row[name] for name in AXES})
        record = Record(
            run.run_id, cell, "measured", task=row["task"], started_at=row["started_at"],
            realization=row["realization"], metrics=pick(row, metrics),
            conditions=pick(row, conditions) | SESSIONS,
        )  # fmt: skip
        drawn = draw_samples(cell.id, row["heat"], row["latency_s"], samples, number)
        run.add(record, drawn)
        if row["heat"] not in heats:
            heats.add(row["heat"])
            name = control_id(row["heat"])
            run.add_control(name, draw_samples(name, row["heat"], 1e-4, samples, -number + 10**6))
    run.write_facts({**run.facts(), "run_id": run.run_id})


def do(stage: str, folder: Path, cells: int, samples: int) -> None:
    """Do one stage, and print what it took."""
    begin = time.process_time()
    if stage == "write":
        write(folder, cells, samples)
    elif stage == "join":
        open_run(folder, None).compact()
    else:
        from harness.decide.sources import load_source
        from harness.report.write import write_report

        write_report(load_source([open_run(folder, None)]), folder / "reports")
    peak_bytes = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    took = {"processor_s": time.process_time() - begin, "peak_bytes": peak_bytes}
    print(json.dumps(took))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--cells", type=int, default=2_000)
    parser.add_argument("--samples", type=int, default=100_000, help="of each cell")
    parser.add_argument("--stage", nargs=2, metavar=("STAGE", "FOLDER"), help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.stage:
        do(asked.stage[0], Path(asked.stage[1]), asked.cells, asked.samples)
        return
    for cells in (asked.cells // 2, asked.cells):
        folder = Path(tempfile.mkdtemp(prefix="scale-"))
        for stage in ("write", "join", "report"):
            sizes = ("--cells", str(cells), "--samples", str(asked.samples))
            done = subprocess.run(
                [sys.executable, __file__, *sizes, "--stage", stage, str(folder)],
                check=True, stdout=subprocess.PIPE, text=True,
            )  # fmt: skip
            took = json.loads(done.stdout.splitlines()[-1])
            print(f"{cells} cells, {cells * asked.samples:,} samples, {stage}: "
                  f"{took['processor_s']:.1f} s of a processor, at most "
                  f"{took['peak_bytes'] / 2**20:,.0f} MiB", flush=True)  # fmt: skip
        shutil.rmtree(folder)


if __name__ == "__main__":
    main()
