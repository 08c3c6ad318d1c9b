"""In how many processes a cell is timed, by the time and the memory that there are."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.grid import Cell
from harness.record import Record
from harness.sweep import sessions
from harness.sweep.grouping import FEWEST, LOAD_SHARE, MOST, choose_processes, group_seats
from harness.sweep.pack import Need
from harness.sweep.seat import Seat
from tests.sweep.scripted_sweep import ScriptedLauncher, sweep


def make_seats(sizes: list[float], load_s: float = 0.1) -> list[Seat]:
    """Seats of a model whose first is the baseline, with peaks of so many bytes."""
    seats = []
    for number, size in enumerate(sizes):
        technique = f"t{number}" if number else "baseline"
        cell = Cell("m", technique, "cpu", 1, 1, "eager", 0)
        record = Record("r", cell, "measured").measured(peak_memory_bytes=size)
        seats.append(Seat(cell, technique, record, load_s=load_s))
    return seats


sizes = st.lists(st.floats(0, 1e9), min_size=1, max_size=6)
rooms = st.builds(Need, st.floats(0, 2e10), st.just(float("inf")), st.integers(1, 64))


@given(sizes, rooms, st.floats(0.001, 10), st.floats(0.01, 100))
def test_more_processes_are_taken_as_far_as_time_and_memory_allow(
    sizes: list[float], room: Need, load_s: float, session_s: float
) -> None:
    seats = make_seats(sizes, load_s)
    found = choose_processes(seats, FEWEST, room, session_s)
    assert FEWEST <= found <= MOST
    if found > FEWEST:
        assert found * load_s <= LOAD_SHARE * session_s
        assert found * (len(seats) + 1) <= room.workers
        assert found * sum(sizes) <= room.host_bytes
        ((names, processes),) = group_seats(seats, found, room)
        assert len(names) == len(seats) and processes == found
    assert choose_processes(seats, FEWEST, room, 2 * session_s) >= found


def test_what_was_never_loaded_has_the_fewest() -> None:
    seats = make_seats([1.0, 2.0], float("nan"))
    assert choose_processes(seats, FEWEST, Need(1e12, 1e12, 64), 100.0) == FEWEST
    assert choose_processes([], FEWEST, Need(1e12, 1e12, 64), 100.0) == FEWEST


def test_later_sessions_have_more_processes_unless_the_grid_says_how_many(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sessions, "LEAST_S", 0.09)
    budget = {"max_seconds_per_cell": 0.3, "stop": "budget"}
    found = sweep(tmp_path / "a", ScriptedLauncher(), ["bf16"], budget=budget)
    assert (found.cells["processes"] == FEWEST + 2 * MOST).all()
    told = {"processes": 3}
    found = sweep(tmp_path / "b", ScriptedLauncher(), ["bf16"], None, told, budget)
    assert (found.cells["processes"] == 9).all()
