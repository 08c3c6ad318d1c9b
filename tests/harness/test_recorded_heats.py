"""What the statistics say of recorded heats in which the same cell ran twice, and of known effects.

The files were written by `tests/benchmarks/record_heats.py` on two cores of a shared machine, the
second two hours later, when PROCESS_SPREAD had been found in the first.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from harness.known import WITHIN
from harness.measure.disturbance import Disturbance
from harness.repeats import Comparison, compare_sessions
from harness.stats import PROCESS_SPREAD
from harness.sweep.compare import compare
from harness.sweep.heat import Member, TimedBlock

FOLDER = Path(__file__).parents[1] / "data"
FIRST, SECOND = FOLDER / "same_cell_twice.parquet", FOLDER / "same_cell_again.parquet"


@dataclass(frozen=True)
class Recorded:
    """A block of which the median was kept."""

    seconds: np.ndarray
    disturbance: Disturbance
    loops: int = 1
    process: int = 1


def member(blocks: pd.DataFrame) -> Member:
    def never() -> Recorded:
        raise AssertionError("a recorded member is not timed again")

    found = Member("recorded", never)
    for number, row in enumerate(blocks.itertuples()):
        samples = Recorded(np.array([row.median_s]), Disturbance(row.cause))
        found.blocks.append(TimedBlock(row.round, number, row.position, 0.0, samples))
    return found


@pytest.fixture(scope="module", params=[FIRST, SECOND], ids=lambda path: path.stem)
def ratios(request: pytest.FixtureRequest) -> pd.DataFrame:
    """Each heat's settings, and how its two copies compare."""
    return pd.DataFrame(list(read_ratios(request.param)))


def read_ratios(file: Path) -> Iterator[dict[str, object]]:
    for _, heat in pd.read_parquet(file).groupby("heat"):
        one, other = (member(blocks) for _, blocks in heat.groupby("copy"))
        ratio = compare(one, other)
        first = heat.iloc[0]
        yield {
            "loaded": first["loaded"],
            "threads": first["threads"],
            "flagged": ratio.p_value < 0.01,
            "covers": ratio.estimate.low <= 1 <= ratio.estimate.high,
        }


@pytest.mark.slow
def test_there_are_at_least_300_heats_and_half_of_them_are_loaded(ratios: pd.DataFrame) -> None:
    assert len(ratios) >= 300
    assert ratios["loaded"].mean() == 0.5


def test_at_most_10_in_1000_comparisons_of_a_cell_with_itself_are_flagged(
    ratios: pd.DataFrame,
) -> None:
    assert ratios["flagged"].mean() <= 0.010


def test_the_interval_covers_1_as_often_as_it_says(ratios: pd.DataFrame) -> None:
    assert 0.93 <= ratios["covers"].mean() <= 0.97


@pytest.mark.slow
def test_what_the_halves_of_a_heat_have_in_common_is_the_spread_between_processes() -> None:
    halves = []
    for _, heat in pd.read_parquet(FIRST).groupby("heat"):
        one, other = (member(blocks).rounds() for _, blocks in heat.groupby("copy"))
        logs = [np.log(one[n].median_s / other[n].median_s) for n in sorted(one)]
        middle = len(logs) // 2
        halves.append((np.median(logs[:middle]), np.median(logs[middle:])))
    first, second = np.clip(halves, -0.02, 0.02).T
    assert pytest.approx(np.sqrt(np.mean(first * second)), rel=0.3) == PROCESS_SPREAD


def synthetic(effect: float, noise: float, rounds: int, seed: int) -> Comparison:
    """A heat with known truth: both cells share the machine's swings, each has its own noise."""
    rng = np.random.default_rng(seed)
    swings = np.exp(0.2 * rng.standard_normal(rounds))
    one, other = (1e-3 * swings * np.exp(noise * rng.standard_normal(rounds)) for _ in range(2))
    logs = np.log(one * (1 + effect) / other)
    return compare_sessions([logs], [PROCESS_SPREAD], WITHIN.work)


def test_an_effect_of_3_percent_is_found_in_noise_of_3_percent_with_30_rounds() -> None:
    # 3 % is the noise of a round's ratio: each cell has its share of it.
    found = [synthetic(0.03, 0.03 / np.sqrt(2), 30, seed) for seed in range(400)]
    assert np.mean([ratio.p_value < 0.05 for ratio in found]) >= 0.95
    assert np.mean([ratio.estimate.low > 1 for ratio in found]) >= 0.95


def test_no_effect_is_found_where_there_is_none() -> None:
    found = [synthetic(0.0, 0.03, 30, seed) for seed in range(1000)]
    assert np.mean([ratio.p_value < 0.01 for ratio in found]) <= 0.010
    assert np.mean([ratio.estimate.low <= 1 <= ratio.estimate.high for ratio in found]) >= 0.93
