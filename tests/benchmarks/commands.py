"""Runs as their users start them: what the benchmarks of whole commands share."""

import os
import subprocess
import sys
from pathlib import Path

from harness.store import Run


def run_grid(folder: Path, grid: str, code: Path | None = None) -> Run:
    """Return a run of a grid, measured by the command; its results lie in the folder.

    code: another checkout, whose command it is.
    """
    (folder / "grid.toml").write_text(grid)
    command = [sys.executable, "-m", "paretogrid", "run", "grid.toml", "--no-report"]
    env = os.environ | ({"PYTHONPATH": str(code)} if code else {})
    subprocess.run(command, cwd=folder, env=env, check=True, capture_output=True)
    (made,) = (folder / "results").iterdir()
    return Run(made.rename(folder / made.name))


def as_toml(names: tuple[str, ...] | list[str]) -> str:
    """Return names as a list of TOML."""
    return str([*names]).replace("'", '"')
