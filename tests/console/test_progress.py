"""What people and programs see of a run while it goes on."""

import io
import json
import re
from math import inf, nan
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from harness.console.events import print_event, tell_events
from harness.console.live import standings_table
from harness.console.progress import describe_standings
from harness.grid import Cell
from harness.record import Record
from harness.stats import Estimate
from harness.sweep.standing import Standing

NUMBERS = st.floats(1e-9, 1e4) | st.sampled_from([nan, inf, 0.0])
ESTIMATES = st.builds(Estimate, NUMBERS, NUMBERS, NUMBERS)
NAMES = st.text(st.characters(codec="utf-8", exclude_categories=["C"]), min_size=1, max_size=30)
CELLS = st.builds(
    Cell, NAMES, NAMES | st.just("baseline"), st.just("cpu"), st.just(1), st.just(1),
    st.just("eager"), st.just(0),
)  # fmt: skip
STANDINGS = st.builds(
    Standing, CELLS, ESTIMATES, ESTIMATES, st.integers(0, 10**6),
    st.sampled_from(["", "interval", "budget", "failure", "interruption"]),
    st.sampled_from(["", "somebody ended the worker [red]"]),
)  # fmt: skip


def render(standings: list[Standing], most: int) -> str:
    console = Console(file=io.StringIO(), width=200)
    console.print(standings_table(standings, most))
    text = console.file.getvalue()  # type: ignore[attr-defined]
    return str(text)


@given(st.lists(STANDINGS, max_size=12), st.integers(-3, 40))
def test_whatever_is_known_the_table_fits_and_shows_no_number_that_is_none(
    standings: list[Standing], most: int
) -> None:
    plain = [one for one in standings if one.cell.model.isascii()]
    named = " ".join(one.cell.model + one.cell.technique + one.problem for one in plain)
    text = render(plain, most)
    shown = text.count("\n") - 1
    assert shown <= max(2, most) or any(len(one.cell.technique) > 20 for one in plain)
    for word in ("nan", "inf", "None"):
        assert text.count(word) <= named.count(word)


@given(st.lists(STANDINGS, max_size=12))
def test_whatever_is_known_the_line_shows_no_number_that_is_none(
    standings: list[Standing],
) -> None:
    text = describe_standings(standings)
    assert "\n" not in text
    named = " ".join(one.cell.technique for one in standings)
    for word in ("nan", "inf", "None"):
        assert text.count(word) <= named.count(word)


def standing(technique: str, seconds: float, ratio: float = nan) -> Standing:
    cell = Cell("m", technique, "cpu", 1, 1, "eager", 0)
    around = [Estimate(value, value * 0.98, value * 1.02) for value in (seconds, ratio)]
    return Standing(cell, around[0], around[1], 40, "")


def test_a_line_names_the_fastest_and_how_wide_the_widest_interval_is() -> None:
    names = [standing("baseline", 1e-3), standing("a", 5e-4, 0.5), standing("b", 2e-3, 2.0),
             standing("c", 9e-4, 0.9), standing("d", 3e-3, 3.0)]  # fmt: skip
    assert describe_standings(names) == (
        "so far, of 40 rounds: a 500 µs, 2.00× (1.96–2.04), c 900 µs, 1.11× (1.09–1.13), baseline "
        "1.00 ms, 2 more; the widest ±2 %"
    )
    assert describe_standings([]) == "nothing is timed yet"


def test_rows_that_have_no_place_on_the_terminal_are_counted() -> None:
    text = render([standing(f"t{number}", 1e-3) for number in range(30)], 10)
    assert "t8" in text and "t9" not in text
    assert "and 21 more" in text


@pytest.mark.parametrize(
    ("stopped_by", "ratio", "words"),
    [("", 0.5, "faster"), ("interval", 2.0, "slower, precise enough"), ("budget", 1.0, "its time"),
     ("", 1.0, "")],
)  # fmt: skip
def test_a_row_says_how_a_cell_stands(stopped_by: str, ratio: float, words: str) -> None:
    one = standing("t", 1e-3, ratio)
    row = render([Standing(one.cell, one.latency, one.ratio, 40, stopped_by)], 5).splitlines()[1]
    assert row.rstrip().endswith(words) or words in row


def test_a_heat_that_is_loading_says_what_was_warmed_up() -> None:
    one = standing("t", 1.0)
    warm = Standing(one.cell, Estimate(0.002), Estimate(nan), 0, "")
    assert describe_standings([warm]) == "warmed up: t 2.00 ms"
    assert "nan" not in render([warm], 5)


def test_events_are_lines_of_valid_json_whatever_is_unknown(
    capsys: pytest.CaptureFixture[str],
) -> None:
    progress = tell_events()
    record = Record("run", standing("t", 1.0).cell, "failed", "timeout", 'with "quotes"\nand lines')
    progress.begin(3)
    progress.phase("preparing")
    progress.standings("a heat", [standing("t", nan, inf)])
    progress.done(record.measured(latency_s=Estimate(nan, inf, 1.0)))
    print_event("end", state="finished", cells={"failed": 1}, report=None, exit_code=5)
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [line["event"] for line in lines] == ["begin", "phase", "standings", "cell", "end"]
    assert {line["schema"] for line in lines} == {"paretogrid.event/1"}
    assert lines[2]["cells"][0]["latency_s"] is None
    assert lines[3]["metrics"]["latency_s_low"] is None
    assert lines[3]["message"] == 'with "quotes"\nand lines'
    told = (Path(__file__).parents[2] / "docs/events.md").read_text(encoding="utf-8")
    named = set(re.findall(r"`([\w.]+)`", told))
    lines += lines[2]["cells"]
    said = {key.removesuffix("_low").removesuffix("_high") for line in lines for key in line}
    assert said - named == set(), "docs/events.md tells what each is"
