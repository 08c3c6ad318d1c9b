"""A whole grid in the time given: what each heat may take of it."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.commands.measure import read_time_s
from harness.errors import UserError
from harness.sweep.allowance import LEAST_S, REPORT_S, REPORT_SHARE, ROUND_COST, Allowance

HEATS = st.lists(
    st.tuples(st.integers(1, 40), st.integers(0, 5), st.floats(0.05, 1.0)), min_size=1, max_size=30
)
"""Of each heat: cells, what is timed beside them, and which share of its time it uses."""


def play(
    total_s: float, heats: list[tuple[int, int, float]], other_s: float, prepare_s: float = 0.0
) -> tuple[float, list[float]]:
    """Return how long heats took, and each one's seconds per cell.

    Every cell costs so many seconds beside its timing, and each variant, of which the first heat
    has all (the others share them), its preparation.
    """
    now, given = 0.0, []
    variants = heats[0][0]
    allowance = Allowance(total_s, sum(cells for cells, *_ in heats), variants, clock=lambda: now)
    for number, (cells, beside, used) in enumerate(heats):
        for _ in range(variants if number == 0 else 0):
            with allowance.preparing():
                now += prepare_s
        allowance.note_begun(cells)
        now += cells * other_s
        seconds = allowance.seconds_per_cell(cells, cells + beside + 1, 20.0)
        timed_s = ROUND_COST * seconds * (cells + beside + 1) * used
        now += timed_s
        given.append(seconds)
        allowance.note_timed(timed_s)
        for _ in range(cells):
            allowance.note_done()
    return now, given


@given(HEATS, st.floats(0.0, 0.5))
def test_a_grid_ends_in_its_time_and_uses_it(
    heats: list[tuple[int, int, float]], busy: float
) -> None:
    cells = sum(cells for cells, *_ in heats)
    total_s = 10.0 * cells
    other_s = busy * total_s / cells
    everything = [(cells, beside, 1.0) for cells, beside, _ in heats]
    assert 0.99 * (1 - REPORT_SHARE) * total_s <= play(total_s, everything, other_s)[0] <= total_s
    assert play(total_s, heats, other_s)[0] <= total_s


def test_what_a_heat_does_not_use_the_later_ones_have() -> None:
    now = 0.0
    allowance = Allowance(100.0, 10, clock=lambda: now)
    first = allowance.seconds_per_cell(5, 5, 20.0)
    for _ in range(5):  # every interval was narrow at once
        allowance.note_done()
    assert allowance.seconds_per_cell(5, 5, 20.0) == pytest.approx(2 * first)


@pytest.mark.parametrize(("total_s", "prepare_s"), [(1200.0, 20.0), (600.0, 5.0), (600.0, 0.0)])
def test_what_is_prepared_once_is_not_expected_again(total_s: float, prepare_s: float) -> None:
    """Four heats share twenty variants: the first one is no worse off for preparing them."""
    took_s, given = play(total_s, [(20, 0, 1.0)] * 4, 0.5, prepare_s)
    assert 0.9 * total_s - 1 <= took_s <= total_s
    assert max(given) == pytest.approx(min(given), rel=0.01)


def test_variants_that_are_still_to_be_prepared_have_their_time() -> None:
    now = 0.0
    allowance = Allowance(1000.0, 20, 4, clock=lambda: now)
    used = 0.0
    for _ in range(4):  # each variant in a heat of its own
        with allowance.preparing():
            now += 100.0
        allowance.note_begun(5)
        seconds = allowance.seconds_per_cell(5, 6, 20.0)
        now += ROUND_COST * seconds * 6
        used += seconds
        allowance.note_timed(ROUND_COST * seconds * 6)
        for _ in range(5):
            allowance.note_done()
    assert 980 <= now <= 1000
    assert used > 0


def test_cells_that_are_not_timed_leave_their_time_to_the_others() -> None:
    now = 0.0
    allowance = Allowance(600.0, 100, clock=lambda: now)
    for _ in range(50):  # skipped
        allowance.note_done()
    for _ in range(2):
        allowance.note_begun(25)
        seconds = allowance.seconds_per_cell(25, 26, 20.0)
        now += ROUND_COST * seconds * 26
        allowance.note_timed(ROUND_COST * seconds * 26)
        for _ in range(25):
            allowance.note_done()
    assert 580 <= now <= 600


def test_what_is_loaded_for_every_block_is_timed_less() -> None:
    now = 0.0
    allowance = Allowance(108.0, 4, clock=lambda: now)
    block_s, load_s = 0.2, 10.0
    seconds = allowance.seconds_per_cell(4, 5, 20.0, loading=load_s / block_s)
    blocks = 5 * seconds / block_s
    assert blocks * (block_s + load_s) <= 108.0


@pytest.mark.parametrize("total_s", [0.001, 1.0])
def test_when_the_time_is_used_up_no_heat_is_left_out(total_s: float) -> None:
    now = 0.0
    allowance = Allowance(total_s, 4, clock=lambda: now)
    now = 5.0
    assert 0 < allowance.seconds_per_cell(4, 5, 20.0) < 0.1


def test_without_a_time_for_the_grid_each_cell_has_its_own() -> None:
    assert Allowance(None, 0).seconds_per_cell(3, 9, 20.0) == 20.0


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("90", 90), ("90s", 90), ("10m", 600), ("1.5h", 5_400), (" 2 min ", 120), (".5h", 1_800)],
)
def test_a_time_is_read_in_seconds_minutes_and_hours(text: str, seconds: float) -> None:
    assert read_time_s(text) == seconds


@pytest.mark.parametrize("text", ["", "0", "ten", "-5m", "5d", "1e999", "1h30", "99999999h", "nan"])
def test_what_is_no_time_is_told_with_how_to_write_one(text: str) -> None:
    with pytest.raises(UserError, match=r"Write 90s, 10m or 1\.5h"):
        read_time_s(text)


@given(st.integers(2, 50), st.floats(0.1, 10.0), st.floats(0.1, 3.0))
def test_a_time_that_cannot_be_kept_is_known_when_the_first_heat_is_loaded(
    heats: int, other_s: float, share: float
) -> None:
    """Heats of one cell, each with so much to do beside its timing."""
    now = 0.0
    total_s = share * heats * other_s
    allowance = Allowance(total_s, heats, clock=lambda: now)
    allowance.note_begun(1)
    now += other_s
    allowance.seconds_per_cell(1, 3, 20.0)
    needed_s = heats * (other_s + 3 * LEAST_S) / (1 - REPORT_SHARE)
    if needed_s < 0.99 * total_s:
        assert allowance.overrun_s == 0
    if needed_s > 1.25 * total_s + REPORT_S:
        assert 0 < allowance.overrun_s < needed_s
