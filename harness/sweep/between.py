"""What sessions differ by on this machine, as its heats have shown; kept in the cache.

A heat has few sessions: how far those are apart that there could be, they tell with much doubt.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from math import log
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from harness.durable import remember
from harness.grid import BASELINE
from harness.likeness import compare_work
from harness.repeats import RUN_SPREAD, Between, Known, find_sessions
from harness.sweep.heat import pair_sessions
from harness.sweep.seat import Seat, TimedHeat, find_baseline

VERSION = 2
ANY = "any"
USUAL = Between(Known(0.02**2, 4.0, RUN_SPREAD**2), Known(0.05**2, 4.0))
"""What is taken to be known of a machine on which nothing was timed yet, and how little it counts:
what sessions differed by on two processors of a shared host (docs/instrument.md)."""
LEAST = 0.001**2
"""No machine is as steady as to differ by less."""
MOST_SESSIONS = 30.0
"""As more than so many the earlier ones of the same cells never count: a machine changes."""
MOST_OF_OTHERS = 4.0
"""The same for those of other cells: what sessions differ by is ten times as much for some."""
MOST_COMPANIES = 500
"""So many are remembered; those that were timed longest ago are forgotten."""
MOST_LEVELS = 100
"""Of so many heats it is known how fast the machine was."""
MOST_FREE = 400.0
"""When so much is known, half is forgotten: a machine changes over the months."""
WILDEST = 25.0
"""A heat counts as no further apart than so many times the variance that was known."""
UNLIKE = 0.2
"""Pairs with less of their work apart than this tell little."""


@dataclass(frozen=True)
class Shown:
    """What sessions have shown: squares beyond what rounds and processes explain, of how many."""

    total: float = 0.0
    free: float = 0.0

    def plus(self, other: Shown) -> Shown:
        """Return both together; half of it where it has become too much."""
        share = 0.5 if self.free + other.free > MOST_FREE else 1.0
        return Shown(share * (self.total + other.total), share * (self.free + other.free))

    def after(self, known: Known, most: float) -> Known:
        """Return what is known by them and by what was before, as so many sessions at the most.

        The more there are the less counts what was before: it is of other cells or machines.
        """
        before = known.sessions**2 / (known.sessions + self.free)
        count = before + self.free
        variance = (before * known.variance + self.total) / count
        return Known(max(LEAST, variance), min(count, most), known.shared)


def between_file(folder: Path, known_as: str, place: str) -> Path:
    """Return where it is kept of a machine (its fingerprint) in a place (cpu-1)."""
    return folder / "sessions" / known_as / f"{place.replace(':', '-')}.json"


def name_company(seats: Sequence[Seat]) -> str:
    """Return what stands for the cells that all others of a heat are compared with, by their work.

    The ratios of a heat wander together, with its baselines.
    """
    references = [seat for seat in seats if seat.cell.technique == BASELINE] or seats
    works = sorted(json.dumps(seat.work, sort_keys=True) for seat in references)
    return hashlib.sha256("\n".join(works).encode()).hexdigest()[:16]


def read_between(path: Path, company: str) -> Between:
    """Return what is known of a company; where there is no file, or another's, what is usual."""
    kept = _read(path)
    work = kept.shown[ANY].after(USUAL.work, MOST_OF_OTHERS)
    own = kept.shown.get(company, Shown())
    speed = find_excess(kept.levels, np.zeros(len(kept.levels)), float("inf"))
    return Between(
        own.after(work, MOST_SESSIONS) if own.free else work,
        speed.after(USUAL.speed, MOST_SESSIONS) if speed.free else USUAL.speed,
    )


def note_between(path: Path, company: str, timed: TimedHeat) -> None:
    """Add to a file what a heat shows: how far its sessions are apart, and how fast it was."""
    found, kept = find_between(timed, read_between(path, company).work), _read(path)
    shown = kept.shown
    if found.free:
        own = shown.pop(company, Shown()).plus(found)
        companies = [*((name, one) for name, one in shown.items() if name != ANY), (company, own)]
        shown = {ANY: shown[ANY].plus(found)} | dict(companies[-MOST_COMPANIES:])
    control = [log(one) for one in timed.control.medians().values()]
    levels = [*kept.levels, *([median(control)] if control else [])]
    if found.free or control:
        told = {"levels": levels[-MOST_LEVELS:], "shown": {n: asdict(o) for n, o in shown.items()}}
        remember(path, json.dumps({"version": VERSION, **told}))


def find_between(timed: TimedHeat, known: Known) -> Shown:
    """Return what the sessions of a heat show of the ratios of unlike cells.

    All pairs together as much as one of them: it may be their baseline that wanders.
    """
    pairs = []
    for seat in timed.seats:
        baseline = find_baseline(timed.seats, seat.cell)
        if baseline is None or baseline is seat or not (seat.member and baseline.member):
            continue
        apart = 1 - compare_work(seat.work, baseline.work)
        if apart < UNLIKE:
            continue
        sessions, errors = pair_sessions(seat.member, baseline.member, timed.process_spread)
        values, own = find_sessions(sessions)
        one = find_excess(values, np.hypot(own, errors), known.variance * apart)
        if one.free:
            pairs.append((one.total / apart, one.free))
    return Shown(*map(float, np.mean(pairs, axis=0))) if pairs else Shown()


def find_excess(values: ArrayLike, errors: ArrayLike, known: float) -> Shown:
    """Return the squares of sessions about their mean, beyond those of their errors.

    Without a bias, and so they may be negative; nothing of fewer than two, or without errors.
    """
    seen, own = np.asarray(values, dtype=np.float64), np.asarray(errors, dtype=np.float64)
    free = seen.size - 1
    if free < 1 or not np.isfinite(own).all():
        return Shown()
    squares = float(((seen - seen.mean()) ** 2).sum() - free * (own**2).mean())
    return Shown(min(squares, free * WILDEST * known), float(free))


@dataclass(frozen=True)
class Kept:
    """What a file holds.

    levels: of each heat the logarithm of the control's median block, the latest last. shown: by any
    cells, and by each company, the one that was timed last at the end.
    """

    levels: Sequence[float] = ()
    shown: dict[str, Shown] = field(default_factory=lambda: {ANY: Shown()})


def _read(path: Path) -> Kept:
    with contextlib.suppress(OSError, ValueError, KeyError, TypeError, AttributeError):
        told: dict[str, Any] = json.loads(path.read_text())
        if told["version"] == VERSION:
            shown = {name: Shown(**one) for name, one in told["shown"].items()}
            return Kept([float(one) for one in told["levels"]], {ANY: shown.pop(ANY)} | shown)
    return Kept()
