"""The scripts of tests/benchmarks, which no other test runs, still run."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

FOLDER = Path(__file__).parent / "benchmarks"
SCRIPTS = sorted(path.name for path in FOLDER.glob("*.py") if "ArgumentParser(" in path.read_text())


def run_script(name: str, *arguments: str) -> str:
    done = subprocess.run(
        [sys.executable, str(FOLDER / name), *arguments],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.workers
@pytest.mark.parametrize("name", SCRIPTS)
def test_a_script_says_how_it_is_used(name: str) -> None:
    assert "usage: " in run_script(name, "--help")


@pytest.mark.workers
def test_a_run_of_any_size_is_written_joined_and_shown() -> None:
    told = run_script("scale.py", "--cells", "60", "--samples", "400")
    assert told.count("report") == 2
