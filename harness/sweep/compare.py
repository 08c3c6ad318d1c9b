"""Compare: what the statistics are told of the members of a heat, and the ratio of two of them."""

from __future__ import annotations

from collections.abc import Sequence
from math import asin, log, pi, sqrt

import numpy as np

from harness.headlines import Own, SplitSessions, TimedRounds
from harness.known import WITHIN, Known
from harness.repeats import Comparison, compare_sessions, find_sessions
from harness.rounds import ONE_PROCESS, choose_rounds, find_process_spread
from harness.stats import Floats
from harness.sweep.heat import Member, find_rounds_sessions


def tabulate_rounds(members: Sequence[Member], likeness: Floats) -> TimedRounds:
    """Return what the statistics need of members that have so much of their work in common."""
    return TimedRounds(
        {member.name: member.medians() for member in members},
        find_rounds_sessions(members),
        {member.name: member.processes_by_session() for member in members},
        process_spread(members),
        likeness,
    )


def process_spread(members: Sequence[Member]) -> float:
    """Return how far processes with the same work were apart in this heat, relatively."""
    return find_process_spread(
        {member.name: member.medians() for member in members},
        {m.name: {n: b.process for n, b in m.rounds().items()} for m in members},
        find_rounds_sessions(members),
    )


def pair_sessions(
    member: Member, reference: Member, spread: float = ONE_PROCESS
) -> tuple[dict[int, Floats], list[float]]:
    """Return the log-ratios of two members by session, over the rounds that both had.

    And how far each session is off by the processes that it was timed in: `spread` is the standard
    deviation of what one process has of its own as long as it lives.
    """
    mine, theirs = member.rounds(), reference.rounds()
    shared = mine.keys() & theirs.keys()
    chosen, _ = choose_rounds({n: max(mine[n].level, theirs[n].level) for n in sorted(shared)})
    sessions: dict[int, list[float]] = {}
    for number in chosen:
        top, bottom = mine[number].median_s, theirs[number].median_s
        if min(top, bottom) > 0:
            sessions.setdefault(mine[number].session, []).append(log(top / bottom))
    counts = [one.processes_by_session() for one in (member, reference)]
    apart = [spread * sqrt(sum(1 / count[session] for count in counts)) for session in sessions]
    return {session: np.array(ratios) for session, ratios in sessions.items()}, apart


def compare(
    member: Member, reference: Member, spread: float = ONE_PROCESS, known: Known = WITHIN.work,
    split: SplitSessions | None = None,
) -> Comparison:  # fmt: skip
    """Return the latency ratio of two members, paired over the rounds that both had.

    `known` is what sessions differ by; without it, nothing. `split` has what is each member's own
    in each session: the ratio is that of these, as the headlines' is, and the paired rounds tell
    how sure it is. Without it, it is the median of the pairs.
    """
    sessions, apart = pair_sessions(member, reference, spread)
    paired = [*sessions.values()]
    if split is None or not sessions:
        return compare_sessions(paired, apart, known)
    mine, theirs = (split.parts.get(one.name, {}) for one in (member, reference))
    middles, widened = [], []
    for number, ratios, error in zip(sessions, paired, find_sessions(paired)[1], strict=True):
        middle, stretch = float(np.median(ratios)), 1.0
        told = number in mine and number in theirs
        rounds = split.count_rounds(member.name, reference.name, number) if told else 0.0
        if rounds > 0:  # or nothing ties what is their own
            middle = mine[number].middle - theirs[number].middle
            stretch = sqrt(max(1.0, len(ratios) / rounds))
            stretch *= stretch_medians(mine[number], theirs[number], error * sqrt(len(ratios)))
        middles.append(middle)
        widened.append(middle + stretch * (ratios - middle))
    return compare_sessions(widened, apart, known, middles)


def stretch_medians(one: Own, other: Own, paired: float) -> float:
    """Return how much less sure the difference of two medians is than the median of differences.

    `paired` is the standard error of the latter, for one round. Of two series with the correlation
    ρ, medians have only asin ρ · 2/π: cells that are disturbed together. At least 1.
    """
    here, there = (each.error**2 * each.rounds for each in (one, other))
    if not here * there * paired > 0:
        return 1.0
    correlation = (here + there - paired**2) / 2 / sqrt(here * there)
    common = asin(min(1.0, max(-1.0, correlation))) * 2 / pi * sqrt(here * there)
    return sqrt(max(1.0, (here + there - 2 * common) / paired**2))
