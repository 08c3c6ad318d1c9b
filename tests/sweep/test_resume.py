"""What ends with a run, and how it is gone on with; random kills are in test_kills.py."""

import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pytest

from harness.runs import open_run
from harness.sweep.launcher import Launcher
from tests.start import COMMAND, run_command, start_command

pytestmark = pytest.mark.workers

MODELS = """
import torch
from torch import nn
def small():
    return nn.Sequential(nn.Linear(16, 16), nn.ReLU(), nn.Linear(16, 4)), torch.randn(4, 16)
"""
SMALL = """
[grid]
models = ["own.py:small"]
techniques = ["bf16"]
batch = [1, 8]
[budget]
max_seconds_per_cell = 0.2
"""
SMALL_CELLS = 2 * 2


def test_workers_end_with_a_killed_runner(tmp_path: Path) -> None:
    code = (
        "from harness.sweep.launcher import Launcher\n"
        "l = Launcher(); w = l.start_worker(); print(w.pid, flush=True)\n"
        "w.call('probe_device', 60, device='cpu'); print('ready', flush=True)\n"
        "import time; time.sleep(600)\n"
    )
    runner = subprocess.Popen([COMMAND[0], "-c", code], stdout=subprocess.PIPE, text=True)
    assert runner.stdout is not None
    worker = int(runner.stdout.readline())
    assert runner.stdout.readline() == "ready\n"
    runner.kill()
    runner.wait()
    deadline = time.monotonic() + 10
    while Path(f"/proc/{worker}").exists() and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not Path(f"/proc/{worker}").exists()


def test_a_closed_launcher_leaves_no_worker(cold_servers: None) -> None:
    with Launcher() as launcher:
        worker = launcher.start_worker()
        worker.call("probe_device", 60, device="cpu")
        assert Path(f"/proc/{worker.pid}").exists()
    deadline = time.monotonic() + 10
    while Path(f"/proc/{worker.pid}").exists() and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not Path(f"/proc/{worker.pid}").exists()


def test_ctrl_c_keeps_what_was_measured_and_says_how_to_go_on(tmp_path: Path) -> None:
    (tmp_path / "grid.toml").write_text(SMALL)
    (tmp_path / "own.py").write_text(MODELS)
    runner = start_command(tmp_path, "run", "grid.toml")
    while not list(tmp_path.glob("results/*/parts/*.cells.parquet")):
        assert runner.poll() is None
        time.sleep(0.05)
    runner.send_signal(signal.SIGINT)
    _, said = runner.communicate(timeout=60)
    assert runner.returncode == 130
    run = open_run(tmp_path / "results", None)
    assert f"paretogrid resume {run.run_id}" in said
    assert "Traceback" not in said
    kept = pd.read_parquet(run.folder / "cells.parquet")
    assert 0 < len(kept) < SMALL_CELLS
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    again = run_command(elsewhere, "resume", run.run_id, "--results", str(tmp_path / "results"))
    assert again.returncode == 0, again.stderr
    assert f"It goes on in {tmp_path}, where it began." in again.stderr
    cells = pd.read_parquet(run.folder / "cells.parquet").set_index("cell_id")
    assert len(cells) == SMALL_CELLS
    before = kept.set_index("cell_id")
    assert (cells.loc[before.index, "latency_s"] == before["latency_s"]).all()


MOODY = """
import pathlib
import torch
from torch import nn

class Moody(nn.Linear):
    def forward(self, x):
        if not pathlib.Path(__file__).with_name("good_mood").exists():
            raise RuntimeError("a passing mood")
        return super().forward(x)

def moody():
    return Moody(4, 4), torch.randn(2, 4)
def steady():
    return nn.Linear(4, 4), torch.randn(2, 4)
"""


def test_what_failed_is_measured_again_when_asked_and_nothing_else_is(
    tmp_path: Path, command: Callable[..., subprocess.CompletedProcess[str]]
) -> None:
    (tmp_path / "own.py").write_text(MOODY)
    done = command(
        "run", "--model", "own.py:moody", "--model", "own.py:steady", "--threads", "1",
        "--device", "cpu", "--device", "cuda:7", "--max-seconds-per-cell", "0.05",
    )  # fmt: skip
    assert done.returncode == 3
    run = open_run(tmp_path / "results", None)
    line = next(text for text in done.stderr.splitlines() if "--retry" in text)
    again = line.partition(": paretogrid ")[2].split()
    assert again == ["resume", run.run_id, "--retry", "failed"]

    def rows() -> pd.DataFrame:
        cells = pd.read_parquet(run.folder / "cells.parquet")
        return cells.set_index(["model", "device"]).sort_index()

    first = rows()
    (tmp_path / "good_mood").write_text("")
    assert command(*again).returncode == 0
    second = rows()
    assert second.loc["own.py:moody", "status"].to_dict() == {
        "cpu": "measured",
        "cuda:7": "skipped",
    }
    assert (second.loc["own.py:steady", "latency_s"] == first.loc["own.py:steady", "latency_s"])[
        "cpu"
    ]
    assert len(second) == len(first) == 4
    heats = second.xs("cpu", level="device")["heat"]
    assert heats["own.py:moody"] != heats["own.py:steady"], "other rounds: another heat"
    command("resume", "--retry", "skipped")
    assert (rows()["started_at"] > second["started_at"]).groupby("device").all().to_dict() == {
        "cpu": False, "cuda:7": True,
    }  # fmt: skip
    samples = pd.read_parquet(run.folder / "samples.parquet")
    counted = samples.groupby("cell_id").size()
    measured = second[second["status"] == "measured"].set_index("cell_id")["samples"]
    assert (counted[measured.index] == measured).all()
