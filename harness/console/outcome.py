"""The outcome: how a run ended, and where everything is."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import Any

import pandas as pd

from harness.console.streams import out
from harness.decide.frame import Frame
from harness.store import Run
from harness.sweep.heat import DECISION
from harness.wording import counted

MOST_WARNINGS = 3


def print_outcome(frame: Frame, made: Run, page: str) -> None:
    """Print how many cells were measured, why others were not, and where everything is."""
    counts = frame.cells["status"].value_counts()
    told = ", ".join(f"{count} {status}" for status, count in counts.items())
    out.print(f"{counted(len(frame.cells), 'cell')}: {told}")
    for kind in ("failed", "skipped"):
        reasons = frame.cells[frame.cells["status"] == kind].groupby("message", sort=False).size()
        for message, count in reasons.items():
            out.print(f"  {kind} ({count}): {message}")
    for warning, count in count_warnings(frame.cells).items():
        out.print(f"  warning ({count}): {warning}")
    if saved := tell_saved(frame.cells, made.facts()):
        out.print(saved)
    out.print(f"Results: {made.folder / 'cells.parquet'}")
    out.print(f"Report:  {page}")


def count_warnings(cells: pd.DataFrame) -> dict[str, int]:
    """Return the commonest warnings of cells, with how many have each; the rest in one line."""
    told = Counter(text for warnings in cells["warnings"].dropna() for text in warnings)
    found = dict(told.most_common(MOST_WARNINGS))
    rest = sum(told.values()) - sum(found.values())
    return found | ({"others, in the report": rest} if rest else {})


def tell_saved(cells: pd.DataFrame, facts: Mapping[str, Any]) -> str:
    """Say how long cells were timed whose place was known early; nothing where none was."""
    early = cells[cells["stopped_by"] == DECISION]
    if early.empty:
        return ""
    spent_s = float(early["timed_s"].sum())
    of_all = f"{len(early)} of {counted(len(cells), 'cell')}"
    told = f"Timed until their place, or a tie, was known: {of_all}"
    budget = facts["plan"]["grid"]["budget"]
    if budget.get("max_seconds") is not None:
        return f"{told}, for {spent_s:.1f} s"
    whole_s = len(early) * budget["max_seconds_per_cell"]
    return f"{told}, for {spent_s:.1f} s of {whole_s:.1f} s that they might have taken"
