"""Interrupted in the middle of a heat, a run has an answer, and goes on where it was."""

from __future__ import annotations

import os
import pty
import signal
import subprocess
import time
from collections.abc import Callable
from itertools import count
from pathlib import Path
from typing import Any

import pandas as pd
import psutil
import pytest
from kills import read_journals

from harness.runs import open_run
from harness.store import Run
from harness.sweep.interruption import Interruption
from harness.sweep.journal import Journal
from harness.sweep.launcher import Launcher
from harness.sweep.plan import Plan
from harness.sweep.progress import Progress
from harness.sweep.runner import Sweep
from tests.start import COMMAND, start_command

pytestmark = pytest.mark.workers

GRID = """
[grid]
models = ["own.py:net"]
techniques = ["bf16"]
threads = [1]
[budget]
max_seconds_per_cell = 2.5
stop = "budget"
[measure]
sessions = 1
"""
MODELS = """
import torch
from torch import nn
def net():
    return nn.Sequential(nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 4)), torch.randn(4, 64)
"""
Command = Callable[..., subprocess.CompletedProcess[str]]


def start(
    folder: Path, models: str = MODELS, grid: str = GRID, report: bool = True, **options: Any
) -> subprocess.Popen[str]:
    (folder / "grid.toml").write_text(grid)
    (folder / "own.py").write_text(models)
    words = [] if report else ["--no-report"]
    return start_command(folder, "run", "grid.toml", *words, **options)


def wait_for_rounds(folder: Path, runner: subprocess.Popen[str], rounds: int) -> pd.DataFrame:
    deadline = time.monotonic() + 120
    while True:
        blocks = read_journals(folder / "results")
        if len(blocks) and blocks["round"].max() >= rounds:
            return blocks
        assert runner.poll() is None, runner.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.05)


def check_samples(run: Run, blocks: pd.DataFrame) -> None:
    """Every block that was on disk is among the samples, once, and none is missing."""
    samples = run.read("samples").to_pandas()
    samples["member"] = samples["cell_id"].where(
        ~samples["cell_id"].str.startswith("control-"), "control"
    )
    groups = samples.groupby(["member", "block"])["seconds"].apply(list)
    for block in blocks.itertuples():
        assert groups[block.member, block.block] == list(block.seconds)
    assert samples.groupby("block")["member"].nunique().max() == 1
    assert samples["heat"].nunique() == 1
    numbers = sorted(samples["block"].unique())
    assert numbers == list(range(len(numbers)))
    noted = run.read("cells").to_pandas().set_index("cell_id")["samples"].dropna()
    assert noted.to_dict() == samples.groupby("cell_id").size()[noted.index].to_dict()


def test_an_interrupted_heat_has_results_and_a_report_and_is_gone_on_with(
    tmp_path: Path, command: Command
) -> None:
    runner = start(tmp_path)
    wait_for_rounds(tmp_path, runner, 20)
    runner.send_signal(signal.SIGINT)
    shown, said = runner.communicate(timeout=60)
    assert runner.returncode == 130, said
    run = open_run(tmp_path / "results", None)
    assert f"paretogrid resume {run.run_id}" in said
    assert "Traceback" not in said
    assert run.facts()["state"] == "interrupted"
    cells = pd.read_parquet(run.folder / "cells.parquet")
    assert set(cells["status"]) == {"partial"}
    assert len(cells) == 2
    assert (cells["latency_s_low"] < cells["latency_s_high"]).all()
    assert cells.set_index("technique").loc["bf16", "latency_ratio"] > 0
    assert set(cells["stopped_by"]) == {"interruption"}
    page = tmp_path / "reports" / run.run_id / "report.md"
    assert "2 of 2 cells were not timed to the end" in page.read_text()
    assert "0 cells measured, 2 in part" in page.read_text()
    assert "2 partial" in shown
    blocks = read_journals(tmp_path / "results")
    rounds = int(cells["rounds"].min())
    again = command("resume")
    assert again.returncode == 0, again.stderr
    cells = pd.read_parquet(run.folder / "cells.parquet")
    assert set(cells["status"]) == {"measured"}
    assert (cells["rounds"] > rounds).all()
    assert len(cells) == 2
    check_samples(run, blocks)
    assert not (run.folder / "journal").exists(), "it has become results"
    facts = run.facts()
    run.write_facts({**facts, "machine": {**facts["machine"], "cpu_model": "Another CPU"}})
    refused = command("resume")
    assert refused.returncode == 2
    assert "began on another machine: cpu model Another CPU → " in refused.stderr
    assert command("resume", "--mixed", "--no-report").returncode == 0


