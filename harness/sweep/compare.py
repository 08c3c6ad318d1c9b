"""Compare: what the statistics are told of the members of a heat, and the ratio of two of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import log, sqrt
from types import MappingProxyType

import numpy as np

from harness.headlines import TimedRounds
from harness.known import WITHIN, Known
from harness.repeats import Comparison, compare_sessions
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
    own: Mapping[str, Mapping[int, float]] = MappingProxyType({}),
) -> Comparison:  # fmt: skip
    """Return the latency ratio of two members, paired over the rounds that both had.

    `known` is what sessions differ by; without it, nothing. `own` has what is each member's own in
    each session, by name: the ratio is that of these, as the headlines' is, and the paired rounds
    tell how sure it is. Without it, it is the median of the pairs.
    """
    sessions, apart = pair_sessions(member, reference, spread)
    mine, theirs = own.get(member.name, {}), own.get(reference.name, {})
    middles = [
        mine[one] - theirs[one] if one in mine and one in theirs else float(np.median(paired))
        for one, paired in sessions.items()
    ]
    return compare_sessions([*sessions.values()], apart, known, middles)
