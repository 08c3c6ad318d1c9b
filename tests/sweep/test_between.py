"""What sessions of a machine differ by: learnt from heats, kept in a file."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from harness.grid import Cell, Measure
from harness.grid_file import parse_grid
from harness.record import Record
from harness.rounds import ONE_PROCESS
from harness.sweep.apart import Shown, find_pairs, find_shown
from harness.sweep.between import (
    LEAST,
    MOST_COMPANIES,
    MOST_HEATS,
    MOST_LEVELS,
    MOST_OF_OTHERS,
    MOST_PAIRS,
    MOST_SESSIONS,
    RUNS,
    SESSIONS,
    USUAL,
    VERSION,
    Kept,
    between_file,
    name_company,
    note_between,
    read_between,
)
from harness.sweep.hardware import Hardware
from harness.sweep.heat import Member, TimedBlock, never
from harness.sweep.seat import Seat, TimedHeat
from tests.sweep.scripted import Samples
from tests.sweep.scripted_sweep import ScriptedLauncher

ROUNDS = 20


def seat(technique: str, operators: str) -> Seat:
    cell = Cell("m", technique, "cpu", 1, 1, "eager", 0)
    record = Record("r", cell, "measured").under(operators=operators)
    return Seat(cell, technique, record, member=Member(cell.id, never))


def make_heat(
    generator: np.random.Generator, work: float, speed: float, sessions: int = 3,
    other: str = '{"bf16": 1.0}', run: float = 0.0,
) -> TimedHeat:  # fmt: skip
    """A heat whose sessions differ by so much in the ratio to its baseline; and how fast it was."""
    seats = [seat("baseline", '{"float32": 1.0}'), seat("bf16", other)]
    control = Member("control", never)
    members = [*(one.member for one in seats if one.member), control]
    level = speed * generator.standard_normal()
    of_run = np.array([run * generator.standard_normal(), 0, 0])
    for session in range(sessions):
        own = np.hypot(work / np.sqrt(2), ONE_PROCESS) * generator.standard_normal(3) + of_run
        for number in range(ROUNDS):
            for place, member in enumerate(members):
                noise = 0.001 * generator.standard_normal()
                samples = Samples(1e-3 * np.exp([level + own[place] + noise]), process=place)
                at = session * ROUNDS + number
                member.blocks.append(TimedBlock(at, 3 * at + place, place, at, samples, session))
    return TimedHeat("h", seats, control, 1, 1.0, 0.0)


def learn(
    path: Path, work: float, speed: float, heats: int, company: str = "a", **options: object
) -> None:  # fmt: skip
    generator = np.random.default_rng(1)
    for _ in range(heats):
        note_between(path, company, make_heat(generator, work, speed, **options))  # type: ignore[arg-type]


@pytest.mark.parametrize(("work", "speed"), [(0.005, 0.2), (0.05, 0.02)])
def test_after_many_heats_a_machine_is_known(work: float, speed: float, tmp_path: Path) -> None:
    path = between_file(tmp_path, "machine", "cuda:0-1", Measure())
    assert read_between(path, "a") == USUAL
    learn(path, work, speed, 60)
    known = read_between(path, "a")
    assert np.sqrt(known.work.variance) == pytest.approx(work, rel=0.3)
    level = np.hypot(speed, np.hypot(work / np.sqrt(2), ONE_PROCESS) / np.sqrt(3))  # the control's
    assert np.sqrt(known.speed.variance) == pytest.approx(level, rel=0.3)
    assert 10 < known.work.sessions <= MOST_SESSIONS
    assert ":" not in path.name
    others = (Measure(pin=False), Measure(wait_policy="passive"), Measure(flush_cache=True))
    paths = {between_file(tmp_path, "machine", "cuda:0-1", other) for other in others}
    assert len(paths | {path}) == 4


@pytest.mark.parametrize("run", [0.0, 0.01, 0.03])
def test_what_another_run_has_of_its_own_is_learnt(run: float, tmp_path: Path) -> None:
    path = tmp_path / "known"
    learn(path, 0.005, 0.02, 60, run=run)
    known = read_between(path, "a").work
    assert np.sqrt(known.shared) == pytest.approx(max(run, 0.001), rel=0.45, abs=0.002)
    assert np.sqrt(known.variance) == pytest.approx(0.005, rel=0.3)
    assert 3 < known.runs <= MOST_SESSIONS
    assert read_between(path, "b").work.runs == MOST_OF_OTHERS


@pytest.mark.parametrize("share", [0.05, 0.5, 0.9])
def test_how_much_of_what_ratios_differ_by_is_the_baselines_doing_is_learnt(
    share: float, tmp_path: Path
) -> None:
    """Cells of three kinds beside a baseline that wanders more than they, as much, or less.

    A fourth does the baseline's work, and wanders with it.
    """
    generator, path = np.random.default_rng(11), tmp_path / "known"
    deviations = 0.02 * np.sqrt([share, *[1 - share] * 3])
    works = {"baseline": "baseline", "a": "a", "twin": "baseline", "b": "b", "c": "c"}
    for _ in range(60):
        seats = [seat(name, f'{{"{work}": 1.0}}') for name, work in works.items()]
        for session in range(3):
            baseline, *others = deviations * generator.standard_normal(4)
            own = [baseline, others[0], baseline, *others[1:]]
            for number in range(session * ROUNDS, (session + 1) * ROUNDS):
                for place, one in enumerate(seats):
                    seconds = 1e-3 * np.exp([own[place] + 0.001 * generator.standard_normal()])
                    samples = Samples(seconds, process=place)
                    assert one.member is not None
                    at = 5 * number + place
                    one.member.blocks.append(TimedBlock(number, at, place, at, samples, session))
        note_between(path, "a", TimedHeat("h", seats, Member("control", never), 1, 1.0, 0.0))
    known = read_between(path, "a").work
    assert known.at_reference == pytest.approx(share, abs=0.1)
    assert np.sqrt(known.variance) == pytest.approx(0.02, rel=0.3)
    assert read_between(path, "b").work.at_reference == 0.5


def test_a_cell_that_was_changed_once_is_no_wandering_one(tmp_path: Path) -> None:
    """By a factor of two, after half of the runs."""
    generator, path = np.random.default_rng(7), tmp_path / "known"
    for number in range(40):
        heat = make_heat(generator, 0.005, 0.02, run=0.01)
        blocks = heat.seats[1].member.blocks if heat.seats[1].member else []
        for block in blocks if number >= 20 else []:
            block.samples.seconds[:] *= 2
        note_between(path, "a", heat)
    assert np.sqrt(read_between(path, "a").work.shared) == pytest.approx(0.01, rel=0.5)


def test_cells_with_the_same_work_tell_nothing_of_unlike_ones(tmp_path: Path) -> None:
    learn(tmp_path / "known", 0.05, 0.02, 5, other='{"float32": 1.0}')
    known = read_between(tmp_path / "known", "a")
    assert known.work == USUAL.work
    assert known.speed != USUAL.speed


def test_a_single_session_tells_nothing_of_how_far_sessions_are_apart(tmp_path: Path) -> None:
    learn(tmp_path / "known", 0.05, 0.02, 3, sessions=1)
    known = read_between(tmp_path / "known", "a")
    assert known.work.variance == USUAL.work.variance
    assert known.work.shared > USUAL.work.shared  # they tell that runs are further apart
    assert known.speed != USUAL.speed
    heat = make_heat(np.random.default_rng(2), 0.05, 0.02)
    nobody = TimedHeat("h", [], Member("control", never), 1, 1.0, 0.0)
    assert not [*find_pairs(nobody)]
    assert find_shown([*find_pairs(heat)], {}, USUAL.work).free == 2
    note_between(tmp_path / "nothing", "a", nobody)
    assert not (tmp_path / "nothing").exists()


def test_one_wild_heat_is_no_measure_of_a_machine(tmp_path: Path) -> None:
    """Neither its sessions nor how fast it was; nor is one whose rounds are wild."""
    path, generator = tmp_path / "known", np.random.default_rng(3)
    learn(path, 0.005, 0.02, 15)
    known = read_between(path, "a")
    wild, stalled = (make_heat(generator, work, 0.02) for work in (2.0, 0.005))
    for member in wild.members:
        for block in member.blocks:
            block.samples.seconds[:] *= 10
    for block in stalled.members[0].blocks[::2]:
        block.samples.seconds[:] *= 3
    for heat in (wild, stalled):
        note_between(path, "a", heat)
        after = read_between(path, "a")
        assert np.sqrt(after.work.variance) < 2 * np.sqrt(known.work.variance)
        assert np.sqrt(after.work.variance) > 0.7 * np.sqrt(known.work.variance)
        assert np.sqrt(after.speed.variance) < 2.5 * np.sqrt(known.speed.variance)


def test_heats_of_which_little_is_known_leave_what_is_usual(tmp_path: Path) -> None:
    """Two rounds a session, with a tenth of noise: nothing is seen of two percent."""
    generator, path = np.random.default_rng(8), tmp_path / "known"
    for _ in range(20):
        heat = make_heat(generator, 0.02, 0.02)
        for member in heat.members:
            member.blocks[:] = [one for one in member.blocks if one.round % ROUNDS < 2]
            for block in member.blocks:
                block.samples.seconds[:] *= np.exp(0.1 * generator.standard_normal())
        note_between(path, "a", heat)
    known = read_between(path, "a").work
    assert 0.01 < np.sqrt(known.variance) < 0.04
    assert known.shared > 10 * LEAST


@pytest.mark.parametrize(
    "text", ["", "{", "[]", '{"version": 0}', f'{{"version": {VERSION}, "work": 3}}']
)
def test_a_file_that_cannot_be_read_is_as_good_as_none(text: str, tmp_path: Path) -> None:
    (tmp_path / "known").write_text(text)
    assert read_between(tmp_path / "known", "a") == USUAL
    assert read_between(tmp_path, "a") == USUAL
    note_between(
        tmp_path / "known" / "below a file", "a", make_heat(np.random.default_rng(4), 0.1, 0.1)
    )


@pytest.mark.parametrize("slow", [0.15, 0.3, 0.5])
def test_a_machine_with_two_speeds_is_known_to_have_them(slow: float) -> None:
    generator = np.random.default_rng(18)
    levels = 0.4 * (generator.random(60) < slow) + 0.01 * generator.standard_normal(60)
    found = np.sqrt(Kept([float(one) for one in levels]).find_speed().variance)
    assert found == pytest.approx(0.4 * np.sqrt(slow * (1 - slow)), rel=0.35)
    few = np.sqrt(Kept([0.0, 0.001, 0.4]).find_speed().variance)
    assert few > np.sqrt(USUAL.speed.variance), "a third of what is known of it is far off"


def test_one_slow_heat_among_many_is_no_second_speed() -> None:
    levels = [*(0.01 * np.random.default_rng(19).standard_normal(40)), 0.7]
    assert np.sqrt(Kept(levels).find_speed().variance) < 0.03


def test_what_others_have_shown_counts_little(tmp_path: Path) -> None:
    """Of a machine whose cells are steady, those that are not are soon known."""
    path = tmp_path / "known"
    learn(path, 0.01, 0.02, 40)
    others = read_between(path, "b")
    assert others.work.sessions == MOST_OF_OTHERS
    assert np.sqrt(others.work.variance) == pytest.approx(0.01, rel=0.4)
    learn(path, 0.05, 0.02, 16, company="b")
    assert np.sqrt(read_between(path, "b").work.variance) == pytest.approx(0.05, rel=0.4)
    assert np.sqrt(read_between(path, "a").work.variance) == pytest.approx(0.01, rel=0.4)


def test_a_company_is_known_by_its_baselines() -> None:
    one, other = seat("baseline", '{"mm": 1.0}'), seat("baseline", '{"mm": 0.5, "relu": 0.5}')
    names = [name_company([one, seat("bf16", text)]) for text in ('{"mm": 1.0}', "", "{}")]
    assert len(set(names)) == 1
    assert name_company([other]) not in names
    assert name_company([one, other]) == name_company([other, one])
    assert name_company([seat("bf16", "")]) not in names


def test_companies_that_were_timed_long_ago_are_forgotten(tmp_path: Path) -> None:
    path, heat = tmp_path / "known", make_heat(np.random.default_rng(6), 0.05, 0.02)
    for number in range(MOST_COMPANIES + 3):
        note_between(path, str(number), heat)
    kept = json.loads(path.read_text())
    assert len(kept["companies"]) == MOST_COMPANIES
    assert "2" not in kept["companies"] and "3" in kept["companies"]
    assert len(kept["levels"]) == MOST_LEVELS


def test_heats_of_one_session_displace_nothing_of_what_is_known(tmp_path: Path) -> None:
    """They end as soon as their answer is known, and there are many of them."""
    path, generator = tmp_path / "known", np.random.default_rng(11)
    learn(path, 0.005, 0.02, 15)
    known = read_between(path, "a").work
    for _ in range(2 * MOST_HEATS):
        heat = make_heat(generator, 0.005, 0.02, sessions=1)
        assert note_between(path, "a", heat) == {RUNS}
        note_between(path, "nobody", heat)
    after = read_between(path, "a").work
    assert (after.variance, after.sessions) == pytest.approx((known.variance, known.sessions))
    kept = json.loads(path.read_text())["companies"]
    assert len(kept["a"][0]) <= 2 * MOST_HEATS


def test_of_a_large_heat_the_same_pairs_are_known_in_the_next_run(tmp_path: Path) -> None:
    generator, path = np.random.default_rng(9), tmp_path / "known"
    for _ in range(MOST_HEATS + 2):
        heat = make_heat(generator, 0.005, 0.02)
        others = [replace(heat.seats[1], cell=replace(heat.seats[1].cell, technique=f"other{n}"))
                  for n in range(3 * MOST_PAIRS)]  # fmt: skip
        note_between(path, "a", replace(heat, seats=[*heat.seats, *others]))
    heats, pairs, *_ = json.loads(path.read_text())["companies"]["a"]
    assert len(pairs) == MOST_PAIRS
    assert len(heats) == MOST_HEATS
    assert all(Shown(*one).steps == 1 for one in heats)
    with_pairs = path.read_text()
    assert note_between(path, "a", heat, {RUNS, SESSIONS}) <= {RUNS}
    told, before = (json.loads(text) for text in (path.read_text(), with_pairs))
    assert told["companies"] == before["companies"]
    assert told["levels"] != before["levels"]


@pytest.mark.parametrize("sessions", [1, 3])
def test_heats_of_one_run_that_share_baselines_count_as_one_run(
    sessions: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As seeds do: what the first of them told is known to the next run, not to the others."""
    monkeypatch.setenv("PARETOGRID_CACHE", str(tmp_path))
    generator = np.random.default_rng(12)
    heats = [make_heat(generator, 0.005, 0.02, sessions) for _ in range(3)]
    seats = heats[0].seats
    for _ in range(2):
        hardware = Hardware(ScriptedLauncher(), parse_grid({"grid": {"models": ["m"]}}, "a test"))  # type: ignore[arg-type]
        before = hardware.between(seats)
        for heat in heats:
            hardware.note_sessions(heat, seats)
            assert hardware.between(seats).work == before.work
    (path,) = (tmp_path / "sessions").glob("*/*.json")
    (company,) = json.loads(path.read_text())["companies"].values()
    shown = [Shown(*one) for one in company[0]]
    assert sum(one.steps for one in shown) == 1, "from the first run to the second"
    assert sum(one.free for one in shown) == 2 * (sessions - 1)
    assert len(json.loads(path.read_text())["levels"]) == 6


def test_a_machine_that_drifts_for_minutes_is_known_to(tmp_path: Path) -> None:
    """Runs that follow each other are alike, and far from those an hour later."""
    generator, path, drift = np.random.default_rng(13), tmp_path / "known", 0.0
    for _ in range(60):
        drift = 0.9 * drift + np.sqrt(1 - 0.9**2) * 0.01 * generator.standard_normal()
        heat = make_heat(generator, 0.002, 0.02)
        assert heat.seats[1].member is not None
        for block in heat.seats[1].member.blocks:
            block.samples.seconds[:] *= np.exp(drift)
        note_between(path, "a", heat)
    assert 0.006 < np.sqrt(read_between(path, "a").work.shared) < 0.015
