"""The outcome: how a run ended, and where everything is."""

from __future__ import annotations

from harness.console.streams import out
from harness.decide.frame import Frame
from harness.store import Run
from harness.wording import counted


def print_outcome(frame: Frame, made: Run, page: str) -> None:
    """Print how many cells were measured, why others were not, and where everything is."""
    counts = frame.cells["status"].value_counts()
    told = ", ".join(f"{count} {status}" for status, count in counts.items())
    out.print(f"{counted(len(frame.cells), 'cell')}: {told}")
    for kind in ("failed", "skipped"):
        reasons = frame.cells[frame.cells["status"] == kind].groupby("message", sort=False).size()
        for message, count in reasons.items():
            out.print(f"  {kind} ({count}): {message}")
    out.print(f"Results: {made.folder / 'cells.parquet'}")
    out.print(f"Report:  {page}")
