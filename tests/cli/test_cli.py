"""The command as a person or a nightly job calls it."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pytest
import torch

from tests.start import start_command

Command = Callable[..., subprocess.CompletedProcess[str]]
STRANGER = """
import torch
from torch import nn

def net():
    return nn.Sequential(nn.Linear(32, 64), nn.ReLU(), nn.Linear(64, 10)), torch.randn(4, 32)

def broken():
    class Broken(nn.Module):
        def forward(self, x):
            raise RuntimeError("no")
    return Broken(), torch.randn(4, 32)
"""
NO_OP = """
import dataclasses
from bench import technique

@technique("no-op")
def no_op(subject):
    "Leave the model alone."
    return dataclasses.replace(subject, module=subject.module)
"""
ONE_LINE = ("run", "--model", "my.py:net", "--technique", "baseline", "--technique",
            "int8-dynamic", "--threads", "1")  # fmt: skip
QUICK = ("--max-seconds-per-cell", "0.3")


@pytest.fixture
def stranger(tmp_path: Path) -> Path:
    (tmp_path / "my.py").write_text(STRANGER)
    return tmp_path


def test_one_line_measures_a_strangers_model_and_reports_it(
    stranger: Path, command: Command
) -> None:
    done = command(*ONE_LINE, *QUICK)
    assert done.returncode == 0, done.stderr
    (cells,) = stranger.glob("results/*/cells.parquet")
    frame = pd.read_parquet(cells)
    assert list(frame["status"]) == ["measured", "measured"]
    assert frame["accuracy"].isna().all()
    assert frame["fidelity"].notna().all()
    (page,) = stranger.glob("reports/*/index.html")
    assert str(page.relative_to(stranger)) in done.stdout
    assert "fidelity" in done.stdout

    data = json.loads(command("frontier", "--json").stdout)
    assert data["schema"] == "paretogrid.frontier/1"
    (group,) = data["groups"]
    found = [*group["members"], *group["dominated"], *group["incomplete"]]
    assert {row["technique"] for row in found} == {"baseline", "int8-dynamic"}
    by_size = json.loads(
        command("frontier", "--minimize", "weight_bytes", "--json").stdout
    )["groups"][0]["members"]  # fmt: skip
    assert [row["technique"] for row in by_size] == ["int8-dynamic"]


def test_a_plugin_in_one_file_adds_a_technique(stranger: Path, command: Command) -> None:
    (stranger / "my_plugin.py").write_text(NO_OP)
    done = command(
        "run", "--plugin", "my_plugin.py", "--model", "my.py:net", "--technique", "baseline",
        "--technique", "no-op", "--threads", "1", *QUICK,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    (cells,) = stranger.glob("results/*/cells.parquet")
    assert list(pd.read_parquet(cells)["technique"]) == ["baseline", "no-op"]
    listed = command("list", "techniques", "--plugin", "my_plugin.py", "--json")
    names = [row["name"] for row in json.loads(listed.stdout)["rows"]]
    assert "no-op" in names


def test_a_bench_folder_of_the_users_does_not_shadow_ours(stranger: Path, command: Command) -> None:
    (stranger / "bench").mkdir()
    (stranger / "bench" / "__init__.py").write_text("raise SystemExit('shadowed')")
    (stranger / "harness.py").write_text("raise SystemExit('shadowed')")
    assert command("list", "models").returncode == 0


def test_failed_cells_end_the_command_with_3_and_the_rest_is_reported(
    stranger: Path, command: Command
) -> None:
    done = command("run", "--model", "my.py:net", "--model", "my.py:broken", *QUICK)
    assert done.returncode == 3
    assert "RuntimeError: no" in done.stdout
    assert list(stranger.glob("reports/*/index.html"))


@pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has a CUDA card")
def test_a_run_in_which_nothing_was_measured_ends_with_5(stranger: Path, command: Command) -> None:
    done = command("run", "--model", "my.py:net", "--device", "cuda")
    assert done.returncode == 5
    assert "no CUDA device here" in done.stdout
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("kind", ["models", "techniques", "datasets", "grids", "metrics"])
def test_everything_can_be_listed_for_people_and_for_programs(command: Command, kind: str) -> None:
    assert command("list", kind).stdout.strip()
    data = json.loads(command("list", kind, "--json").stdout)
    assert data["schema"] == "paretogrid.list/1"
    assert data["rows"]


def test_an_unknown_run_is_answered_with_the_nearest(stranger: Path, command: Command) -> None:
    assert command("report").returncode == 2
    command("run", "--model", "my.py:net", *QUICK)
    (name,) = (path.name for path in (stranger / "results").iterdir())
    done = command("report", name[:-1])
    assert done.returncode == 2
    assert f"Did you mean {name!r}?" in done.stderr


def test_options_replace_the_axes_of_a_grid_file(stranger: Path, command: Command) -> None:
    (stranger / "grid.toml").write_text(
        '[grid]\nmodels = ["my.py:net"]\nthreads = [1, 2]\n[budget]\nmax_seconds_per_cell = 0.2\n'
    )
    assert command("run", "grid.toml", "--threads", "1").returncode == 0
    (cells,) = stranger.glob("results/*/cells.parquet")
    assert list(pd.read_parquet(cells)["threads"]) == [1]


def test_the_doctor_says_what_the_machine_can_tell_apart(
    command: Callable[..., subprocess.CompletedProcess[str]],
) -> None:
    done = command("doctor", "--threads", "1", "--json")
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert found["schema"] == "paretogrid.doctor/1"
    assert found["roofs"]["cpu, threads 1"]["flops_per_s"]["float32"] > 1e6
    (test,) = found["tests"]
    assert test["comparisons"] == 30
    assert test["smallest_difference"] > 0
    assert set(found["devices"]) == {"cpu", "cuda"}
    assert len(found["fingerprint"]) == 12


def test_the_doctor_prints_tables_and_advice_for_people(
    command: Callable[..., subprocess.CompletedProcess[str]],
) -> None:
    done = command("doctor", "--threads", "1")
    assert done.returncode == 0, done.stderr
    for words in ("What it can reach", "The same work compared with itself", "false alarms", "* "):
        assert words in done.stdout


def test_the_doctor_needs_a_thread(
    command: Callable[..., subprocess.CompletedProcess[str]],
) -> None:
    done = command("doctor", "--threads", "0")
    assert done.returncode == 2
    assert done.stderr.strip() == "paretogrid: --threads must be 1 or more, got 0."


@pytest.mark.parametrize("delay_s", [0.02, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.8])
def test_ctrl_c_while_the_command_starts_shows_no_traceback(tmp_path: Path, delay_s: float) -> None:
    running = start_command(tmp_path, "list", "models", stdout=subprocess.DEVNULL)
    time.sleep(delay_s)
    running.send_signal(signal.SIGINT)
    said = running.communicate(timeout=60)[1]
    # Python itself may be interrupted before it has come to the command.
    assert "Traceback" not in said or "paretogrid.py" not in said
    assert running.returncode in (0, 130, -signal.SIGINT) or "Traceback" in said


PRINTING = [["--help"], ["list", "models"], ["list", "metrics", "--json"], ["list", "techniques"]]


@pytest.mark.parametrize("words", PRINTING, ids=" ".join)
def test_output_that_cannot_be_written_is_one_message(tmp_path: Path, words: list[str]) -> None:
    with Path("/dev/full").open("w") as full:
        running = start_command(tmp_path, *words, stdout=full)
    _, said = running.communicate(timeout=60)
    assert running.returncode == 2
    assert said == "paretogrid: Cannot write the output: No space left on device.\n"


@pytest.mark.parametrize("words", PRINTING, ids=" ".join)
def test_a_reader_that_has_seen_enough_is_no_mistake(tmp_path: Path, words: list[str]) -> None:
    running = start_command(tmp_path, *words)
    assert running.stdout is not None
    running.stdout.close()
    assert running.stderr is not None
    assert running.stderr.read() == ""
    running.wait(60)


def test_a_report_that_is_not_wanted_is_left_to_its_command(
    stranger: Path, command: Callable[..., subprocess.CompletedProcess[str]]
) -> None:
    done = command("run", "--model", "my.py:net", *QUICK, "--no-report")
    assert done.returncode == 0, done.stderr
    (run,) = (stranger / "results").iterdir()
    assert not (stranger / "reports").exists()
    assert f"Report:  `paretogrid report {run.name}` writes it" in done.stdout
    assert command("report").returncode == 0
    assert (stranger / "reports" / run.name / "index.html").is_file()
    told = command("resume", "--no-report", "--json")
    assert json.loads(told.stdout.splitlines()[-1])["report"] is None


def test_results_that_cannot_be_printed_are_kept_and_where_they_are_is_said(
    tmp_path: Path,
) -> None:
    (tmp_path / "my.py").write_text(STRANGER)
    with Path("/dev/full").open("w") as full:
        running = start_command(tmp_path, "run", "--model", "my.py:net", *QUICK, stdout=full)
    _, said = running.communicate(timeout=120)
    assert running.returncode == 0
    assert "No space left on device. The report: reports/" in said


def test_a_mistake_nobody_can_be_told_of_has_its_exit_code(tmp_path: Path) -> None:
    with Path("/dev/full").open("w") as full:
        running = start_command(tmp_path, "run", "--bogus", stderr=full)
    running.communicate(timeout=60)
    assert running.returncode == 2


def test_a_technique_that_an_installed_package_brings_runs_on_a_model_of_ours(
    tmp_path: Path, command: Command
) -> None:
    """No file is named anywhere: workers have to find by themselves what is installed."""
    site = tmp_path / "site"
    info = site / "their_package-1.0.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: their-package\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[paretogrid.plugins]\ntheirs = their_package\n")
    (site / "their_package.py").write_text(
        "from bench import technique\n@technique('theirs')\n"
        "def theirs(subject):\n    return subject.with_note('by theirs')\n"
    )
    known = os.environ | {"PYTHONPATH": os.pathsep.join([str(site), *sys.path])}
    done = command(
        "run", "--model", "linear-classifier", "--technique", "theirs", *QUICK, env=known
    )
    assert done.returncode == 0, done.stdout + done.stderr
    (run,) = (tmp_path / "results").iterdir()
    cells = pd.read_parquet(run / "cells.parquet").set_index("technique")
    assert cells["status"].to_dict() == {"baseline": "measured", "theirs": "measured"}
    assert cells.loc["theirs", "notes"].tolist() == ["by theirs"]
