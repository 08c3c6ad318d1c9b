"""What a heat's blocks say of a cell."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scripted import Samples

from harness.errors import WorkerFailure
from harness.grid import Budget, Cell
from harness.measure.roofline import Traffic
from harness.record import Record
from harness.scores import relative_fidelity
from harness.stats import Estimate
from harness.sweep.conclude import conclude, conclude_kept, with_explanation
from harness.sweep.drift import with_drift
from harness.sweep.heat import Member, TimedBlock
from harness.sweep.judge import doubt_answers
from harness.sweep.seat import Seat, TimedHeat

ROUNDS = 40
SLOWER = np.linspace(1.0, 1.3, ROUNDS)
"""A machine, or a cell, that takes 30 % longer in the last round than in the first."""


def timed(name: str, seconds: np.ndarray) -> Member:
    """Return a member whose blocks took so long, with 1 % of noise."""
    noise = np.exp(0.01 * np.random.default_rng(sum(map(ord, name))).standard_normal(len(seconds)))

    def never() -> Samples:
        raise AssertionError("it has been timed")

    blocks = [
        TimedBlock(number, number, 0, 0.1 * number, Samples(np.array([value])))
        for number, value in enumerate(seconds * noise)
    ]
    return Member(name, never, blocks=blocks)


@pytest.fixture
def record() -> Record:
    return Record("run", Cell("m", "baseline", "cpu", 1, 1, "eager", 0), "measured")


def test_a_cell_that_becomes_slower_on_a_steady_machine_has_not_settled(record: Record) -> None:
    cell, control = timed("cell", 1e-3 * SLOWER), timed("control", np.full(ROUNDS, 2e-4))
    found = with_drift(record, cell, control).conditions
    assert not found["settled"]
    assert found["drift"] == pytest.approx(0.3 / 1.15, rel=0.1)
    assert abs(found["machine_drift"]) < 0.05


def test_a_machine_that_becomes_slower_is_not_the_cell_s_drift(record: Record) -> None:
    cell, control = timed("cell", 1e-3 * SLOWER), timed("control", 2e-4 * SLOWER)
    found = with_drift(record, cell, control).conditions
    assert found["settled"]
    assert abs(found["drift"]) < 0.05
    assert found["machine_drift"] == pytest.approx(0.3 / 1.15, rel=0.1)


def test_without_a_control_every_drift_is_the_cell_s(record: Record) -> None:
    found = with_drift(record, timed("cell", 1e-3 * SLOWER), timed("control", np.array([])))
    assert not found.conditions["settled"]
    assert np.isnan(found.conditions["machine_drift"])


def test_a_control_that_ended_in_the_heat_tells_nothing_of_the_machine(record: Record) -> None:
    seat = Seat(record.cell, "variant", record, True, 0.0)
    seat.member = timed(record.cell.id, 1e-3 * SLOWER)
    control = timed("control", np.array([2e-4]))
    control.problem = WorkerFailure("killed", "it was ended by SIGKILL")
    heat = TimedHeat("heat", [seat], control, 1, 1.0, 0.0)
    found = conclude(heat, seat, Budget(), None, processors=2)
    assert found.conditions["drift"] == pytest.approx(0.3 / 1.15, rel=0.1)
    assert "control_latency_s" not in found.metrics
    assert "SIGKILL): how fast the machine was" in found.conditions["warnings"][-1]


@pytest.mark.parametrize(
    ("outputs", "baseline", "told"),
    [
        ([1.0, -np.inf], [1.0, -np.inf], ""),  # a mask
        ([1.0, np.nan], [2.0, np.nan], "50 % of the outputs are NaN or infinite; fidelity leaves"),
        ([1.0, np.inf, 0.0, 2.0], [1.0, np.inf, 0.0, 2.0], "25 % of the outputs are NaN or"),
        ([np.nan] + [1.0] * 1000, None, "some of the outputs are NaN or infinite"),
        ([1.0, np.nan], [1.0, 1.0], "50 % of the outputs are NaN or infinite where"),
        (
            [1.0, -np.inf],
            [1.0, 1.0],
            "50 % of the outputs are NaN or infinite where the baseline's",
        ),
        ([1.0, 1.0], [1.0, 1.0], ""),
        ([1.0], [1.0, 1.0], "the outputs are 1 numbers, and the baseline's 2: there is no"),
        ([], [], ""),
    ],
)
def test_outputs_that_are_no_numbers_are_a_warning_that_says_what_fidelity_makes_of_them(
    outputs: list[float], baseline: list[float] | None, told: str
) -> None:
    answers = {"outputs": np.array(outputs), "shape": np.array([len(outputs)])}
    wanted = {} if baseline is None else {"outputs": np.array(baseline)}
    found = doubt_answers(answers, wanted)
    assert told in " ".join(found) and bool(found) == bool(told)
    if baseline and "fidelity is 0" in " ".join(found):
        assert relative_fidelity(answers["outputs"], wanted["outputs"]) == 0


NUMBERS = st.sampled_from([0.0, 1.0, -2.0, 1e31, -3.4028e38, np.inf, -np.inf, np.nan])


@given(st.lists(st.tuples(NUMBERS, NUMBERS), min_size=1, max_size=5))
def test_what_a_warning_says_of_fidelity_is_what_it_is(pairs: list[tuple[float, float]]) -> None:
    outputs, wanted = (np.array(one) for one in zip(*pairs, strict=True))
    answers = {"outputs": outputs, "shape": np.array([len(outputs)])}
    told = " ".join(doubt_answers(answers, {"outputs": wanted}))
    fidelity = relative_fidelity(outputs, wanted)
    assert fidelity == 0 or "fidelity is 0" not in told
    assert np.isnan(fidelity) or "fidelity is not known" not in told


@pytest.mark.parametrize(
    ("shape", "labels", "doubtful"),
    [
        ((6, 3, 3), (6, 3), True),
        ((6, 3, 4), (6, 4), False),
        ((6, 4, 3), (6, 4), False),
        ((6, 4, 4, 4), (6, 4, 4), True),
        ((3, 3), (3,), False),
        ((6, 3), (6, 3), False),
    ],
)
def test_classes_that_may_lie_along_two_dimensions_are_a_warning(
    shape: tuple[int, ...], labels: tuple[int, ...], doubtful: bool
) -> None:
    answers = {"outputs": np.zeros(2), "shape": np.array(shape), "labels": np.zeros(labels, int)}
    found = doubt_answers(answers, {})
    assert bool(found) == doubtful
    assert all(f"outputs {shape}" in told for told in found)
    assert doubt_answers(answers | {"labels": np.zeros(labels)}, {}) == []  # numbers, no classes


@pytest.mark.parametrize(
    ("labels", "told"), [([-100, -100], True), ([-100, 1], False), ([], False)]
)
def test_labels_of_which_none_is_to_be_judged_are_a_warning(labels: list[int], told: bool) -> None:
    answers = {"outputs": np.zeros(2), "shape": np.array([2]), "labels": np.array(labels, int)}
    assert ("nothing is to be judged" in " ".join(doubt_answers(answers, {}))) == told


@pytest.mark.parametrize(("macs", "known"), [(50.0, True), (float("nan"), False), (None, False)])
def test_what_a_call_moves_is_known_without_the_machines_roofs(
    record: Record, macs: float | None, known: bool
) -> None:
    described = record if macs is None else record.measured(macs=macs)
    described = described.measured(latency_s=Estimate(1e-3))
    seat = Seat(record.cell, "variant", described, traffic=Traffic(400, 2, {"float32": 100.0}))
    found = with_explanation(described, seat, None).metrics
    assert found["bytes_moved"] == 400
    assert ("arithmetic_intensity" in found) == known
    if known:
        assert found["arithmetic_intensity"] == pytest.approx(2 * 50 / 400)
    assert "fraction_of_roof" not in found


def test_what_a_partial_cell_had_when_it_failed_remains_and_anothers_does_not(
    record: Record,
) -> None:
    seat = Seat(record.cell, "variant", record, True, 0.0)
    seat.member = timed(record.cell.id, np.full(ROUNDS, 1e-3))
    seat.member.problem = WorkerFailure("killed", "it was ended by SIGKILL")
    heat = TimedHeat("heat", [seat], timed("control", np.full(ROUNDS, 2e-4)), 1, 1.0, 0.0)
    ((_, plain, _),) = conclude_kept(heat, Budget(), None, 2)
    assert (plain.status, plain.message) == ("failed", "it was ended by SIGKILL")
    earlier = {"status": "partial", "energy_j": None}
    ((_, partial, _),) = conclude_kept(heat, Budget(), None, 2, {record.cell.id: earlier})
    assert partial.status == "partial"
    assert partial.metrics["latency_s"] == pytest.approx(1e-3, rel=0.02)
    assert partial.conditions["rounds"] == ROUNDS
    assert "SIGKILL" in partial.conditions["warnings"][-1]


@pytest.mark.parametrize("interrupted", [False, True])
@pytest.mark.parametrize("problem", [None, WorkerFailure("killed", "it was ended by SIGKILL")])
def test_a_reference_has_what_it_was_timed_for_the_others_in_its_own_heat_and_no_other(
    record: Record, interrupted: bool, problem: WorkerFailure | None
) -> None:
    seat = Seat(record.cell, "variant", record, kept=False)
    seat.member = timed(record.cell.id, np.full(ROUNDS, 1e-3))
    seat.member.problem = problem
    control = timed("control", np.full(ROUNDS, 2e-4))
    heat = TimedHeat("heat", [seat], control, 1, 1.0, 0.0, interrupted=interrupted)
    assert not list(conclude_kept(heat, Budget(), None, 2)), "its row is of another heat"
    earlier = {"status": "measured", "energy_j": 0.5, "energy_source": "a counter"}
    ((_, found, _),) = conclude_kept(heat, Budget(), None, 2, {record.cell.id: earlier})
    assert found.status == "measured", "it has spent its budget"
    assert found.conditions["rounds"] == ROUNDS
    assert found.metrics["energy_j"] == 0.5
    assert found.conditions["energy_source"] == "a counter"
    warned = any("SIGKILL" in text for text in found.conditions["warnings"])
    assert warned == (problem is not None)
