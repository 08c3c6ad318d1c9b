"""The self-test and the advice that `paretogrid doctor` gives."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from harness.rounds import CAUSES
from harness.sweep import self_test
from harness.sweep.advice import advise
from harness.sweep.between import USUAL
from harness.sweep.launcher import Launcher
from harness.sweep.self_test import SelfTest, run_self_test

GIB = 2**30
MACHINE: dict[str, Any] = {
    "processors": 2, "cores": 2, "threads_per_core": 1, "governor": "performance",
    "container": {"cpus": None, "memory_bytes": None},
}  # fmt: skip
QUIET = SelfTest(
    device="cpu", threads=1, rounds=30, comparisons=30, false_flags=0, noise=0.02,
    smallest_difference=0.02, unlike_difference=0.05, disturbed=dict.fromkeys(CAUSES[1:], 0.0),
    others=0.0, stolen_share=0.0, machine_speed=1.0,
)  # fmt: skip


def about(*tests: SelfTest, available: int = 8 * GIB, **machine: Any) -> list[str]:
    return advise(MACHINE | machine, available, tests or (QUIET,), {"cpu": {}, "cuda": "none"})


def test_a_quiet_machine_gets_no_advice() -> None:
    assert about() == []


def test_a_neighbour_is_named_and_passive_waiting_advised_where_threads_do_not_fit() -> None:
    one, two = replace(QUIET, others=1.0), replace(QUIET, threads=2, others=1.0)
    assert about(one) == [
        "Other work is running: 1 busy neighbour on 2 processors. Stop it, or read intervals "
        "with care."
    ]
    _, advice = about(one, two)
    assert advice.startswith("Cells with 2 threads or more are oversubscribed: set wait_policy")


@pytest.mark.parametrize(
    ("machine", "words"),
    [
        ({"governor": "powersave"}, "cpupower frequency-set --governor performance"),
        ({"threads_per_core": 2, "cores": 1}, "2 hardware threads share a core"),
        ({"container": {"cpus": 1.5, "memory_bytes": None}}, "may use 1.5 of 2 processors"),
    ],
)
def test_what_the_machine_is_set_to_is_advised_on(machine: dict[str, Any], words: str) -> None:
    (advice,) = about(**machine)
    assert words in advice


def test_a_limit_that_leaves_all_processors_is_none() -> None:
    assert about(container={"cpus": 2.0, "memory_bytes": None}) == []


def test_stolen_time_a_slow_host_preemption_and_little_memory_are_advised_on() -> None:
    (stolen,) = about(replace(QUIET, stolen_share=0.05))
    assert "The hypervisor takes 5.0% of the processors' time" in stolen
    (preempted,) = about(replace(QUIET, disturbed={"preempted": 0.4}))
    assert "40% of the blocks lost processor time" in preempted
    (slow,) = about(replace(QUIET, machine_speed=0.6))
    assert slow.startswith("The machine runs at 60% of the speed it was seen at before")
    (memory,) = about(available=GIB)
    assert "Only 1.0 GiB of memory are free" in memory


def test_the_self_test_compares_every_pair_of_copies(
    launcher: Launcher, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(self_test, "HEATS", 1)
    monkeypatch.setattr(self_test, "COPIES", 3)
    found = run_self_test(launcher, "cpu", 1, tmp_path / "speeds.json", USUAL.work)
    assert found.comparisons == 3
    assert 0 <= found.false_flags <= 3
    assert found.noise > 0
    assert 0 < found.smallest_difference < found.unlike_difference
    assert set(found.disturbed) == set(CAUSES[1:])
    assert 0 < found.machine_speed <= 1


def test_the_log_ratio_of_a_copy_with_itself_is_zero(
    launcher: Launcher, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(self_test, "ROUNDS", 6)
    (one, *_) = self_test.time_copies(launcher, "cpu", 1, seed=0)
    assert np.all(self_test.log_ratios(one, one) == 0)


CARD = {"gpu_name": "Fake", "compute_mode": "default", "persistence_mode": "on"}


@pytest.mark.parametrize(
    ("facts", "words"),
    [
        ({"compute_mode": "exclusive process"}, "nvidia-smi -c DEFAULT"),
        ({"compute_mode": "prohibited"}, "compute mode prohibited"),
        ({"persistence_mode": "off"}, "nvidia-smi -pm 1"),
    ],
)
def test_a_mode_of_the_card_that_refuses_or_slows_workers_is_advised_on(
    facts: dict[str, str], words: str
) -> None:
    (advice,) = advise(MACHINE, 8 * GIB, (QUIET,), {"cuda": CARD | facts})
    assert words in advice
    assert advise(MACHINE, 8 * GIB, (QUIET,), {"cuda": CARD}) == []
    assert advise(MACHINE, 8 * GIB, (QUIET,), {"cuda": {"gpu_name": "old driver"}}) == []