def test_a_model_that_was_changed_meanwhile_is_timed_anew(tmp_path: Path, command: Command) -> None:
    runner = start(tmp_path, report=False)
    wait_for_rounds(tmp_path, runner, 10)
    runner.send_signal(signal.SIGINT)
    runner.communicate(timeout=60)
    before = read_journals(tmp_path / "results")
    (tmp_path / "own.py").write_text(MODELS.replace("nn.ReLU()", "nn.GELU()"))
    again = command("resume", "--no-report")
    assert again.returncode == 0
    assert again.stderr.count("has changed: it is timed anew") == 2
    run = open_run(tmp_path / "results", None)
    samples = pd.read_parquet(run.folder / "samples.parquet")
    blocks = samples.groupby(["cell_id", "block"])["seconds"].apply(tuple)
    assert not set(blocks) & {tuple(seconds) for seconds in before["seconds"]}
    assert set(pd.read_parquet(run.folder / "cells.parquet")["status"]) == {"measured"}


FRAGILE = """
from pathlib import Path
import torch
from torch import nn
class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.linear = nn.Linear(64, 64)
    def forward(self, x):
        if self.linear.weight.dtype == torch.bfloat16 and Path("break").exists():
            raise RuntimeError("broken")
        return self.linear(x)
def net():
    return Net(), torch.randn(4, 64)
"""


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGKILL])
def test_who_fails_when_the_others_end_their_heat_goes_on_in_it_later(
    tmp_path: Path, command: Command, number: signal.Signals
) -> None:
    runner = start(tmp_path, FRAGILE, report=False)
    wait_for_rounds(tmp_path, runner, 10)
    runner.send_signal(number)
    runner.communicate(timeout=60)
    blocks = read_journals(tmp_path / "results")
    (tmp_path / "break").touch()
    assert command("resume", "--no-report").returncode == 3
    run = open_run(tmp_path / "results", None)
    cells = run.read("cells").to_pandas().set_index("technique")
    assert cells["status"].to_dict() == {"baseline": "measured", "bf16": "partial"}
    check_samples(run, blocks)
    (tmp_path / "break").unlink()
    again = start_command(tmp_path, "resume", "--no-report")
    wait_for_rounds(tmp_path, again, int(cells["rounds"].max()) + 10)
    again.send_signal(number)
    again.communicate(timeout=60)
    blocks = read_journals(tmp_path / "results")
    assert command("report").returncode == 0, "which makes results of what a killed run had timed"
    cells = run.read("cells").to_pandas().set_index("technique")
    assert cells["status"].to_dict() == {"baseline": "measured", "bf16": "partial"}
    check_samples(run, blocks)  # the baseline's too, which was there for the other's sake
    assert command("resume", "--no-report").returncode == 0
    cells = run.read("cells").to_pandas()
    assert set(cells["status"]) == {"measured"}
    assert cells["heat"].nunique() == 1
    check_samples(run, blocks)
    assert not (run.folder / "journal").exists()


def test_who_fails_in_the_heat_that_goes_on_has_what_was_timed_until_then(
    tmp_path: Path, command: Command
) -> None:
    runner = start(tmp_path, FRAGILE, report=False)
    wait_for_rounds(tmp_path, runner, 5)
    runner.send_signal(signal.SIGINT)
    runner.communicate(timeout=60)
    run = open_run(tmp_path / "results", None)
    before = run.read("cells").to_pandas().set_index("technique")["rounds"]
    again = start_command(tmp_path, "resume", "--no-report")
    wait_for_rounds(tmp_path, again, int(before.max()) + 5)
    (tmp_path / "break").touch()
    _, said = again.communicate(timeout=120)
    assert again.returncode == 3, said
    cells = run.read("cells").to_pandas().set_index("technique")
    assert cells["status"].to_dict() == {"baseline": "measured", "bf16": "partial"}
    assert cells.loc["bf16", "rounds"] > before["bf16"]
    assert "it went on and failed: " in " ".join(cells.loc["bf16", "warnings"])
    assert "broken" in " ".join(cells.loc["bf16", "warnings"])
    assert run.facts()["state"] == "finished"
    assert "ended while" not in command("report").stderr, "it was not killed"
    assert run.facts()["state"] == "finished"


