"""What is known of answers is bounded in memory, whatever comes in which order."""

from __future__ import annotations

from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from bench.conventions import IGNORED
from harness.examples import read_right
from harness.grid import Cell
from harness.record import Record
from harness.store import Run
from harness.sweep.answers import Answers, KnownAnswers
from harness.sweep.heat import Member, never
from harness.sweep.judge import find_right, judge_answers
from harness.sweep.seat import Seat
from harness.sweep.tables import examples_table, samples_table

MOST = 1_000


def make(size: int) -> Answers:
    return {"outputs": np.zeros(size, np.int8), "predicted": np.zeros(size // 2, np.int8)}


STEPS = st.lists(
    st.tuples(st.sampled_from("abcdef"), st.sampled_from([1, 8, 64]), st.integers(0, 1_500))
)


@given(STEPS)
def test_the_place_at_hand_is_known_and_the_rest_takes_no_more_than_it_may(steps) -> None:
    known = KnownAnswers(MOST)
    for variant, batch, size in steps:
        place = (variant, "cpu", "eager")
        other = known.find_other(place)
        answers = other if other is not None and size % 2 else make(size)  # as in another batch
        known.keep(place, batch, answers)
        assert known.find(place, batch) is answers
        places = {(name, "cpu", "eager") for name in "abcdef"} - {place}
        arrays = {
            id(array): array.nbytes
            for one in [*places, place]  # the one at hand stays the last
            for number in (1, 8, 64)
            for array in (known.find(one, number) or {}).values()
        }
        assert known.size_bytes == sum(arrays.values())
        mine = {id(array) for n in (1, 8, 64) for array in (known.find(place, n) or {}).values()}
        others = sum(size for array, size in arrays.items() if array not in mine)
        assert others == 0 or known.size_bytes <= MOST


def test_who_was_asked_last_stays_longest() -> None:
    known = KnownAnswers(MOST)
    for name in "ab":
        known.keep((name, "cpu", "eager"), 1, {"outputs": np.zeros(400, np.int8)})
    assert known.find(("a", "cpu", "eager"), 1) is not None
    known.keep(("c", "cpu", "eager"), 1, {"outputs": np.zeros(400, np.int8)})
    assert known.find(("b", "cpu", "eager"), 1) is None
    assert known.find(("a", "cpu", "eager"), 1) is not None


LABELS = st.lists(st.sampled_from([IGNORED, 0, 1, 2]), max_size=40)


@given(LABELS, st.randoms(use_true_random=False))
def test_what_is_drawn_of_accuracy_is_of_the_examples_that_it_is_of(labels, random) -> None:
    """Those that are not judged are in neither, in a heat or read from the store."""
    predicted = [random.choice([label, 0, 1, 2]) for label in labels]
    answers = {"outputs": np.zeros((len(labels), 3)), "predicted": np.array(predicted, int),
               "labels": np.array(labels, int)}  # fmt: skip
    right = find_right(answers)
    judged = [label for label in labels if label != IGNORED]
    if not judged:
        assert right is None
        return
    assert len(right) == len(judged)
    assert judge_answers(answers, {})["accuracy"].value == right.mean()
    cell = Cell("m", "baseline", "cpu", 1, 1, "eager", 0)
    record = Record("r", cell, "measured")
    seat = Seat(cell, "v", record, member=Member(cell.id, never), answers=answers)
    with TemporaryDirectory() as folder:
        run = Run.create(Path(folder), "r", {})
        run.add(record, samples_table(cell.id, "h", seat.member), examples_table(seat))
        assert read_right(run)[cell.id].tolist() == right.tolist()
