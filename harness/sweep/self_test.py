"""The self-test: the same work several times in one heat, where every difference is an error."""

from __future__ import annotations

import random
from contextlib import ExitStack
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path

import numpy as np

from harness import stats
from harness.grid import Measure
from harness.known import Known
from harness.measure.speed import find_fastest, find_speed
from harness.power import smallest_difference, smallest_unlike_difference
from harness.rounds import CAUSES
from harness.sweep.compare import compare, process_spread
from harness.sweep.grouping import FEWEST
from harness.sweep.heat import Member, Stop, run_heat
from harness.sweep.launcher import Launcher
from harness.sweep.remote import alternate

TIMEOUT_S = 120.0
BLOCK_S = 0.01
COPIES, ROUNDS, HEATS = 5, 30, 3
SECONDS = 2.0
"""Of a copy in a heat; threads that stand in each other's way would take minutes."""
P_VALUE = 0.01


@dataclass(frozen=True)
class SelfTest:
    """What this machine can tell apart right now, found by comparing a workload with itself.

    `noise` is the standard deviation of one round's log-ratio, `smallest_difference` the ratio − 1
    that is found (p < 0.05) in 95 of 100 cases with so many rounds, `unlike_difference` the same of
    cells that do other work, by what sessions of this machine differ by, `machine_speed` the share
    of the fastest speed that this machine was ever seen at.
    """

    device: str
    threads: int
    rounds: int
    comparisons: int
    false_flags: int
    noise: float
    smallest_difference: float
    unlike_difference: float
    disturbed: dict[str, float]
    others: float
    stolen_share: float
    machine_speed: float


def run_self_test(
    launcher: Launcher, device: str, threads: int, speeds: Path, known: Known
) -> SelfTest:
    """Time copies of the control workload in heats; return what the comparisons found.

    `speeds` is the file in which the fastest is kept, `known` what sessions differ by here.
    """
    heats = [time_copies(launcher, device, threads, seed=heat) for heat in range(HEATS)]
    everyone = [member for members in heats for member in members]
    spreads = [process_spread(members) for members in heats]
    ratios = [
        compare(one, other, spread)
        for members, spread in zip(heats, spreads, strict=True)
        for one, other in combinations(members, 2)
    ]
    series = [log_ratios(*pair) for members in heats for pair in combinations(members, 2)]
    apart = float(np.median(spreads)) * (2 / FEWEST) ** 0.5
    found = [block.samples.disturbance for member in everyone for block in member.blocks]
    wall_s = sum(one.wall_s for one in found)
    least = smallest_difference(series, ROUNDS, apart)
    medians = [median_s for member in everyone for median_s in member.medians().values()]
    return SelfTest(
        device=device,
        threads=threads,
        rounds=ROUNDS,
        comparisons=len(ratios),
        false_flags=sum(ratio.p_value < P_VALUE for ratio in ratios),
        noise=float(np.median([stats.robust_deviation(values) for values in series])),
        smallest_difference=least,
        unlike_difference=smallest_unlike_difference(least, known, Measure().sessions),
        disturbed={
            cause: float(np.mean([one.cause == cause for one in found])) for cause in CAUSES[1:]
        },
        others=float(np.median([one.others for one in found])),
        stolen_share=max(0.0, sum(one.stolen_s for one in found)) / wall_s,
        machine_speed=find_speed(float(np.median(medians)), find_fastest(medians), speeds),
    )


def time_copies(launcher: Launcher, device: str, threads: int, seed: int) -> list[Member]:
    """Return copies of the control workload, timed in one heat of ROUNDS rounds."""
    with ExitStack() as stack:
        members, order = [], random.Random(seed)
        for number in range(COPIES):
            workers = [stack.enter_context(launcher.worker()) for _ in range(FEWEST)]
            for worker in workers:
                worker.call("load_control", TIMEOUT_S, device=device, threads=threads, pin=True)
                worker.pause()
            take = alternate(workers, TIMEOUT_S, BLOCK_S, order)
            members.append(Member(f"copy {number + 1}", take))
        run_heat(members, Stop(0.0, SECONDS, ROUNDS, ROUNDS), seed)
    return members


def log_ratios(one: Member, other: Member) -> np.ndarray:
    """Return the logarithm of the two members' ratio in each round that both had."""
    mine, theirs = one.rounds(), other.rounds()
    return np.log([mine[n].median_s / theirs[n].median_s for n in mine if n in theirs])
