"""Where files are: paths of any kind, runs that were copied, projects that were moved."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pytest

from harness.commands.options import how_to, name_run
from harness.runs import open_run
from harness.store import Run
from tests.start import COMMAND, start_command

pytestmark = pytest.mark.workers

Command = Callable[..., subprocess.CompletedProcess[str]]
LAYERS = """
from torch import nn
class Layer(nn.Module):
    def __init__(self):
        super().__init__()
        self.linear = nn.Linear(8, 8)
    def forward(self, x):
        return self.linear(x)
"""
NET = """
import torch
from layers import Layer
def net(width=8):
    return Layer(), torch.randn(2, 8)
"""
TECHNIQUE = """
def nothing(subject, amount: int = 1):
    return subject
"""
QUICK = ("--threads", "1", "--max-seconds-per-cell", "0.2")
AWKWARD = (
    "my models", "it's", "a(b)", "[x]", "half (open", 'a "b"', "ünï", "seed=3", ":tiger:",
)  # fmt: skip


def write_project(folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in (("layers.py", LAYERS), ("net.py", NET), ("tech.py", TECHNIQUE)):
        (folder / name).write_text(text)


def test_any_character_may_be_in_the_path_of_a_users_files_and_store(
    tmp_path: Path, command: Command
) -> None:
    models = [f"{name}/net.py:net" for name in AWKWARD]
    for name in AWKWARD:
        write_project(tmp_path / name)
    options = [text for model in models for text in ("--model", model)]
    done = command("run", *options, *QUICK, "--results", "/".join(AWKWARD))
    assert done.returncode == 0, done.stderr
    asked = command("query", "select model, batch, seed from cells order by 1", "--results",
                    "/".join(AWKWARD), "--json")  # fmt: skip
    assert asked.returncode == 0, asked.stderr
    assert json.loads(asked.stdout)["rows"] == [
        {"model": model, "batch": 1, "seed": 0} for model in sorted(models)
    ]


def test_a_technique_in_a_folder_with_quotes_is_a_step_of_a_pipeline(
    tmp_path: Path, command: Command
) -> None:
    write_project(tmp_path / "it's (mine)")
    done = command(
        "run", "--model", "it's (mine)/net.py:net(8)",
        "--technique", "it's (mine)/tech.py:nothing(2) + int8-dynamic", *QUICK,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr


def test_a_copied_run_has_cells_under_its_own_name(tmp_path: Path, command: Command) -> None:
    write_project(tmp_path)
    assert command("run", "--model", "net.py:net", *QUICK, "--no-report").returncode == 0
    (run,) = (tmp_path / "results").iterdir()
    shutil.copytree(run, run.with_name("before-fix"))
    asked = command("query", "select r.run_id, count(*) as n from runs r join cells c using "
                    "(run_id) group by 1 order by 1", "--json")  # fmt: skip
    rows = json.loads(asked.stdout)["rows"]
    assert rows == [{"run_id": "before-fix", "n": 1}, {"run_id": run.name, "n": 1}]


def test_a_tilde_is_the_home_folder_in_every_path(tmp_path: Path, command: Command) -> None:
    home = tmp_path / "home"
    write_project(home)
    (home / "grid.toml").write_text('[grid]\nmodels = ["~/net.py:net"]\nthreads = [1]\n'
                                    "[budget]\nmax_seconds_per_cell = 0.2\n")  # fmt: skip
    (home / "table.csv").write_text("name,ms\nsmall,1\n")
    (home / "map.toml").write_text('[columns]\nmodel = "name"\n'
                                   'latency_s = {column = "ms", unit = "ms"}\n')  # fmt: skip
    environment = {**os.environ, "HOME": str(home), "PARETOGRID_RESULTS": "~/x"}
    done = command("run", "~/grid.toml", "--reports=~/r", env=environment)
    assert done.returncode == 0, done.stderr
    done = command("import", "csv", "~/table.csv", "--map=~/map.toml", "--results=~/y",
                   env=environment)  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert command("report", "--results=~/y", "--reports=~/z", env=environment).returncode == 0
    assert not (tmp_path / "~").exists()
    assert {"x", "y", "z", "r"} <= {path.name for path in home.iterdir()}


@pytest.mark.parametrize("option", ["--results", "--reports"])
def test_a_folder_that_cannot_be_written_is_told_before_anything_is_measured(
    tmp_path: Path, command: Command, option: str
) -> None:
    write_project(tmp_path)
    (tmp_path / "file").write_text("")
    done = command("run", "--model", "net.py:net", *QUICK, option, "file/inside")
    assert done.returncode == 2
    assert f"Name another folder with {option}." in done.stderr
    assert "Traceback" not in done.stderr
    assert "preparing" not in done.stderr


def test_a_cache_that_cannot_be_written_is_told_before_anything_is_measured(
    tmp_path: Path, command: Command
) -> None:
    write_project(tmp_path)
    (tmp_path / "file").write_text("")
    environment = {**os.environ, "PARETOGRID_CACHE": str(tmp_path / "file" / "cache")}
    done = command("run", "--model", "net.py:net", *QUICK, "--no-report", env=environment)
    assert done.returncode == 2
    assert "PARETOGRID_CACHE" in done.stderr
    assert not list(tmp_path.glob("results/*"))


@pytest.mark.skipif(os.getuid() != 0, reason="only root can become a user without a home folder")
def test_a_user_without_a_home_folder_is_told_which_variable_to_set(tmp_path: Path) -> None:
    code = (
        "import os\nfrom pathlib import Path\n"
        "from harness.commands.measure import _check_folders\n"
        "from harness.errors import UserError\n"
        "os.setgid(54321); os.setuid(54321)\n"
        "try: _check_folders(Path('/tmp/r'), Path('/tmp/p'))\n"
        "except UserError as error: print(error)"
    )
    hidden = ("HOME", "XDG_CACHE_HOME", "PARETOGRID_CACHE")
    for home in ({}, {"HOME": "/"}):
        environment = {k: v for k, v in os.environ.items() if k not in hidden} | home
        done = subprocess.run([sys.executable, "-c", code], env=environment, text=True,
                              capture_output=True, check=False)  # fmt: skip
        assert "PARETOGRID_CACHE" in done.stdout, done.stderr


def test_an_interrupted_run_prints_a_command_that_resumes_it_where_it_was_moved(
    tmp_path: Path,
) -> None:
    here = tmp_path / "here"
    write_project(here)
    runner = start_command(
        here, "run", "--model", "net.py:net", "--batch", "1", "--batch", "4", "--batch", "8",
        "--threads", "1", "--max-seconds-per-cell", "2", "--results", "my out",
        stdout=subprocess.DEVNULL,
    )  # fmt: skip
    while not list(here.glob("my out/*/parts/*.cells.parquet")):
        assert runner.poll() is None
        time.sleep(0.05)
    runner.send_signal(signal.SIGINT)
    told = next(line for line in runner.communicate()[1].splitlines() if "Go on with" in line)
    assert "--results 'my out'" in told
    there = here.rename(tmp_path / "there")
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    lost = subprocess.run([*COMMAND, "resume", "--results", str(there / "my out")], cwd=elsewhere,
                          capture_output=True, text=True, check=False)  # fmt: skip
    assert lost.returncode == 2
    assert "net.py is not here" in lost.stderr
    line = told.partition("paretogrid ")[2]
    resumed = subprocess.run(
        ["bash", "-c", f'"$@" {line}', "bash", *COMMAND], cwd=there,
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert resumed.returncode == 0, resumed.stderr
    (cells,) = there.glob("my out/*/cells.parquet")
    assert list(pd.read_parquet(cells)["status"]) == ["measured"] * 3


def test_names_are_printed_as_they_are_and_a_poor_terminal_gets_question_marks(
    tmp_path: Path, command: Command
) -> None:
    write_project(tmp_path)
    text = (tmp_path / "net.py").read_text() + "\ndef tiger():\n    return net()\n"
    (tmp_path / "zoo.py").write_text(text)
    environment = {**os.environ, "PYTHONIOENCODING": "ascii", "PYTHONUTF8": "0"}
    done = command("run", "--model", "zoo.py:tiger", *QUICK, "--no-report", env=environment)
    assert done.returncode == 0, done.stderr
    assert "zoo.py:tiger:" in done.stderr


def test_the_command_to_go_on_opens_the_run_from_where_it_is_given(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    inside = Run.create(tmp_path / "results", "demo", {})
    outside = Run.create(tmp_path / "copies", "demo", {})
    for run in (inside, outside):
        named = name_run(run, None)
        assert open_run(tmp_path / "results", named).folder == run.folder.resolve()
    assert name_run(inside, None) == inside.run_id
    assert name_run(outside, "copies") == outside.run_id
    assert how_to("resume", "demo-1", None, mixed=True) == "paretogrid resume demo-1 --mixed"
    assert (
        how_to("report", "demo-1", "a b", mixed=True) == "paretogrid report demo-1 --results 'a b'"
    )


@pytest.mark.parametrize("words", [["report"], ["resume"], ["run"]])
def test_a_name_too_long_for_a_file_is_a_message(
    command: Callable[..., subprocess.CompletedProcess[str]], words: list[str]
) -> None:
    told = command(*words, "x" * 300)
    assert told.returncode == 2
    assert told.stderr.startswith("paretogrid: No ")


@pytest.mark.parametrize("where", ["at the top", "in the function"])
def test_a_file_may_change_the_working_folder_beside_relative_paths_of_others(
    tmp_path: Path, command: Command, where: str
) -> None:
    """The next model, a technique and the cache are where they were meant to be."""
    write_project(tmp_path)
    (tmp_path / "inner").mkdir()
    (tmp_path / "inner" / "scale.txt").write_text("2")
    top, inside = ("os.chdir('inner')", "") if where == "at the top" else ("", "os.chdir('inner')")
    (tmp_path / "mover.py").write_text(f"""
import os, pathlib
import torch
from torch import nn
{top}
class Reads(nn.Module):
    def forward(self, x):
        return x * float(pathlib.Path("scale.txt").read_text())
def net():
    {inside}
    return Reads(), torch.ones(2, 8)
""")
    asked = ("--model", "mover.py:net", "--model", "net.py:net", "--technique", "baseline",
             "--technique", "tech.py:nothing")  # fmt: skip
    done = command("run", *asked, *QUICK, env={**os.environ, "PARETOGRID_CACHE": "kept"})
    assert done.returncode == 0, done.stderr
    assert "4 cells: 4 measured" in done.stdout
    assert not (tmp_path / "inner" / "kept").exists()
    assert [*(tmp_path / "kept" / "variants").iterdir()]
