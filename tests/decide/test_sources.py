"""Several runs of different machines are one source: nothing of one is taken for the other's."""

from __future__ import annotations

import json
from pathlib import Path

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from harness.decide.devices import find_duels
from harness.decide.frame import average_seeds
from harness.decide.frontier import Objective
from harness.decide.membership import draw_objectives
from harness.decide.sources import load_source
from harness.errors import UserError
from harness.published.table import make_cells
from harness.record import SAMPLES_SCHEMA
from harness.store import Run


def make_run(root: Path, device: str, environment: dict[str, str], latency_s: float) -> Run:
    cells = pd.DataFrame([{
        "model": "net", "device": device, "threads": 1, "batch": 1, "task": "t",
        "latency_s": latency_s, "accuracy": 0.9, "headline_blocks": "clean",
        "environment": json.dumps(environment),
    }])  # fmt: skip
    made = Run.create(root, "run", {})
    rows = make_cells(cells, "now")
    made.write_cells(rows)
    blank = dict.fromkeys(SAMPLES_SCHEMA.names)
    samples = [
        blank | {"cell_id": rows["cell_id"][0].as_py(), "heat": "h", "round": n, "block": n,
                 "seconds": latency_s * (1 + 0.01 * (n % 3)), "cause": ""}
        for n in range(12)
    ]  # fmt: skip
    pq.write_table(
        pa.Table.from_pylist(samples, schema=SAMPLES_SCHEMA), made.folder / "samples.parquet"
    )
    return made


def test_two_machines_are_told_apart_and_compared(tmp_path: Path) -> None:
    facts = {"cpu_model": "EPYC", "gpu_name": "H100"}
    runs = [make_run(tmp_path, "cpu", facts, 0.02), make_run(tmp_path, "cuda", facts, 0.01)]
    source = load_source(runs)
    assert source.frame.cells["device"].tolist() == ["cpu (EPYC)", "cuda (H100)"]
    (duel,) = find_duels(source.frame)
    assert duel.devices == ("cpu (EPYC)", "cuda (H100)")
    assert duel.at[0].ratio.value == pytest.approx(2)


def test_the_same_cell_on_two_machines_keeps_its_own_rounds(tmp_path: Path) -> None:
    runs = [make_run(tmp_path, "cpu", {"cpu_model": name}, seconds)
            for name, seconds in (("EPYC", 0.02), ("Xeon", 0.01))]  # fmt: skip
    source = load_source(runs)
    cells = average_seeds(source.frame)
    drawn = draw_objectives(cells, source.frame, [Objective("latency_s", "lower")], source.noise)
    assert drawn[:, 0].mean(1) == pytest.approx([0.02, 0.01], rel=0.02)
    assert (drawn[0, 0] > drawn[1, 0]).all()


def test_the_same_cell_of_the_same_machine_twice_is_refused(tmp_path: Path) -> None:
    runs = [make_run(tmp_path, "cpu", {"cpu_model": "EPYC"}, seconds) for seconds in (0.02, 0.01)]
    with pytest.raises(UserError, match="Two of these runs share 1 cell, the first is net"):
        load_source(runs)


def test_one_run_is_left_as_it_is(tmp_path: Path) -> None:
    source = load_source([make_run(tmp_path, "cpu", {"cpu_model": "EPYC"}, 0.02)])
    assert source.frame.cells["device"].tolist() == ["cpu"]
