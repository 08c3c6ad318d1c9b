"""What is known of answers is bounded in memory, whatever comes in which order."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from harness.sweep.answers import Answers, KnownAnswers

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
