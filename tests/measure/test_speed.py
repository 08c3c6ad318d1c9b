"""How fast the machine was, against the fastest it was ever seen."""

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.measure.speed import find_fastest, find_speed, read_fastest_s, speed_file


@pytest.fixture
def kept(tmp_path: Path) -> Path:
    return speed_file(tmp_path, "e8d327c362a2", "cuda:0-1", "active", pin=True)


def test_the_first_heat_is_held_against_its_own_fastest_round(kept: Path) -> None:
    assert find_speed(2e-3, 1e-3, kept) == 0.5
    assert read_fastest_s(kept) == 1e-3


def test_a_slow_heat_is_held_against_the_fastest_of_all_earlier_ones(kept: Path) -> None:
    find_speed(1.1e-3, 1e-3, kept)
    assert find_speed(4e-3, 3e-3, kept) == 0.25
    assert read_fastest_s(kept) == 1e-3, "a slower one changes nothing"


def test_a_faster_heat_is_the_new_measure(kept: Path) -> None:
    find_speed(1e-3, 1e-3, kept)
    assert find_speed(0.5e-3, 0.5e-3, kept) == 1
    assert find_speed(1e-3, 1e-3, kept) == 0.5


@pytest.mark.parametrize(
    "text",
    ["", "[]", "{}", '{"control_version": 0, "fastest_tenth_s": 1e-9}', '{"fastest_tenth_s": "x"}'],
)
def test_a_broken_file_or_one_of_another_control_is_none(kept: Path, text: str) -> None:
    kept.parent.mkdir(parents=True)
    kept.write_text(text)
    assert find_speed(2e-3, 1e-3, kept) == 0.5
    assert json.loads(kept.read_text())["fastest_tenth_s"] == 1e-3, "and it is replaced"


def test_a_folder_that_cannot_be_written_costs_only_the_memory(tmp_path: Path) -> None:
    (tmp_path / "control").write_text("a file where the folder would be")
    blocked = speed_file(tmp_path, "e8d327c362a2", "cpu-1", "active", pin=False)
    assert find_speed(2e-3, 1e-3, blocked) == 0.5
    assert read_fastest_s(blocked) == float("inf")


def test_each_machine_and_setting_has_a_file_of_its_own(tmp_path: Path) -> None:
    files = {
        speed_file(tmp_path, machine, place, policy, pin)
        for machine in ("a", "b")
        for place in ("cpu-1", "cpu-2", "cuda:0-1")
        for policy in ("active", "passive")
        for pin in (True, False)
    }
    assert len(files) == 24
    assert all(":" not in file.name for file in files)


@given(st.lists(st.floats(0.9, 1.1), min_size=2, max_size=300), st.floats(1e-6, 0.5))
def test_one_boosted_round_is_no_measure_of_later_heats(rounds: list[float], boost: float) -> None:
    assert min(rounds) <= find_fastest([*rounds, boost]) <= max(rounds)


def test_where_a_tenth_of_the_rounds_is_fast_that_is_the_measure() -> None:
    assert find_fastest([2.0] * 89 + [1.0] * 11) == 1.0
    assert find_fastest([2.0] * 95 + [1.0] * 5) == 2.0
    assert find_fastest([3.0]) == 3.0
