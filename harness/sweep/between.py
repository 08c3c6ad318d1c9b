"""What sessions and runs differ by on this machine, as its heats have shown; kept in the cache.

A heat has few sessions: how far those are apart that there could be, they tell with much doubt; and
what they share, which another run has not, they do not tell at all.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
from collections.abc import Collection, Mapping, Sequence
from dataclasses import astuple, dataclass, field
from math import log
from operator import attrgetter
from pathlib import Path
from statistics import geometric_mean, median
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from harness.durable import remember
from harness.grid import BASELINE, Measure
from harness.known import Between, Known, learn_variance
from harness.stats import robust_deviation
from harness.sweep.apart import Pair, Shown, Told, find_others, find_pairs, find_shown
from harness.sweep.seat import Seat, TimedHeat

VERSION = 5
SESSIONS, RUNS = "sessions", "runs"
"""What a heat tells of: how far its sessions are apart, and how far its run is from the last."""
USUAL = Between(Known(0.02**2, 4.0, 0.004**2, 4.0), Known(0.05**2, 4.0))
"""What is taken to be known of a machine on which nothing was timed yet, and how little it counts:
what sessions and runs differed by on two processors of a shared host (docs/instrument.md)."""
LEAST = 0.001**2
"""No machine is as steady as to differ by less."""
MOST_SESSIONS = 30.0
"""As more than so many the earlier ones of the same cells never count: a machine changes."""
MOST_OF_OTHERS = 4.0
"""The same for those of other cells: what sessions differ by is ten times as much for some."""
MOST_HEATS = 20
"""So many of a company are remembered."""
MOST_COMPANIES = 200
"""So many are remembered; those that were timed longest ago are forgotten."""
OTHERS = 20
"""What is usual of a machine's cells is taken from so many companies, the last ones."""
MOST_PAIRS = 30
"""Of so many pairs of a company it is known what their last run told."""
MOST_LEVELS = 100
"""Of so many heats it is known how fast the machine was."""
AT_REFERENCE = 0.05, 0.95
"""The least and the largest share of a ratio's variance that is the reference's doing."""
FURTHEST_LEVEL = 5.0
"""A heat's speed counts as no further from the others' than so many deviations..."""
FEW_LEVELS = 0.1
"""...if that is no larger a share of them."""


@dataclass(frozen=True)
class Company:
    """What the cells that are compared with the same baselines have shown, heat by heat.

    told: of each pair what its runs told. variance, shared: of `Known`, as they were learnt.
    """

    heats: Sequence[Shown] = ()
    told: Mapping[str, Told] = field(default_factory=dict)
    variance: float = USUAL.work.variance
    shared: float = USUAL.work.shared

    def learn(self, known: Known) -> Known:
        """Return what is known by its heats and by what was before."""
        if not self.heats:
            return known
        told = np.array([astuple(one) for one in self.heats])
        squares, error, free, step, step_error, step_sessions, steps, *others = told.T
        variance, sessions = _learn(known.variance, known.sessions, squares, error, free)
        explained = step_error + step_sessions * variance
        shared, runs = _learn(known.shared, known.runs, step, explained, steps)
        # Of two cells that are not the reference; each of these has half of what both have.
        both, _ = _learn(variance, known.sessions, *others)
        at_reference = float(np.clip(1 - both / 2 / variance, *AT_REFERENCE))
        return Known(variance, sessions, shared, runs, at_reference)

    def after(self, shown: Shown, pairs: Sequence[Pair], usual: Known) -> Company:
        """Return it after another heat."""
        heats = self.heats
        if shown.free or shown.steps:  # the last ones of each kind: single sessions tell of steps
            all_ = [*heats, shown]
            last = [one for one in all_ if one.free][-MOST_HEATS:]
            last += [one for one in all_ if one.steps][-MOST_HEATS:]
            heats = [one for one in all_ if any(one is each for each in last)]
        known = self.learn(usual)
        now = {pair.name: pair.told for pair in sorted(pairs, key=attrgetter("name"))[:MOST_PAIRS]}
        now |= {
            name: self.told[name].after(one, known)
            for name, one in now.items()
            if name in self.told
        }
        before = [(name, one) for name, one in self.told.items() if name not in now]
        learnt = Company(heats).learn(usual)
        told = dict([*before, *now.items()][-MOST_PAIRS:])
        return Company(heats, told, learnt.variance, learnt.shared)