def test_a_signal_while_the_log_is_written_to_is_heard_like_any(tmp_path: Path) -> None:
    """Python cannot write to a stream in the middle of writing to it."""

    def tell(_: str) -> None:
        raise RuntimeError("reentrant call inside <_io.BufferedWriter>")

    interruption = Interruption(tell)
    with interruption.heard(), interruption.after_the_round():
        os.kill(os.getpid(), signal.SIGINT)
    assert interruption.asked


def test_a_mistake_of_ours_in_a_heat_costs_none_of_what_was_timed(
    tmp_path: Path, command: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    runner = start(tmp_path, report=False)
    wait_for_rounds(tmp_path, runner, 5)
    runner.send_signal(signal.SIGINT)
    runner.communicate(timeout=60)
    run = open_run(tmp_path / "results", None)
    before = run.read("cells").to_pandas().set_index("technique")["samples"]
    monkeypatch.chdir(tmp_path)
    plan = Plan.from_json(run.facts()["plan"])
    looks = count()

    def fail_later(*_: object) -> None:
        if next(looks) > 20:
            raise ZeroDivisionError("ours")

    monkeypatch.setattr(Journal, "keep", wrap_keep(fail_later))
    with Launcher() as launcher:
        Sweep(plan, run, launcher, Progress()).measure()
    cells = run.read("cells").to_pandas().set_index("technique")
    assert set(cells["status"]) == {"partial"}
    assert (cells["samples"] > before).all()
    assert command("resume", "--no-report").returncode == 0
    assert set(run.read("cells").to_pandas()["status"]) == {"measured"}


def wrap_keep(first: Callable[..., None]) -> Callable[..., None]:
    keep = Journal.keep

    def wrapped(journal: Journal, now: bool = False) -> None:
        if not now:
            first()
        keep(journal, now)

    return wrapped


def test_what_cannot_be_recovered_is_left_out_of_what_is_shown(
    tmp_path: Path, command: Command
) -> None:
    """As on a full disk; a file is where the rows would go."""
    runner = start(tmp_path, report=False)
    wait_for_rounds(tmp_path, runner, 5)
    runner.kill()
    runner.communicate(timeout=60)
    run = open_run(tmp_path / "results", None)
    parts = run.folder / "parts"
    parts.rmdir()
    parts.write_text("")
    told = command("frontier")
    assert told.returncode == 0, told.stderr
    assert "had timed when it was killed is left out: Cannot write " in told.stderr
    parts.unlink()
    assert "2 cells with results" in command("frontier").stderr


def test_the_others_go_on_in_their_heat_where_one_has_failed(
    tmp_path: Path, command: Command
) -> None:
    runner = start(tmp_path, FRAGILE, report=False)
    wait_for_rounds(tmp_path, runner, 5)
    (tmp_path / "break").touch()
    time.sleep(1)
    runner.send_signal(signal.SIGINT)
    runner.communicate(timeout=60)
    run = open_run(tmp_path / "results", None)
    cells = pd.read_parquet(run.folder / "cells.parquet").set_index("technique")
    assert cells["status"].to_dict() == {"baseline": "partial", "bf16": "failed"}
    assert "broken" in cells.loc["bf16", "message"]
    command("report")  # which makes results of blocks that nobody has concluded
    again = run.read("cells").to_pandas().set_index("technique")
    assert again[["status", "message"]].equals(cells[["status", "message"]])
    assert run.facts()["state"] == "interrupted"
    blocks = read_journals(tmp_path / "results")
    assert command("resume", "--no-report").returncode == 3, "what failed is not tried again"
    assert "ended while" not in command("report").stderr
    assert run.facts()["state"] == "finished"
    cells = pd.read_parquet(run.folder / "cells.parquet").set_index("technique")
    assert cells["status"].to_dict() == {"baseline": "measured", "bf16": "failed"}
    assert cells["heat"].nunique() == 1
    check_samples(run, blocks)


def test_a_signal_to_every_process_of_a_run_ends_it_as_one_to_the_runner_does(
    tmp_path: Path, command: Command
) -> None:
    """As service managers, batch systems and a host that is shut down send it."""
    runner = start(tmp_path, report=False, cold=True)
    wait_for_rounds(tmp_path, runner, 10)
    everybody = [psutil.Process(runner.pid), *psutil.Process(runner.pid).children(recursive=True)]
    assert len(everybody) > 4
    for process in everybody:
        process.send_signal(signal.SIGTERM)
    _, said = runner.communicate(timeout=60)
    assert runner.returncode == 130, said
    run = open_run(tmp_path / "results", None)
    assert set(pd.read_parquet(run.folder / "cells.parquet")["status"]) == {"partial"}
    blocks = read_journals(tmp_path / "results")
    assert command("resume", "--no-report").returncode == 0
    assert set(pd.read_parquet(run.folder / "cells.parquet")["status"]) == {"measured"}
    check_samples(run, blocks)


def test_what_a_killed_run_had_timed_is_results_without_going_on(
    tmp_path: Path, command: Command
) -> None:
    runner = start(tmp_path, grid=GRID.replace("2.5", "5"))  # the report takes seconds, too
    wait_for_rounds(tmp_path, runner, 20)
    assert command("report").returncode == 0, "it is being measured: what is finished is shown"
    runner.kill()
    runner.communicate(timeout=60)
    blocks = read_journals(tmp_path / "results")
    run = open_run(tmp_path / "results", None)
    told = command("report")
    assert told.returncode == 0, told.stderr
    assert f"paretogrid resume {run.run_id}" in told.stderr
    cells = run.read("cells").to_pandas()
    assert set(cells["status"]) == {"partial"}
    assert (cells["latency_s_low"] < cells["latency_s_high"]).all()
    assert (cells["peak_memory_bytes"] > 0).all()
    assert cells.set_index("technique").loc["bf16", "fidelity"] > 0.9
    assert run.facts()["state"] == "interrupted"
    page = (tmp_path / "reports" / run.run_id / "report.md").read_text()
    assert "2 of 2 cells were not timed to the end" in page
    assert "nan" not in page.lower()
    check_samples(run, blocks)
    again = command("report")
    assert "resume" not in again.stderr, "they are known by now"
    assert command("resume", "--no-report").returncode == 0
    assert set(run.read("cells").to_pandas()["status"]) == {"measured"}
    check_samples(run, blocks)
    assert command("report").stderr == ""


@pytest.mark.parametrize("options", [[], ["--json"]])
def test_a_log_that_cannot_be_written_costs_no_cell(tmp_path: Path, options: list[str]) -> None:
    (tmp_path / "grid.toml").write_text(GRID.replace("2.5", "0.1"))
    (tmp_path / "own.py").write_text(MODELS)
    with Path("/dev/full").open("w") as full:
        subprocess.run(
            [*COMMAND, "run", "grid.toml", *options], cwd=tmp_path, timeout=120, check=False,
            stderr=full, stdout=full if options else subprocess.DEVNULL,
        )  # fmt: skip
    run = open_run(tmp_path / "results", None)
    assert set(pd.read_parquet(run.folder / "cells.parquet")["status"]) == {"measured"}
    assert run.facts()["state"] == "finished"


def test_a_killed_run_loses_a_second_of_timing_at_most(tmp_path: Path, command: Command) -> None:
    runner = start(tmp_path, report=False)
    blocks = wait_for_rounds(tmp_path, runner, 20)
    time.sleep(0.3)
    runner.kill()
    runner.communicate(timeout=60)
    kept = read_journals(tmp_path / "results")
    assert len(kept) >= len(blocks)
    again = command("resume", "--no-report")
    assert again.returncode == 0, again.stderr
    run = open_run(tmp_path / "results", None)
    check_samples(run, kept)
    cells = pd.read_parquet(run.folder / "cells.parquet")
    assert list(cells["status"]) == ["measured"] * 2
    assert run.facts()["state"] == "finished"


@pytest.mark.parametrize(
    "signals", [[signal.SIGTERM], [signal.SIGHUP], [signal.SIGINT, signal.SIGINT]]
)
def test_batch_systems_closed_terminals_and_the_impatient_get_the_command_to_go_on(
    tmp_path: Path, signals: list[signal.Signals]
) -> None:
    runner = start(tmp_path)
    blocks = wait_for_rounds(tmp_path, runner, 8)
    for number in signals:
        runner.send_signal(number)
        time.sleep(0.002)
    _, said = runner.communicate(timeout=60)
    assert runner.returncode == 130
    assert "Go on with: paretogrid resume" in said
    assert "Traceback" not in said
    assert len(read_journals(tmp_path / "results")) >= len(blocks)


def test_what_is_interrupted_before_anything_was_timed_has_no_report(tmp_path: Path) -> None:
    runner = start(tmp_path)
    while not list(tmp_path.glob("results/*/run.json")):
        assert runner.poll() is None
        time.sleep(0.02)
    runner.send_signal(signal.SIGINT)
    _, said = runner.communicate(timeout=60)
    assert runner.returncode == 130
    assert "Interrupted with 2 cells left. Go on with: paretogrid resume" in said
    assert "Traceback" not in said
    assert not (tmp_path / "reports").exists()


def test_who_is_impatient_is_told_how_to_see_what_was_timed(
    tmp_path: Path, command: Command
) -> None:
    runner = start(tmp_path)
    wait_for_rounds(tmp_path, runner, 10)
    for _ in range(2):
        runner.send_signal(signal.SIGINT)
        time.sleep(0.02)
    _, said = runner.communicate(timeout=60)
    assert runner.returncode == 130
    run = open_run(tmp_path / "results", None)
    if not len(run.read("cells")):  # it left before the round had ended
        assert f"What was timed becomes results with: paretogrid report {run.run_id}" in said
        assert command("report", run.run_id).returncode == 0
    assert set(run.read("cells").to_pandas()["status"]) == {"partial"}


def test_a_reader_that_goes_costs_nothing(tmp_path: Path) -> None:
    """As with `| head`, or a log's reader that dies."""
    runner = start(tmp_path, stderr=subprocess.STDOUT)
    assert runner.stdout is not None
    runner.stdout.readline()
    runner.stdout.close()
    assert runner.wait(120) == 0
    run = open_run(tmp_path / "results", None)
    assert run.state() == "finished"
    assert set(run.read("cells").to_pandas()["status"]) == {"measured"}


def test_a_terminal_that_is_closed_ends_the_run_with_its_results(tmp_path: Path) -> None:
    ours, theirs = pty.openpty()
    runner = start(tmp_path, stdout=theirs, stderr=theirs)
    os.close(theirs)
    wait_for_rounds(tmp_path, runner, 10)
    os.close(ours)  # what is written now is an error
    runner.send_signal(signal.SIGHUP)
    assert runner.wait(60) == 130
    run = open_run(tmp_path / "results", None)
    assert run.state() == "interrupted"
    assert set(run.read("cells").to_pandas()["status"]) == {"partial"}
    assert (tmp_path / "reports" / run.run_id / "report.md").is_file()


def test_a_resume_that_fails_leaves_what_was_timed(tmp_path: Path, command: Command) -> None:
    runner = start(tmp_path, report=False)
    wait_for_rounds(tmp_path, runner, 10)
    runner.send_signal(signal.SIGINT)
    runner.communicate(timeout=60)
    run = open_run(tmp_path / "results", None)
    before = run.read("cells").to_pandas().set_index("cell_id")
    blocks = read_journals(tmp_path / "results")
    (tmp_path / "own.py").rename(tmp_path / "elsewhere.py")
    failed = command("resume", "--no-report")
    assert failed.returncode == 3, failed.stderr
    assert "own.py" in failed.stderr
    after = run.read("cells").to_pandas().set_index("cell_id")
    assert set(after["status"]) == {"partial"}
    assert after["latency_s"].to_dict() == before["latency_s"].to_dict()
    (tmp_path / "elsewhere.py").rename(tmp_path / "own.py")
    assert command("resume", "--no-report").returncode == 0
    assert set(run.read("cells").to_pandas()["status"]) == {"measured"}
    check_samples(run, blocks)


def test_who_leaves_while_the_report_is_written_is_told_how_to_write_it(tmp_path: Path) -> None:
    runner = start(tmp_path)
    assert runner.stderr is not None
    told = iter(runner.stderr.readline, "")
    assert any("writing the report" in line for line in told)
    runner.send_signal(signal.SIGINT)
    said = runner.communicate(timeout=60)[1]
    run = open_run(tmp_path / "results", None)
    assert runner.returncode == 130
    assert "Everything is measured; the report is not written." in said
    assert f"paretogrid report {run.run_id}" in said
    assert run.state() == "finished"
