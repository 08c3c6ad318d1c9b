"""A heat is timed in several sessions, apart in time and by other servers."""

from __future__ import annotations

import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.grid_file import parse_grid
from harness.runs import open_run
from harness.store import Run
from harness.sweep.sessions import LEAST_S, count_sessions
from tests.start import start_command

GRID = """
[grid]
models = ["own.py:net"]
techniques = ["bf16"]
[budget]
max_seconds_per_cell = 3
stop = "budget"
[measure]
sessions = 3
processes = 2
"""
MODELS = """
from pathlib import Path
import torch
from torch import nn
WIDTH = int(Path("width").read_text())
class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.linear = nn.Linear(64, WIDTH)
        if Path("break").exists():
            raise RuntimeError("broken")
    def __setstate__(self, state):
        super().__setstate__(state)
        if state["_parameters"] is not None and Path("break").exists():
            raise RuntimeError("broken")
    def forward(self, x):
        return self.linear(x)
def net():
    torch.manual_seed(0)
    return Net(), torch.randn(4, 64)
"""
CELLS = 2
Command = Callable[..., subprocess.CompletedProcess[str]]


def start(folder: Path) -> subprocess.Popen[str]:
    (folder / "grid.toml").write_text(GRID)
    (folder / "own.py").write_text(MODELS)
    (folder / "width").write_text("64")
    return start_command(folder, "run", "grid.toml", "--no-report")


def wait_for_session(folder: Path, runner: subprocess.Popen[str]) -> Run:
    """Wait until the heat's first session has become rows, and return the run."""
    deadline = time.monotonic() + 120
    while True:
        assert runner.poll() is None, runner.communicate()
        assert time.monotonic() < deadline
        if len(list(folder.glob("results/*/parts/*.cells.parquet"))) == CELLS:
            return open_run(folder / "results", None)
        time.sleep(0.02)


def change_after_a_session(
    folder: Path, change: Callable[[], object]
) -> tuple[Run, subprocess.Popen[str], str]:
    """Change something after the first session; return the run, its process, and what it said."""
    with start(folder) as runner:
        run = wait_for_session(folder, runner)
        change()
        _, said = runner.communicate(timeout=120)
    return run, runner, said


def cells_of(run: Run) -> pd.DataFrame:
    return run.read("cells").to_pandas().set_index("technique")


@given(
    st.integers(1, 20), st.floats(0.01, 1e4), st.none() | st.floats(0.01, 1e5),
    st.integers(0, 2_000),
)  # fmt: skip
def test_each_cell_has_a_second_in_each_session_or_there_is_one(
    asked: int, own_s: float, whole_s: float | None, cells: int
) -> None:
    budget = {"max_seconds_per_cell": own_s, "max_seconds": whole_s}
    grid = parse_grid(
        {"grid": {"models": ["m"]}, "measure": {"sessions": asked},
         "budget": {name: value for name, value in budget.items() if value is not None}}, "a test",
    )  # fmt: skip
    found = count_sessions(grid, cells)
    each_s = min(own_s, (whole_s or float("inf")) / max(1, cells))
    assert 1 <= found <= asked
    assert found == 1 or each_s / found >= LEAST_S
    assert found == asked or each_s / (found + 1) < LEAST_S


@pytest.mark.workers
def test_a_heat_has_the_processes_of_as_many_servers_as_sessions(
    tmp_path: Path, command: Command
) -> None:
    with start(tmp_path) as runner:
        run = wait_for_session(tmp_path, runner)
        cells = cells_of(run)
        _, said = runner.communicate(timeout=120)
    assert runner.returncode == 0, said
    assert set(cells["status"]) <= {"partial"}, "until the last session"
    cells = cells_of(run)
    assert set(cells["status"]) == {"measured"}
    assert cells["heat"].nunique() == 1
    samples = run.read("samples").to_pandas()
    for _, one in samples.groupby("cell_id"):
        blocks = one.drop_duplicates("block").sort_values("block")
        assert blocks["session"].is_monotonic_increasing
        assert blocks.groupby("session")["process"].nunique().to_dict() == {0: 2, 1: 2, 2: 2}
        assert blocks["round"].is_monotonic_increasing
    assert cells["processes"].tolist() == [6, 6]
    assert said.count("timing 2 cells, session ") == 3
    assert said.count("memory of 2 cells") == 1, "what is asked once is not asked again"
    assert not (run.folder / "journal").exists()
    assert cells["accuracy"].isna().all()
    assert (cells["fidelity"] > 0).all()


@pytest.mark.workers
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGKILL])
def test_a_run_that_ends_between_sessions_has_results_and_goes_on(
    tmp_path: Path, command: Command, number: signal.Signals
) -> None:
    with start(tmp_path) as runner:
        run = wait_for_session(tmp_path, runner)
        runner.send_signal(number)
        runner.communicate(timeout=60)
    assert command("report").returncode == 0
    before = cells_of(run)
    assert set(before["status"]) == {"partial"}
    assert command("resume", "--no-report").returncode == 0
    cells = cells_of(run)
    assert set(cells["status"]) == {"measured"}
    assert (cells["rounds"] > before["rounds"]).all()
    assert cells["heat"].tolist() == before["heat"].tolist()


@pytest.mark.workers
def test_a_model_that_was_changed_between_sessions_is_not_taken_for_the_same(
    tmp_path: Path, command: Command
) -> None:
    """Its file is imported again in the next session's server."""
    width = tmp_path / "width"
    run, runner, said = change_after_a_session(tmp_path, lambda: width.write_text("128"))
    assert runner.returncode == 3, said
    cells = cells_of(run)
    assert set(cells["status"]) == {"partial"}
    assert "its model has changed since this run began" in " ".join(cells.loc["bf16", "warnings"])
    assert set(run.read("samples").to_pandas()["session"]) == {0}
    assert command("resume", "--no-report").returncode == 0
    cells = cells_of(run)
    assert set(cells["status"]) == {"measured"}
    assert set(cells["macs"]) == {64 * 128}


@pytest.mark.workers
def test_what_cannot_be_loaded_again_keeps_what_was_timed(tmp_path: Path, command: Command) -> None:
    run, runner, said = change_after_a_session(tmp_path, (tmp_path / "break").touch)
    assert runner.returncode == 3, said
    cells = cells_of(run)
    assert set(cells["status"]) == {"partial"}
    assert "broken" in " ".join(cells.loc["bf16", "warnings"])
    assert cells.loc["bf16", "latency_ratio"] > 0, "its baseline has not come back either"
    (tmp_path / "break").unlink()
    assert command("resume", "--no-report").returncode == 0
    cells = cells_of(run)
    assert set(cells["status"]) == {"measured"}
    assert cells["heat"].nunique() == 1
