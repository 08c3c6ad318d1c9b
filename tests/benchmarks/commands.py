"""Runs as their users start them: what the benchmarks of whole commands share."""

import os
import subprocess
import sys
from pathlib import Path

from harness.store import Run

THEIR_COMMAND = "from harness.cli import main; main()"
"""Not by the module's name: this installation's would find its own packages."""


def run_grid(folder: Path, grid: str, code: Path | None = None) -> Run:
    """Return a run of a grid, measured by the command; its results lie in the folder.

    code: another checkout, whose command it is.
    """
    (folder / "grid.toml").write_text(grid)
    start = ["-m", "paretogrid"] if code is None else ["-P", "-c", THEIR_COMMAND]
    # An old command writes its report in any case.
    command = [sys.executable, *start, "run", "grid.toml", *(["--no-report"] if not code else [])]
    env = os.environ | ({} if code is None else {"PYTHONPATH": find_path(code)})
    subprocess.run(command, cwd=folder, env=env, check=True, capture_output=True)
    (made,) = (folder / "results").iterdir()
    return Run(made.rename(folder / made.name))


def find_path(code: Path) -> str:
    """Return the PYTHONPATH on which a checkout's packages, and its way in, are found first."""
    return os.pathsep.join(map(str, (code.resolve(), code.resolve() / "harness" / "entry")))


def as_toml(names: tuple[str, ...] | list[str]) -> str:
    """Return names as a list of TOML."""
    return str([*names]).replace("'", '"')
