"""Which cells share a heat, by the memory they need."""

from hypothesis import given
from hypothesis import strategies as st

from harness.sweep.pack import CUDA_CONTEXT_BYTES, WORKER_BYTES, Group, Need, need_of, pack

CONTROL = Need(10.0)


def pack_sizes(room: float, **families: list[float]) -> list[Group]:
    """Pack families of cells: the first of each is the baseline of the others."""
    sizes = {
        f"{family}{number}": Need(size)
        for family, values in families.items()
        for number, size in enumerate(values)
    }
    company = {name: f"{name[0]}0" for name in sizes if name[1:] != "0"}
    return pack(sizes, company, CONTROL, Need(room))


def test_cells_that_fit_share_one_heat_in_the_order_of_the_grid() -> None:
    assert pack_sizes(20.0, a=[1, 1, 3, 2], b=[1, 2]) == [
        Group(("a0", "a1", "a2", "a3", "b0", "b1"), together=True)
    ]


def test_cells_that_do_not_fit_together_are_split_with_their_baseline_in_each() -> None:
    groups = pack_sizes(120.0, a=[5, 50, 50, 50])
    assert sorted(len(group.names) for group in groups) == [2, 3]
    assert all(group.together and group.names[0] == "a0" for group in groups)


def test_families_that_do_not_fit_together_are_split_between_families_first() -> None:
    groups = pack_sizes(40.0, a=[5, 10, 10], b=[5, 10, 10])
    assert [group.names for group in groups] == [("a0", "a1", "a2"), ("b0", "b1", "b2")]


def test_a_cell_that_does_not_fit_beside_its_baseline_is_measured_apart_with_it() -> None:
    assert pack_sizes(100.0, a=[5, 95, 1]) == [
        Group(("a0", "a2"), together=True), Group(("a0", "a1"), together=False),
    ]  # fmt: skip


def test_a_baseline_without_company_is_a_cell_like_any_other() -> None:
    assert pack_sizes(100.0, a=[95], b=[5]) == [
        Group(("b0",), together=True), Group(("a0",), together=False),
    ]  # fmt: skip


def test_the_card_limits_as_well_as_the_host() -> None:
    both = {"a": Need(1.0, 60.0), "b": Need(1.0, 60.0)}
    assert len(pack(both, {}, Need(1.0, 1.0), Need(100.0, 100.0))) == 2
    assert len(pack(both, {}, Need(1.0, 1.0), Need(100.0, 200.0))) == 1


def test_what_a_cell_needs_is_its_peak_and_its_worker_and_on_a_card_its_context() -> None:
    assert need_of({"peak_memory_bytes": 5.0}) == Need(5.0 + WORKER_BYTES, workers=1)
    card = need_of({"peak_memory_bytes": 0.0, "cuda_reserved_bytes": 7.0})
    assert card.card_bytes == 7.0 + CUDA_CONTEXT_BYTES
    known = need_of({"cuda_reserved_bytes": 7.0, "cuda_process_bytes": 2.0 * CUDA_CONTEXT_BYTES})
    assert known.card_bytes == 2.0 * CUDA_CONTEXT_BYTES, "NVML's figure has the context in it"


SIZES = st.lists(st.floats(0.1, 120.0), min_size=1, max_size=8)


@given(SIZES, SIZES, st.floats(20.0, 150.0))
def test_every_cell_is_in_a_group_beside_its_baseline_and_no_group_is_too_large(
    first: list[float], second: list[float], room: float
) -> None:
    families = {"a": first, "b": second}
    groups = pack_sizes(room, a=first, b=second)
    placed = [name for group in groups for name in group.names]
    assert set(placed) == {f"{f}{n}" for f, values in families.items() for n in range(len(values))}
    followers = [name for name in placed if name[1:] != "0"]
    assert len(followers) == len(set(followers)), "none twice but baselines"
    for group in groups:
        assert all(f"{name[0]}0" in group.names for name in group.names)
        total = CONTROL.host_bytes + sum(families[name[0]][int(name[1:])] for name in group.names)
        assert group.together == (total <= room) or len(group.names) <= 2
        assert total <= room or not group.together


@given(cells=st.integers(0, 40), places=st.integers(3, 30))
def test_no_heat_has_more_processes_than_there_are_descriptors_for(cells: int, places: int) -> None:
    needs = {f"c{number}": Need(1.0, workers=1) * 2 for number in range(cells)}
    groups = pack(
        needs, dict.fromkeys([*needs][1:], "c0"), Need(1.0, workers=1), Need(1e9, 0, places)
    )
    assert {name for group in groups for name in group.names} == set(needs)
    for group in groups:
        if group.together:
            assert 1 + 2 * len(group.names) <= places
