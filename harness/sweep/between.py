"""What sessions and runs differ by on this machine, as its heats have shown; kept in the cache.

A heat has few sessions: how far those are apart that there could be, they tell with much doubt; and
what they share, which another run has not, they do not tell at all.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from math import log
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np

from harness.durable import remember
from harness.grid import BASELINE
from harness.repeats import Between, Known
from harness.sweep.apart import Shown, Steps, find_between, find_excess, find_pairs, find_steps
from harness.sweep.seat import Seat, TimedHeat

VERSION = 3
ANY = "any"
USUAL = Between(Known(0.02**2, 4.0, 0.004**2, 4.0), Known(0.05**2, 4.0))
"""What is taken to be known of a machine on which nothing was timed yet, and how little it counts:
what sessions and runs differed by on two processors of a shared host (docs/instrument.md)."""
MOST_SESSIONS = 30.0
"""As more than so many the earlier ones of the same cells never count: a machine changes."""
MOST_OF_OTHERS = 4.0
"""The same for those of other cells: what sessions differ by is ten times as much for some."""
MOST_COMPANIES = 500
"""So many are remembered; those that were timed longest ago are forgotten."""
MOST_LEVELS = 100
"""Of so many heats it is known how fast the machine was."""
MOST_PAIRS = 100
"""Of so many pairs of a company it is known what their last run told."""


@dataclass(frozen=True)
class Company:
    """What the cells that are compared with the same baselines have shown.

    latest: of each pair what its last run told, as `Pair.mean` does.
    """

    sessions: Shown = field(default_factory=Shown)
    runs: Steps = field(default_factory=Steps)
    latest: Mapping[str, Sequence[float]] = field(default_factory=dict)

    def after(self, known: Known, most: float) -> Known:
        """Return what is known by them and by what was before, as so many of each at the most."""
        variance, sessions = self.sessions.after(known.variance, known.sessions, most)
        shared, runs = self.runs.after(known.shared, known.runs, variance, most)
        return Known(variance, sessions, shared, runs)

    def plus(self, other: Company) -> Company:
        """Return both together, of which the other is the later one."""
        latest = dict([*self.latest.items(), *other.latest.items()][-MOST_PAIRS:])
        return Company(self.sessions.plus(other.sessions), self.runs.plus(other.runs), latest)


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
    own = kept.shown.get(company)
    speed = find_excess(kept.levels, np.zeros(len(kept.levels)), float("inf"))
    count = USUAL.speed.variance, USUAL.speed.sessions, MOST_SESSIONS
    return Between(
        own.after(work, MOST_SESSIONS) if own else work,
        Known(*speed.after(*count)) if speed.free else USUAL.speed,
    )


def note_between(path: Path, company: str, timed: TimedHeat) -> None:
    """Add to a file what a heat shows: how far its sessions are apart, and how fast it was."""
    kept = _read(path)
    shown, before = kept.shown, kept.shown.get(company, Company())
    pairs = list(find_pairs(timed))
    known = read_between(path, company).work
    found = Company(
        find_between(pairs, known.variance),
        find_steps(pairs, before.latest, known.variance + known.shared),
        {pair.name: pair.mean() for pair in pairs},
    )
    if pairs:
        shown.pop(company, None)
        companies = [(name, one) for name, one in shown.items() if name != ANY]
        everyone = shown[ANY].plus(replace(found, latest={}))
        companies = [*companies, (company, before.plus(found))][-MOST_COMPANIES:]
        shown = {ANY: everyone} | dict(companies)
    control = [log(one) for one in timed.control.medians().values()]
    levels = [*kept.levels, *([median(control)] if control else [])]
    if pairs or control:
        told = {"levels": levels[-MOST_LEVELS:], "shown": {n: asdict(o) for n, o in shown.items()}}
        remember(path, json.dumps({"version": VERSION, **told}))


@dataclass(frozen=True)
class Kept:
    """What a file holds.

    levels: of each heat the logarithm of the control's median block, the latest last. shown: by any
    cells, and by each company, the one that was timed last at the end.
    """

    levels: Sequence[float] = ()
    shown: dict[str, Company] = field(default_factory=lambda: {ANY: Company()})


def _read(path: Path) -> Kept:
    with contextlib.suppress(OSError, ValueError, KeyError, TypeError, AttributeError):
        told: dict[str, Any] = json.loads(path.read_text())
        if told["version"] == VERSION:
            shown = {name: _company(**one) for name, one in told["shown"].items()}
            return Kept([float(one) for one in told["levels"]], {ANY: shown.pop(ANY)} | shown)
    return Kept()


def _company(sessions: Any, runs: Any, latest: Any) -> Company:
    return Company(Shown(**sessions), Steps(**runs), dict(latest))
