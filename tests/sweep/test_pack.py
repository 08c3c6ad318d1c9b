"""Which cells share a heat, by the memory they need."""

from hypothesis import given
from hypothesis import strategies as st

from harness.sweep.pack import CUDA_CONTEXT_BYTES, WORKER_BYTES, Need, need_of, pack

ALWAYS = Need(10.0)


def needs(*sizes: float) -> dict[str, Need]:
    return {f"c{number}": Need(size) for number, size in enumerate(sizes)}


def test_cells_that_fit_share_one_heat_in_the_order_of_the_grid() -> None:
    (group,) = pack(needs(1, 3, 2), ALWAYS, Need(16.0))
    assert group.together
    assert group.names == ("c0", "c1", "c2")


def test_cells_that_do_not_fit_together_are_split_with_the_baseline_in_each() -> None:
    groups = pack(needs(50, 50, 50), ALWAYS, Need(120.0))
    assert sorted(len(group.names) for group in groups) == [1, 2]
    assert all(group.together for group in groups)


def test_a_cell_that_does_not_fit_beside_the_baseline_is_measured_apart() -> None:
    groups = pack(needs(95, 1), ALWAYS, Need(100.0))
    assert [(group.names, group.together) for group in groups] == [
        (("c1",), True), (("c0",), False),
    ]  # fmt: skip


def test_the_card_limits_as_well_as_the_host() -> None:
    both = {"a": Need(1.0, 60.0), "b": Need(1.0, 60.0)}
    assert len(pack(both, Need(1.0, 1.0), Need(100.0, 100.0))) == 2
    assert len(pack(both, Need(1.0, 1.0), Need(100.0, 200.0))) == 1


def test_what_a_cell_needs_is_its_peak_and_its_worker_and_on_a_card_its_context() -> None:
    assert need_of({"peak_memory_bytes": 5.0}) == Need(5.0 + WORKER_BYTES)
    card = need_of({"peak_memory_bytes": 0.0, "cuda_reserved_bytes": 7.0})
    assert card.card_bytes == 7.0 + CUDA_CONTEXT_BYTES
    known = need_of({"cuda_reserved_bytes": 7.0, "cuda_process_bytes": 2.0 * CUDA_CONTEXT_BYTES})
    assert known.card_bytes == 2.0 * CUDA_CONTEXT_BYTES, "NVML's figure has the context in it"


@given(st.lists(st.floats(0.1, 120.0), max_size=12), st.floats(20.0, 150.0))
def test_every_cell_is_in_one_group_and_no_group_is_too_large(
    sizes: list[float], room: float
) -> None:
    wanted = needs(*sizes)
    groups = pack(wanted, ALWAYS, Need(room))
    assert sorted(name for group in groups for name in group.names) == sorted(wanted)
    for group in groups:
        total = ALWAYS.host_bytes + sum(wanted[name].host_bytes for name in group.names)
        assert total <= room if group.together else len(group.names) == 1
