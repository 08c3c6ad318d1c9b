"""One bad cell costs one cell: a mistake of ours, few descriptors, threads that are taken away."""

from __future__ import annotations

import json
import os
import resource
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from harness.grid_file import parse_grid
from harness.store import Run, read_cells
from harness.sweep import conclude, runner
from harness.sweep.launcher import Launcher
from harness.sweep.plan import resolve
from harness.sweep.progress import Progress
from harness.sweep.runner import Sweep
from tests.start import COMMAND

Measure = Callable[..., pd.DataFrame]
NETS = """
import torch
from torch import nn
def small():
    return nn.Linear(8, 8), torch.randn(2, 8)
def large():
    return nn.Sequential(*(nn.Linear(1024, 1024) for _ in range(2))), torch.randn(256, 1024)
"""


def test_a_mistake_of_ours_about_a_cell_is_told_and_the_others_go_on(
    measure: Measure, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "nets.py"
    file.write_text(NETS)
    right = conclude.conclude

    def fails(timed: Any, seat: Any, *rest: Any) -> Any:
        if seat.cell.technique == "bf16":
            raise ZeroDivisionError("of our making")
        return right(timed, seat, *rest)

    monkeypatch.setattr(conclude, "conclude", fails)
    cells = measure(models=[f"{file}:small"], techniques=["bf16", "int8-dynamic"])
    rows = cells.set_index("technique")
    assert rows.loc["bf16", "failure_kind"] == "internal"
    assert "ZeroDivisionError: of our making" in rows.loc["bf16", "message"]
    assert "report" in rows.loc["bf16", "message"]
    assert list(rows.loc[["baseline", "int8-dynamic"], "status"]) == ["measured"] * 2


def test_a_model_that_is_none_costs_its_own_cells_only(measure: Measure, tmp_path: Path) -> None:
    none = "def none():\n    return nn.Linear(8, 8), {'x': torch.randn(2, 8)}\n"
    (tmp_path / "nets.py").write_text(NETS + none)
    cells = measure(models=[f"{tmp_path}/nets.py:none", f"{tmp_path}/nets.py:small"],
                    techniques=["bf16"])  # fmt: skip
    assert cells["status"].value_counts().to_dict() == {"failed": 2, "measured": 2}
    failed = cells[cells["status"] == "failed"]
    assert failed["message"].str.contains("as a tuple in the order of forward").all()


def test_a_mistake_of_ours_about_answers_is_each_cell_s_that_has_them(
    measure: Measure, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "nets.py").write_text(NETS)
    monkeypatch.setattr(conclude, "judge_answers", lambda *_: 1 / 0)
    cells = measure(models=[f"{tmp_path}/nets.py:small"], techniques=["bf16"])
    assert set(cells["failure_kind"]) == {"internal"}
    assert cells["message"].str.contains("ZeroDivisionError").all()


CHECKED = """
from bench import technique

def divide(subject, **_):
    1 / (sum(p.numel() for p in subject.module.parameters()) - 72)

@technique("odd", check=divide)
def odd(subject):
    return subject
"""


def test_a_check_that_breaks_for_one_model_costs_that_model_s_cells(
    measure: Measure, tmp_path: Path
) -> None:
    (tmp_path / "nets.py").write_text(NETS)
    (tmp_path / "odd.py").write_text(CHECKED)
    cells = measure(
        models=[f"{tmp_path}/nets.py:small", f"{tmp_path}/nets.py:large"],
        techniques=["odd"], plugins=[f"{tmp_path}/odd.py"],
    )  # fmt: skip
    found = {(row["model"][-5:], row["technique"]): row for row in cells.to_dict("records")}
    assert "ZeroDivisionError" in found["small", "odd"]["message"]
    assert [key for key, row in found.items() if row["status"] != "measured"] == [("small", "odd")]


def test_a_mistake_of_ours_about_a_heat_costs_that_heat_and_resume_has_nothing_left(
    launcher: Launcher, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "nets.py"
    file.write_text(NETS)
    grid = parse_grid(
        {"grid": {"models": [f"{file}:small"], "batch": [1, 2]},
         "budget": {"max_seconds_per_cell": 0.2}}, "the test",
    )  # fmt: skip
    plan = resolve(grid, launcher, "the test")
    made = Run.create(tmp_path / "results", "test", {"plan": plan.to_json()})
    monkeypatch.setattr(runner, "Crew", lambda *_: 1 / 0)
    Sweep(plan, made, launcher, Progress()).measure()
    assert set(read_cells(made)["failure_kind"]) == {"internal"}
    assert made.finished() == {cell.id for cell in plan.grid.expand()}


@pytest.mark.workers
def test_a_heat_is_split_where_there_are_few_descriptors(tmp_path: Path) -> None:
    (tmp_path / "nets.py").write_text(NETS)
    techniques = [f"prune-magnitude({share / 10})" for share in range(1, 9)]
    options = [text for name in techniques for text in ("--technique", name)]
    done = subprocess.run(
        [*COMMAND, "run", "--model", "nets.py:small", *options, "--threads", "1",
         "--max-seconds-per-cell", "0.1"],
        cwd=tmp_path, capture_output=True, text=True, check=False,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_NOFILE, (60, 60)),
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    (file,) = tmp_path.glob("results/*/cells.parquet")
    cells = pd.read_parquet(file)
    assert list(cells["status"]) == ["measured"] * 9
    assert cells["heat"].nunique() > 1


@pytest.mark.workers
@pytest.mark.skipif(len(os.sched_getaffinity(0)) < 2, reason="needs two processors")
@pytest.mark.parametrize("limit", ["OMP_THREAD_LIMIT=1", "OMP_NUM_THREADS=2"])
def test_threads_that_openmp_takes_away_are_a_warning(tmp_path: Path, limit: str) -> None:
    (tmp_path / "nets.py").write_text(NETS)
    name, _, value = limit.partition("=")
    done = subprocess.run(
        [*COMMAND, "run", "--model", "nets.py:large", "--threads", "2", "--batch", "256",
         "--max-seconds-per-cell", "0.2"],
        cwd=tmp_path, capture_output=True, text=True, check=False, env={**os.environ, name: value},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    (file,) = tmp_path.glob("results/*/cells.parquet")
    (row,) = pd.read_parquet(file).to_dict("records")
    taken = "2 threads asked for, 1 in effect" in " ".join(row["warnings"])
    assert taken == (name == "OMP_THREAD_LIMIT")
    assert row["threads_in_effect"] == (1 if taken else 2)
    if taken:
        assert limit in " ".join(row["warnings"])


@pytest.mark.workers
def test_packages_of_our_names_on_the_path_do_not_replace_ours(tmp_path: Path) -> None:
    for name in ("bench", "harness"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "__init__.py").write_text("raise SystemError('not ours')")
    (tmp_path / "nets.py").write_text(NETS)
    done = subprocess.run(
        [sys.executable, "-m", "paretogrid", "inspect", "nets.py:small", "--json"],
        cwd=tmp_path, capture_output=True, text=True, check=False,
        env={**os.environ, "PYTHONPATH": str(tmp_path)},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["layers"][0]["params"] == 72


def test_a_package_in_the_working_folder_is_importable_and_one_elsewhere_is_hinted_at(
    tmp_path: Path, command: Callable[..., subprocess.CompletedProcess[str]]
) -> None:
    (tmp_path / "mypkg").mkdir()
    (tmp_path / "mypkg" / "__init__.py").write_text("WIDTH = 8")
    (tmp_path / "benchmarks").mkdir()
    (tmp_path / "benchmarks" / "entry.py").write_text(
        "import mypkg, torch\ndef net():\n"
        "    return torch.nn.Linear(8, mypkg.WIDTH), torch.randn(2, 8)\n"
    )
    assert command("inspect", "benchmarks/entry.py:net").returncode == 0
    (tmp_path / "mypkg").rename(tmp_path / "elsewhere")
    told = command("inspect", "benchmarks/entry.py:net")
    assert told.returncode == 2
    assert "PYTHONPATH=" in told.stderr
    (tmp_path / "own.py").write_text("from bench import Mine")
    assert "give yours" not in command("inspect", "own.py:net").stderr  # there is none of his
    (tmp_path / "bench.py").write_text("class Mine: ...")
    assert "give yours another name" in command("inspect", "own.py:net").stderr
