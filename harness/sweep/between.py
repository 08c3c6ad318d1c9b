"""What sessions differ by on this machine, as its heats have shown; kept in the cache.

A heat has few sessions: how far those are apart that there could be, they tell with much doubt.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from harness.durable import remember
from harness.likeness import compare_work
from harness.repeats import Between, Known, find_sessions
from harness.sweep.heat import pair_sessions
from harness.sweep.seat import TimedHeat, find_baseline

VERSION = 1
USUAL = Between(Known(0.02**2, 4.0), Known(0.05**2, 4.0))
"""What is taken to be known of a machine on which nothing was timed yet, and how little it counts:
what sessions differed by on two processors of a shared host (docs/instrument.md)."""
LEAST = 0.001**2
"""No machine is as steady as to differ by less."""
MOST_SESSIONS = 30.0
"""As more than so many the earlier ones never count: cells are not all alike."""
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

    def with_usual(self, usual: Known) -> Known:
        """Return what is known by them and by what is usual."""
        count = usual.sessions + self.free
        variance = (usual.sessions * usual.variance + self.total) / count
        return Known(max(LEAST, variance), min(count, MOST_SESSIONS))


def between_file(folder: Path, known_as: str, place: str) -> Path:
    """Return where it is kept of a machine (its fingerprint) in a place (cpu-1)."""
    return folder / "sessions" / known_as / f"{place.replace(':', '-')}.json"


def read_between(path: Path) -> Between:
    """Return what is known; where there is no file, or another's, what is usual."""
    shown = _read(path)
    return Between(shown["work"].with_usual(USUAL.work), shown["speed"].with_usual(USUAL.speed))


def note_between(path: Path, timed: TimedHeat) -> None:
    """Add to a file what the sessions of a heat show."""
    found, known = find_between(timed, read_between(path)), _read(path)
    if not any(one.free for one in found.values()):
        return
    kept = {name: known[name].plus(one) for name, one in found.items()}
    told = {name: {"total": one.total, "free": one.free} for name, one in kept.items()}
    remember(path, json.dumps({"version": VERSION, **told}))


def find_between(timed: TimedHeat, known: Between) -> dict[str, Shown]:
    """Return what the sessions of a heat show of ratios of unlike cells, and of the speed."""
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
        one = find_excess(values, np.hypot(own, errors), known.work.variance * apart)
        pairs.append(Shown(one.total / apart, one.free))
    levels = timed.rounds.split.levels()
    return {
        "work": _average([one for one in pairs if one.free]),
        "speed": find_excess(*levels, known.speed.variance),
    }


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


def _average(pairs: list[Shown]) -> Shown:
    """Return what pairs with one baseline show: their squares have a quarter in common."""
    if not pairs:
        return Shown()
    count = len(pairs) / (1 + (len(pairs) - 1) / 4)
    total = sum(one.total for one in pairs) / len(pairs)
    free = sum(one.free for one in pairs) / len(pairs)
    return Shown(count * total, count * free)


def _read(path: Path) -> Mapping[str, Shown]:
    with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
        kept: dict[str, Any] = json.loads(path.read_text())
        if kept["version"] == VERSION:
            return {name: Shown(**kept[name]) for name in ("work", "speed")}
    return {"work": Shown(), "speed": Shown()}
