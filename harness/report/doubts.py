"""Doubts: what a reader should know before believing a run's figures."""

from __future__ import annotations

import pandas as pd

from harness.record import SLOW_SPEED
from harness.wording import counted


def find_doubts(cells: pd.DataFrame) -> list[str]:
    """Return what a reader should know before believing the cells, a sentence each."""
    found = []
    whole = cells[cells["status"] != "partial"] if "status" in cells else cells
    if "stopped_by" in whole:
        whole = whole[whole["stopped_by"] != "decision"]
    wide = int(whole["interval_reached"].eq(False).sum())
    for count, what in (
        (
            _count(cells, "status", "partial"),
            "were not timed to the end: `paretogrid resume` goes on where the run has ended",
        ),
        (wide, "spent their budget before the interval was as narrow as asked"),
        (_count(cells, "oversubscribed", True), "had more running threads than processors"),
        (_count(cells, "headline_blocks", "loaded"), "were measured beside other work throughout"),
        (_count(cells, "headline_blocks", "all"), "had too few undisturbed blocks: all are taken"),
        (
            _count(cells, "settled", False),
            "drifted by more than 5 %, beyond what the machine did",
        ),
        (
            _count(cells, "sessions", 1),
            "were timed in one session: what others would differ by is what earlier ones of this "
            "machine did, or what is usual",
        ),
        (_count(cells, "together", False), "were too big to be alive together with their baseline"),
    ):
        if count:
            found.append(f"{count} of {counted(len(cells), 'cell')} {_agree(count, what)}.")
    found += _doubt_speed(cells)
    if "disturbed_share" in cells and cells["disturbed_share"].notna().any():
        share = _share_of_blocks(cells, "disturbed_share")
        found.append(f"{share:.1%} of all blocks were disturbed; they are kept and marked.")
    return found


def _share_of_blocks(cells: pd.DataFrame, column: str) -> float:
    """Return the mean of a share of each cell's blocks, by how many rounds it was timed in."""
    known = cells[cells[column].notna()]
    rounds = known.reindex(columns=["rounds"])["rounds"].astype(float).fillna(0.0)
    weights = rounds if rounds.sum() > 0 else rounds + 1
    return float((known[column].astype(float) * weights).sum() / weights.sum())


def _doubt_speed(cells: pd.DataFrame) -> list[str]:
    speeds = cells["machine_speed"].dropna() if "machine_speed" in cells else pd.Series(dtype=float)
    slow = speeds[speeds < SLOW_SPEED]
    if slow.empty:
        return []
    lowest, highest = (f"{share:.0%}" for share in (slow.min(), slow.max()))
    shares = lowest if lowest == highest else f"{lowest} to {highest}"
    were = _agree(len(slow), "were timed")
    return [
        f"{len(slow)} of {counted(len(cells), 'cell')} {were} while the machine ran at {shares} of "
        "the fastest it was seen at: ratios hold, latencies are longer by as much."
    ]


def _agree(count: int, what: str) -> str:
    """Return what so many have in common, in the singular for one."""
    for plural, singular in (("were ", "was "), (" their ", " its ")) if count == 1 else ():
        what = what.replace(plural, singular)
    return what


def _count(cells: pd.DataFrame, column: str, value: object) -> int:
    return int((cells[column] == value).sum()) if column in cells else 0