def between_file(folder: Path, known_as: str, place: str, measure: Measure) -> Path:
    """Return where it is kept of a machine (its fingerprint) in a place (cpu-1).

    What is timed in another way wanders in another way, and from there to here.
    """
    ways = [measure.wait_policy, "pinned" if measure.pin else "free"]
    ways += ["flushed"] if measure.flush_cache else []
    return folder / "sessions" / known_as / f"{'-'.join([place.replace(':', '-'), *ways])}.json"


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
    own = kept.companies.get(company, Company())
    return Between(own.learn(kept.find_usual(company)), kept.find_speed())


def note_between(
    path: Path, company: str, timed: TimedHeat, noted: Collection[str] = ()
) -> set[str]:
    """Add to a file how fast a heat was and, of its pairs, how far its sessions are apart.

    Return which of SESSIONS and RUNS it tells of. What was `noted` of the same run is not noted
    again: it would count as a run of its own.
    """
    kept = _read(path)
    companies = dict(kept.companies)
    told, shown = list(find_pairs(timed)), Shown()
    if told and SESSIONS not in noted:
        usual, own = kept.find_usual(company), companies.pop(company, Company())
        before = {} if RUNS in noted else own.told
        shown = find_shown(told, before, own.learn(usual), list(find_others(timed)))
        companies[company] = own.after(shown, told, usual)
    control = [log(one) for one in timed.control.medians().values()]
    levels = [*kept.levels, *([median(control)] if control else [])]
    if told or control:
        remember(path, Kept(levels, companies).to_json())
    found = {SESSIONS} if shown.free else set()
    return found | ({RUNS} if told else set())


@dataclass(frozen=True)
class Kept:
    """What a file holds.

    levels: of each heat the logarithm of the control's median block, the latest last. companies:
    the one that was timed last at the end.
    """

    levels: Sequence[float] = ()
    companies: Mapping[str, Company] = field(default_factory=dict)

    def find_usual(self, company: str) -> Known:
        """Return what is known of a company by others: the geometric mean, with what is usual."""
        others = [one for name, one in self.companies.items() if name != company][-OTHERS:]
        apart = [one.variance for one in others if any(heat.free for heat in one.heats)]
        shared = [one.shared for one in others if any(heat.steps for heat in one.heats)]
        usual = USUAL.work
        if not (apart or shared):
            return usual
        return Known(
            geometric_mean([usual.variance, *apart]), MOST_OF_OTHERS,
            geometric_mean([usual.shared, *shared]), MOST_OF_OTHERS,
        )  # fmt: skip

    def find_speed(self) -> Known:
        """Return how far heats are apart in the machine's speed."""
        if len(self.levels) < 2:
            return USUAL.speed
        off = np.array(self.levels) - median(self.levels)
        most = FURTHEST_LEVEL * robust_deviation(self.levels)
        if np.mean(np.abs(off) > most) > FEW_LEVELS:  # it has two speeds
            off, most = off - off.mean(), float("inf")
        squares = float((np.clip(off, -most, most) ** 2).sum())
        known = USUAL.speed.variance, USUAL.speed.sessions
        return Known(*_learn(*known, [squares], [0.0], [len(off) - 1.0]))

    def to_json(self) -> str:
        """Return the text of the file."""
        kept = list(self.companies.items())[-MOST_COMPANIES:]
        told = {
            name: [
                list(map(astuple, one.heats)),
                {pair: astuple(told) for pair, told in one.told.items()},
                one.variance,
                one.shared,
            ]
            for name, one in kept
        }
        levels = list(self.levels[-MOST_LEVELS:])
        return json.dumps({"version": VERSION, "levels": levels, "companies": told})


def _learn(
    before: float, count: float, squares: ArrayLike, explained: ArrayLike, free: ArrayLike
) -> tuple[float, float]:
    """Return what `learn_variance` does, within what a machine can be."""
    told = learn_variance(before, count, squares, explained, free, LEAST)
    return max(LEAST, told[0]), min(told[1], MOST_SESSIONS)


def _read(path: Path) -> Kept:
    with contextlib.suppress(OSError, ValueError, KeyError, TypeError, AttributeError):
        told: dict[str, Any] = json.loads(path.read_text())
        if told["version"] == VERSION:
            companies = {
                name: Company(
                    [Shown(*map(float, one)) for one in heats],
                    {pair: Told(*map(float, one)) for pair, one in pairs.items()},
                    *known,
                )
                for name, (heats, pairs, *known) in told["companies"].items()
            }
            return Kept([float(one) for one in told["levels"]], companies)
    return Kept()
