"""How much of their work cells have in common."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from harness.likeness import MOST_KINDS, compare_work, find_likeness, read_work, write_work
from harness.measure.traffic import count_traffic

Works = st.dictionaries(st.sampled_from("abcdef"), st.floats(0.001, 1), max_size=6)


def work_of(module: nn.Module, runtime: str = "eager") -> dict[str, float]:
    dtype = next(module.parameters()).dtype
    traffic = count_traffic(module.eval(), (torch.ones(4, 32, dtype=dtype),))
    return read_work(write_work(traffic.shares), runtime)


def stack(layers: int, width: int = 32) -> nn.Sequential:
    return nn.Sequential(*(nn.Linear(32, width) for _ in range(layers)))


def test_more_of_the_same_layers_are_the_same_work() -> None:
    assert compare_work(work_of(stack(100)), work_of(stack(101))) == 1.0


def test_masked_weights_are_the_same_work_and_smaller_ones_or_another_type_are_not() -> None:
    masked = stack(2)
    with torch.no_grad():
        masked[0].weight[:, ::2] = 0
    assert compare_work(work_of(stack(2)), work_of(masked)) == 1.0
    assert compare_work(work_of(stack(1)), work_of(stack(1, width=16))) == 0.0
    assert compare_work(work_of(stack(1)), work_of(stack(1).bfloat16())) == 0.0


def test_the_same_work_in_another_runtime_is_not_alike() -> None:
    assert compare_work(work_of(stack(1)), work_of(stack(1), "compile")) == 0.0


def test_cells_that_have_half_of_their_work_in_common_are_a_third_alike() -> None:
    """Half of it in common, and a half that either has alone: 0.5 of 1.5."""
    shared = work_of(nn.Sequential(nn.Linear(32, 32), nn.Linear(32, 8)))
    other = work_of(nn.Sequential(nn.Linear(32, 32), nn.Linear(32, 9)))
    found = compare_work(shared, other)
    common = next(share for kind, share in shared.items() if kind in other)
    assert 0.4 < common < 0.9
    assert abs(found - common / (2 - common)) < 0.05


def test_of_many_operators_those_with_the_most_work_are_kept() -> None:
    shares = {f"kind {n}": (n + 1) / 5050 for n in range(100)}
    kept = read_work(write_work(shares), "eager")
    assert len(kept) == MOST_KINDS + 1
    assert sum(kept.values()) == pytest.approx(1, abs=1e-2)
    assert compare_work(kept, read_work(write_work(shares), "eager")) == 1.0
    assert f"eager kind {99 - MOST_KINDS}" not in kept


@given(st.integers(1, 300), st.integers(1, 300), st.floats(0.0, 1.0))
def test_what_is_not_kept_is_alike_only_where_it_is_the_same(
    common: int, own: int, share: float
) -> None:
    """However much of the work that is: more operators than are kept are the same or others."""
    shared = {f"kind {n}": share / common for n in range(common)}
    works = [
        shared | {f"{name} {n}": (1 - share) / own for n in range(own)} for name in ("one", "other")
    ]
    one, other = (read_work(write_work(work), "eager") for work in works)
    assert compare_work(one, other) <= share / (2 - share) + 0.03 + (share == 1)


def test_work_that_is_not_known_is_like_no_other() -> None:
    for text in (None, "", float("nan"), write_work({})):
        assert read_work(text, "eager") == {}
    assert compare_work({}, {}) == compare_work({}, work_of(stack(1))) == 0.0
    assert find_likeness([{}, {}]).tolist() == [[1.0, 0.0], [0.0, 1.0]]
    assert find_likeness([]).shape == (0, 0)


@given(st.lists(Works, max_size=8))
def test_cells_may_be_drawn_by_their_likeness(works: list[dict[str, float]]) -> None:
    likeness = find_likeness(works)
    assert np.allclose(likeness, likeness.T)
    assert np.allclose(np.diag(likeness), 1.0)
    assert (likeness >= 0).all() and (likeness <= 1 + 1e-9).all()
    assert not works or np.linalg.eigvalsh(likeness).min() > -1e-9
