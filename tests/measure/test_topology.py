"""Which processors threads are pinned to, on written-down machines and on this one."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from harness.measure.processor import parse_list
from harness.measure.topology import (
    choose_processors,
    describe_choice,
    read_processor,
)


@dataclass(frozen=True)
class Core:
    """A core: its hardware threads, its memory node, its clock in kHz or capacity."""

    numbers: tuple[int, ...]
    node: int = 0
    clock: int = 3_000_000


@dataclass(frozen=True)
class Machine:
    """A machine as a list of cores, written as the kernel shows it."""

    cores: tuple[Core, ...]
    file: str = "cpufreq/cpuinfo_max_freq"
    nodes: bool = True
    siblings: str = "core_cpus_list"
    allowed: frozenset[int] = field(default=frozenset(range(4096)))

    @property
    def numbers(self) -> set[int]:
        return {number for core in self.cores for number in core.numbers} & self.allowed

    def write(self, root: Path) -> Path:
        for core in self.cores:
            for number in core.numbers:
                folder = root / f"sys/devices/system/cpu/cpu{number}"
                (folder / "topology").mkdir(parents=True)
                shared = ",".join(str(one) for one in sorted(core.numbers))
                (folder / "topology" / self.siblings).write_text(f"{shared}\n")
                if self.nodes:
                    (folder / f"node{core.node}").mkdir()
                    (root / f"sys/devices/system/node/node{core.node}").mkdir(
                        parents=True, exist_ok=True
                    )
                (folder / self.file).parent.mkdir(exist_ok=True)
                (folder / self.file).write_text(f"{core.clock}\n")
        return root


# Intel Core i7-12700: eight fast cores with two threads each (two of them favoured), four slow.
HYBRID = Machine(
    tuple(Core((2 * n, 2 * n + 1), clock=4_900_000 if n in (4, 5) else 4_800_000) for n in range(8))
    + tuple(Core((16 + n,), clock=3_600_000) for n in range(4))
)
# Two sockets of 8 cores; siblings far apart, as on most servers.
SOCKETS = Machine(tuple(Core((n, n + 16), node=n // 8) for n in range(16)))
# A desktop whose siblings are adjacent, an older kernel.
ADJACENT = Machine(
    tuple(Core((2 * n, 2 * n + 1)) for n in range(4)), siblings="thread_siblings_list", nodes=False
)
# A telephone: one prime core, three large, four small; capacities instead of clocks.
ARM = Machine(
    (*(Core((n,), clock=325) for n in range(4)), *(Core((n,), clock=870) for n in (4, 5, 6)),
     Core((7,), clock=1024)),
    file="cpu_capacity",
)  # fmt: skip
# A container with a set of processors: two whole cores and half of one, on the second socket.
CONTAINER = Machine(SOCKETS.cores, allowed=frozenset({8, 24, 9, 25, 10, 1}))


@pytest.mark.parametrize(
    ("machine", "threads", "near", "chosen"),
    [
        (HYBRID, 1, None, [15]),
        (HYBRID, 8, None, [15, 13, 11, 9, 7, 5, 3, 1]),
        (HYBRID, 10, None, [15, 13, 11, 9, 7, 5, 3, 1, 19, 18]),
        (HYBRID, 13, None, [15, 13, 11, 9, 7, 5, 3, 1, 19, 18, 17, 16, 14]),
        (SOCKETS, 2, None, [31, 30]),
        (SOCKETS, 2, 0, [23, 22]),
        (SOCKETS, 9, 0, [23, 22, 21, 20, 19, 18, 17, 16, 31]),
        (SOCKETS, 17, 0, [*range(23, 15, -1), *range(31, 23, -1), 7]),
        (ADJACENT, 4, None, [7, 5, 3, 1]),
        (ADJACENT, 5, None, [7, 5, 3, 1, 6]),
        (ARM, 4, None, [7, 6, 5, 4]),
        (ARM, 5, None, [7, 6, 5, 4, 3]),
        (CONTAINER, 3, None, [25, 24, 10]),
        (CONTAINER, 4, None, [25, 24, 10, 1]),
        (CONTAINER, 99, None, [25, 24, 10, 1, 9, 8]),
        (CONTAINER, 1, 0, [1]),
    ],
)
def test_threads_get_cores_of_their_own_the_fastest_and_nearest_first(
    tmp_path: Path, machine: Machine, threads: int, near: int | None, chosen: list[int]
) -> None:
    root = machine.write(tmp_path)
    assert choose_processors(threads, machine.numbers, root, near) == chosen


@st.composite
def machines(draw: st.DrawFn) -> Machine:
    numbers = count()
    kinds = draw(
        st.lists(st.sampled_from([2_000_000, 3_500_000, 5_000_000]), min_size=1, max_size=6)
    )
    cores = tuple(
        Core(tuple(next(numbers) for _ in range(draw(st.integers(1, 2)))),
             node=draw(st.integers(0, 1)), clock=clock)
        for clock in kinds
    )  # fmt: skip
    everything = [number for core in cores for number in core.numbers]
    allowed = draw(st.sets(st.sampled_from(everything), min_size=1))
    return Machine(cores, allowed=frozenset(allowed))


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(machine=machines(), threads=st.integers(1, 14), near=st.sampled_from([None, 0, 1]))
def test_on_any_machine_no_core_is_shared_and_no_slower_kind_taken_before_it_must(
    tmp_path_factory: pytest.TempPathFactory, machine: Machine, threads: int, near: int | None
) -> None:
    root = machine.write(tmp_path_factory.mktemp("machine"))
    chosen = choose_processors(threads, machine.numbers, root, near)
    usable = [core for core in machine.cores if set(core.numbers) & machine.allowed]
    assert len(chosen) == len(set(chosen)) == min(threads, len(machine.numbers))
    assert set(chosen) <= machine.numbers
    taken = [core for core in usable if set(core.numbers) & set(chosen)]
    assert len(taken) == min(threads, len(usable)), "siblings only when cores run out"
    wanted = sorted((core.clock for core in usable), reverse=True)[: len(taken)]
    assert sorted((core.clock for core in taken), reverse=True) == wanted
    if near is not None and len(taken) < len(usable):
        slowest = min(core.clock for core in taken)
        rest = [core for core in usable if core not in taken and core.clock == slowest]
        far = [core for core in taken if core.node != near and core.clock == slowest]
        assert not (far and any(core.node == near for core in rest)), "the near node first"


def test_what_was_chosen_is_described(tmp_path: Path) -> None:
    root = SOCKETS.write(tmp_path / "two sockets")
    assert describe_choice([31], root) == "1 core, node 1"
    assert describe_choice([31, 30, 0], root) == "3 cores, nodes 0 and 1"
    assert describe_choice([31, 15], root) == "2 processors on 1 core, node 1"
    root = ADJACENT.write(tmp_path / "desktop")
    assert describe_choice([7, 5], root) == "2 cores"


def test_where_the_kernel_shows_nothing_each_processor_is_a_core(tmp_path: Path) -> None:
    assert choose_processors(2, {0, 1, 2, 3}, tmp_path) == [3, 2]
    assert describe_choice([3, 2], tmp_path) == "2 cores"
    assert choose_processors(3, set(), tmp_path) == []


@pytest.mark.parametrize(
    ("text", "numbers"), [("0-3,8\n", [0, 1, 2, 3, 8]), ("5", [5]), ("", []), ("nonsense", [])]
)
def test_lists_of_the_kernel_are_read(text: str, numbers: list[int]) -> None:
    assert parse_list(text) == numbers


def test_this_machines_processors_are_chosen_from_those_allowed() -> None:
    allowed = os.sched_getaffinity(0)
    assert set(choose_processors(len(allowed), allowed)) == allowed
    assert all(number in read_processor(number).core for number in allowed)
