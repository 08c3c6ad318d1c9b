"""The error of a ratio is that of the value that is told, whichever rounds were clean."""

import numpy as np
import pytest
from scripted import Samples

from harness.measure.disturbance import Disturbance
from harness.stats import Floats
from harness.sweep.compare import compare, tabulate_rounds
from harness.sweep.heat import Member, TimedBlock, never

HEATS, ROUNDS = 200, 100


def make_members(logs: Floats, clean: np.ndarray) -> list[Member]:
    """Return members, by rows, whose blocks took so long; what is not clean is as fast, here."""
    members = []
    for number, (row, levels) in enumerate(zip(logs, clean, strict=True)):
        blocks = [
            TimedBlock(at, at, number, 0.1 * at,
                       Samples(np.exp(row[[at]]), disturbance=Disturbance("" if ok else "loaded"),
                               process=number))
            for at, ok in enumerate(levels)
        ]  # fmt: skip
        members.append(Member(str(number), never, blocks=blocks))
    return members


def find_coverage(share: float, correlation: float, rounds: int = ROUNDS) -> float:
    """Return how often the ratio of two equal cells of four holds 1.

    Each has so many clean rounds by itself; the noise of the first two has so much in common.
    """
    generator, covered = np.random.default_rng(5), 0
    for _ in range(HEATS):
        logs = 0.05 * generator.standard_normal((4, rounds))
        common = 0.05 * generator.standard_normal(rounds)
        logs[:2] = np.sqrt(1 - correlation) * logs[:2] + np.sqrt(correlation) * common
        members = make_members(logs, generator.random((4, rounds)) < share)
        split = tabulate_rounds(members, np.eye(4)).split
        found = compare(members[0], members[1], 0.0, split=split).within
        covered += found.low <= 1 <= found.high
    return covered / HEATS


@pytest.mark.parametrize("share", [0.35, 0.4, 0.5, 0.7, 1.0])
def test_a_ratio_holds_whatever_share_of_its_cells_rounds_is_clean(share: float) -> None:
    assert 0.92 <= find_coverage(share, 0.0) <= 0.995


@pytest.mark.parametrize("correlation", [0.5, 0.9])
def test_a_ratio_of_cells_that_are_disturbed_together_holds(correlation: float) -> None:
    assert 0.92 <= find_coverage(1.0, correlation) <= 0.995


@pytest.mark.parametrize("others", [0, 2])
def test_two_cells_that_were_never_clean_together_are_compared_by_all_their_rounds(
    others: int,
) -> None:
    """Nothing ties the clean ones, nor do other cells, each of which was clean with one of them."""
    logs = 0.01 * np.random.default_rng(6).standard_normal((2 + others, ROUNDS))
    clean = np.zeros((2 + others, ROUNDS), dtype=bool)
    clean[0::2, :40], clean[1::2, 60:] = True, True
    members = make_members(logs, clean)
    split = tabulate_rounds(members, np.eye(2 + others)).split
    found = compare(members[0], members[1], 0.0, split=split).within
    paired = compare(members[0], members[1], 0.0).within
    assert (found.value, found.low, found.high) == (paired.value, paired.low, paired.high)
