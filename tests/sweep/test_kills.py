"""Interrupted at random, in every way there is, a run loses nothing and repeats nothing."""

import random
from pathlib import Path

import pytest
from kills import Scenario, small_disk

pytestmark = [pytest.mark.workers, pytest.mark.longest]

SCENARIOS, KILLS = 5, 8
"""Forty kills; `tests/benchmarks/kills.py` does a thousand."""


@pytest.mark.parametrize("seed", range(SCENARIOS))
def test_after_eight_kills_no_block_is_lost_or_doubled(
    tmp_path: Path, own_cache: Path, seed: int
) -> None:
    known = own_cache / "roofs"
    with small_disk(tmp_path / "disk") as disk:
        roofs = known if known.exists() else None
        scenario = Scenario(tmp_path, disk, random.Random(seed), roofs, cold=False)
        scenario.play(KILLS)
    assert scenario.did.total() == KILLS
