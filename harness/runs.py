"""Runs: where a store's runs are, and which one is meant."""

from __future__ import annotations

import json
import os
from pathlib import Path

from bench.errors import suggest
from harness.errors import UserError
from harness.paths import is_there, read_path
from harness.store import Run


def results_folder(given: str | None = None) -> Path:
    """Return the store: as given, PARETOGRID_RESULTS, or ./results."""
    return read_path(given or os.environ.get("PARETOGRID_RESULTS") or "results")


def open_run(root: Path, run_id: str | None) -> Run:
    """Return a run of the store, the latest where none is named; raise UserError if absent."""
    if run_id is not None and is_there(read_path(run_id) / "run.json", Path.is_file):
        return Run(read_path(run_id).resolve())
    known = list_runs(root)
    if not known:
        raise UserError(f"No runs in {root}. `paretogrid run demo` makes one.")
    if run_id is None or run_id == "latest":
        return Run(root / known[-1])
    if run_id in known:
        return Run(root / run_id)
    raise UserError(
        f"No run {run_id!r} in {root}.{suggest(run_id, known)} The latest is {known[-1]!r}."
    )


def list_runs(root: Path) -> list[str]:
    """Return the runs of a store, the oldest first."""
    if not is_there(root, Path.is_dir):
        return []
    names = [path.parent.name for path in root.glob("*/run.json")]
    # Runs of one second are numbered: demo-…-9 comes before demo-…-10.
    return sorted(names, key=lambda name: (_created_at(root / name), len(name), name))


def _created_at(folder: Path) -> str:
    try:
        return str(json.loads((folder / "run.json").read_text()).get("created_at", ""))
    except (OSError, ValueError):
        return ""
