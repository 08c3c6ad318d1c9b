"""How the cells of a heat stand while they are timed."""

import numpy as np
import pytest
from scripted import Samples

from harness.errors import WorkerFailure
from harness.grid import Cell
from harness.record import Record
from harness.sweep.heat import Member, TimedBlock
from harness.sweep.seat import Seat
from harness.sweep.standing import LOOK_AT_LEAST_EVERY_S, Lookout, find_standings


def never() -> Samples:
    raise AssertionError("it has been timed")


def timed(name: str, seconds: float, rounds: int) -> Member:
    """Return a member whose blocks took so long, with 1 % of noise of its own."""
    noise = np.random.default_rng(sum(map(ord, name))).normal(0, 0.01, rounds)
    blocks = [
        TimedBlock(number, number, 0, 0.1 * number, Samples(np.array([value])))
        for number, value in enumerate(seconds * np.exp(noise))
    ]
    return Member(name, never, blocks=blocks)


def seat(technique: str, seconds: float, rounds: int, model: str = "m") -> Seat:
    cell = Cell(model, technique, "cpu", 1, 1, "eager", 0)
    member = timed(cell.id, seconds, rounds)
    return Seat(cell, technique, Record("run", cell, "measured"), member=member)


def test_a_cell_is_faster_or_slower_once_its_interval_is_on_one_side_of_its_baseline() -> None:
    seats = [seat("baseline", 1e-3, 40), seat("half", 5e-4, 40), seat("more", 2e-3, 40),
             seat("same", 1e-3, 40)]  # fmt: skip
    found = {one.cell.technique: one for one in find_standings(seats, timed("c", 2e-4, 40))}
    verdicts = {name: one.verdict for name, one in found.items()}
    assert verdicts == {"baseline": "", "half": "faster", "more": "slower", "same": ""}
    assert found["half"].ratio.value == pytest.approx(0.5, rel=0.02)
    assert found["half"].latency.value == pytest.approx(5e-4, rel=0.02)
    assert np.isnan(found["baseline"].ratio.value)
    assert {one.rounds for one in found.values()} == {40}


def test_each_model_is_held_against_its_own_baseline() -> None:
    seats = [seat("baseline", 1e-3, 20), seat("t", 1e-3, 20),
             seat("baseline", 4e-3, 20, "n"), seat("t", 2e-3, 20, "n")]  # fmt: skip
    ratios = [one.ratio.value for one in find_standings(seats, timed("c", 2e-4, 20))]
    assert ratios[1] == pytest.approx(1.0, rel=0.02)
    assert ratios[3] == pytest.approx(0.5, rel=0.02)


def test_what_was_warmed_up_has_its_pace_and_no_interval_until_it_is_timed() -> None:
    warm, cold, timed_too = seat("warm", 1e-3, 0), seat("cold", 1e-3, 0), seat("baseline", 1e-3, 9)
    warm.pace_s = timed_too.pace_s = 0.5
    cold.member = None  # not loaded yet
    found = find_standings([warm, cold, timed_too])
    assert found[0].latency.value == 0.5
    assert np.isnan(found[0].latency.relative_half_width)
    assert np.isnan(found[1].latency.value)
    assert found[2].latency.value == pytest.approx(1e-3, rel=0.02)
    assert [one.verdict for one in found] == ["", "", ""]
    assert find_standings([]) == []


@pytest.mark.parametrize("rounds", [0, 1, 2, 6])
def test_before_there_are_enough_rounds_nothing_is_decided(rounds: int) -> None:
    seats = [seat("baseline", 1e-3, rounds), seat("half", 5e-4, rounds)]
    found = find_standings(seats, timed("c", 2e-4, rounds))
    assert [one.verdict for one in found] == ["", "faster" if rounds > 1 else ""]
    assert [np.isnan(one.latency.value) for one in found] == [rounds == 0] * 2


def test_nobody_stands_in_an_empty_heat() -> None:
    assert find_standings([], timed("c", 2e-4, 3)) == []


def test_a_cell_that_could_not_be_loaded_or_failed_later_says_why() -> None:
    lost, ill = seat("lost", 1e-3, 9), seat("ill", 1e-3, 9)
    lost.member, lost.problem = None, WorkerFailure("timeout", "load took too long")
    assert ill.member is not None
    ill.member.problem = WorkerFailure("killed", "somebody ended the worker")
    found = find_standings([seat("baseline", 1e-3, 9), lost, ill], timed("c", 2e-4, 9))
    assert [one.problem for one in found] == ["", "load took too long", "somebody ended the worker"]
    assert [one.verdict for one in found] == ["", "failed", "failed"]


@pytest.mark.parametrize(("cost_s", "least_s", "most_s"), [(0.0, 1.0, 1.3), (0.05, 5.0, 5.4),
                                                          (3.0, 60.0, 63.4)])  # fmt: skip
def test_looks_are_a_second_apart_or_as_rare_as_they_are_costly(
    cost_s: float, least_s: float, most_s: float
) -> None:
    now = 0.0
    told: list[float] = []

    def tell() -> None:
        nonlocal now
        told.append(now)
        now += cost_s

    lookout = Lookout(tell, clock=lambda: now)
    for _ in range(2_000):
        lookout.look()
        now += 0.2  # a round
    gaps = np.diff(told).round(6)
    assert told[0] == 0.0, "the first round is worth a look"
    assert least_s <= gaps.min() and gaps.max() <= most_s
    assert cost_s > 0.6 or cost_s * len(told) <= 0.011 * now
    assert gaps.max() <= LOOK_AT_LEAST_EVERY_S + cost_s + 0.4
