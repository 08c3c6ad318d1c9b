"""Which blocks are marked, from scripted readings and from real ones."""

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from math import isnan, nan
from pathlib import Path
from typing import Any

import pytest

from harness.measure.disturbance import (
    MachineTime,
    Reading,
    Watch,
    count_others,
    lost_time_s,
    read_frequency_hz,
    read_machine_time,
    read_stall_s,
)

pytestmark = pytest.mark.clock

MS = 1_000_000
START = Reading(
    wall_ns=0, cpu_ns=0, waited_ns={"1": 0, "2": 0}, sleeps=0, switches=0, others=0, own_s=0.0,
    machine=MachineTime(0.0, 0.0), frequency_hz=nan,
)  # fmt: skip
QUIET = replace(START, wall_ns=10 * MS, cpu_ns=10 * MS)


def judge(after: Reading, before: Reading = START, **state: Any) -> str:
    watch = Watch()
    watch._processors = 4  # what counts as a load depends on the machine
    return watch.judge(before, replace(after, device=state)).cause


def test_a_block_that_had_the_processor_to_itself_is_not_marked() -> None:
    assert judge(QUIET) == ""


def test_time_without_the_processor_marks_a_block_as_preempted() -> None:
    assert judge(replace(QUIET, cpu_ns=9 * MS)) == "preempted"
    assert judge(replace(QUIET, cpu_ns=9_900_000)) == "", "ticks and wake-ups take less"


def test_a_thread_of_the_pool_that_waited_marks_a_block_though_the_first_one_ran() -> None:
    assert judge(replace(QUIET, waited_ns={"1": 0, "2": 1 * MS})) == "preempted"
    assert judge(replace(QUIET, waited_ns={"1": 0, "2": 0, "new": 1 * MS})) == "preempted"


def test_a_thread_that_sleeps_by_itself_is_not_preempted() -> None:
    slept = replace(QUIET, cpu_ns=1 * MS, sleeps=5)
    assert judge(slept) == ""
    waited = replace(slept, waited_ns={"1": 3 * MS, "2": 0})
    assert judge(waited) == "preempted"
    assert lost_time_s(START, waited) == pytest.approx(0.003)


def test_others_that_run_before_and_after_mark_a_block_as_loaded() -> None:
    busy = replace(QUIET, others=1)
    assert judge(busy, replace(START, others=1)) == "loaded"
    assert judge(busy) == "", "the runner that falls asleep is seen at one end only"


def test_one_neighbour_is_no_load_on_a_large_machine() -> None:
    watch = Watch()
    watch._processors = 64
    assert watch.judge(replace(START, others=1), replace(QUIET, others=1)).cause == ""
    assert watch.judge(replace(START, others=7), replace(QUIET, others=7)).cause == "loaded"


def test_a_clock_held_back_marks_a_block_as_throttled() -> None:
    watch = Watch()
    fast, slow = replace(QUIET, frequency_hz=3e9), replace(QUIET, frequency_hz=2e9)
    assert watch.judge(START, fast).cause == ""
    assert watch.judge(START, slow).cause == "throttled"
    assert watch.judge(START, fast).cause == ""


def test_a_card_that_is_hot_marks_a_block_and_one_at_its_own_power_limit_does_not() -> None:
    assert judge(QUIET, throttle_reasons=["thermal"]) == "throttled"
    assert judge(QUIET, throttle_reasons=["power cap"]) == ""
    on_card = replace(QUIET, device={"sm_clock_hz": 1e9})
    assert Watch().judge(START, on_card).frequency_hz == 1e9
    assert Watch(lambda: {"sm_clock_hz": 1e9}).read().device == {"sm_clock_hz": 1e9}


def card(clock_hz: float, *reasons: str, thermal_s: float = 0.0, others: int = 0) -> Reading:
    """A reading after 10 ms on a card, in the form of NVML's states; the figures are made up."""
    told = {"sm_clock_hz": clock_hz, "throttle_reasons": list(reasons), "others": others,
            "held_back_s": {"thermal": 100 + thermal_s, "board limit": 3.0}}  # fmt: skip
    return replace(QUIET, device=told)


def test_a_card_whose_own_work_meets_its_power_limit_is_not_disturbed() -> None:
    watch = Watch()
    cool = replace(START, device=card(2.52e9).device)
    assert watch.judge(cool, card(2.52e9)).cause == ""
    assert watch.judge(cool, card(1.9e9, "power cap")).cause == "", "the clock falls with it"
    assert watch.judge(cool, card(1.9e9)).cause == "throttled", "and by itself it does not"
    hot = watch.judge(cool, card(1.9e9, "power cap", "thermal"))
    assert (hot.cause, hot.throttled_by) == ("throttled", ("thermal",))


def test_what_held_the_clock_back_between_two_looks_is_told_by_its_counter() -> None:
    cool = replace(START, device=card(2.5e9).device)
    found = Watch().judge(cool, card(2.5e9, thermal_s=0.003))
    assert (found.cause, found.throttled_by) == ("throttled", ("thermal",))
    assert Watch().judge(cool, card(2.5e9, thermal_s=0.0001)).cause == ""
    assert Watch().judge(START, card(2.5e9)).cause == "", "a counter that was not there before"


def test_who_else_computes_on_the_card_loads_the_block() -> None:
    cool = replace(START, device=card(2.5e9).device)
    assert Watch().judge(cool, card(2.5e9, others=1)).cause == "loaded"


def test_the_worst_cause_names_the_block() -> None:
    bad = replace(QUIET, cpu_ns=5 * MS, others=3)
    assert judge(bad, replace(START, others=3)) == "preempted"
    assert judge(bad, replace(START, others=3), throttle_reasons=["hw slowdown"]) == "throttled"


def test_processor_time_of_others_is_the_machines_less_our_own() -> None:
    after = replace(QUIET, own_s=0.010, machine=MachineTime(0.030, 0.005))
    found = Watch().judge(START, after)
    assert found.others_s == pytest.approx(0.020)
    assert found.stolen_s == pytest.approx(0.005)


@pytest.fixture
def neighbours() -> Iterator[int]:
    """More busy processes than processors, so that they meet this one for sure."""
    count = 2 * (os.cpu_count() or 1)
    started = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(count)]
    time.sleep(0.5)
    yield count
    for process in started:
        process.kill()
        process.wait()


def spin(seconds: float) -> None:
    end = time.perf_counter() + seconds
    while time.perf_counter() < end:
        pass


def test_real_neighbours_are_counted_and_their_preemption_is_seen(neighbours: int) -> None:
    watch = Watch()
    causes, lost_s, others = set(), 0.0, 0
    for _ in range(20):
        before = watch.read()
        spin(0.02)
        found = watch.judge(before, watch.read())
        causes.add(found.cause)
        lost_s += found.lost_s
        others = max(others, found.others)
    assert "preempted" in causes
    assert lost_s > 0.05 * 0.4, "with three times too few processors"
    assert others >= neighbours / 2


def busy(others_s: float, stopped_s: float = 0.0) -> tuple[Reading, Reading]:
    """Readings of 10 ms of our own, with five others on the machine and some time of theirs."""
    machine = MachineTime(0.010 + others_s, 0.0)
    after = replace(QUIET, others=5, own_s=0.010, machine=machine, stopped_s=stopped_s)
    return replace(START, others=5), after


@pytest.mark.skipif((os.cpu_count() or 1) < 2, reason="needs two processors")
def test_a_run_that_is_confined_is_beside_those_on_its_own_processors_only() -> None:
    watch = Watch(processors={0})
    assert [watch.judge(*busy(0.0)).others for _ in range(10)] == [0] * 10
    assert watch.judge(*busy(0.0)).cause == ""
    crowded = Watch(processors={0})
    ticks = [0.0, 0.02, 0.01, 0.01, 0.0, 0.02]  # a clock of 10 ms is right on average only
    assert [crowded.judge(*busy(tick)).others for tick in ticks][-1] == 1
    assert crowded.judge(*busy(0.01)).cause == "loaded"
    assert Watch(processors=range(os.cpu_count() or 1)).judge(*busy(0.0)).others == 5


def test_a_container_that_had_used_up_its_time_marks_the_block() -> None:
    found = Watch().judge(*busy(0.0, stopped_s=0.004))
    assert (found.cause, found.throttled_by) == ("throttled", ("cpu quota",))
    assert Watch().judge(*busy(0.0, stopped_s=0.0001)).throttled_by == ()


CONFINED = """
import os, sys, time
from harness.measure.disturbance import Watch
os.sched_setaffinity(0, {0})
watch = Watch(processors={0})
causes = []
for _ in range(40):
    before, end = watch.read(), time.perf_counter() + 0.02
    while time.perf_counter() < end:
        pass
    causes.append(watch.judge(before, watch.read()))
print(sum(one.cause in ("loaded", "preempted") for one in causes[20:]),
      sum("cpu quota" in one.throttled_by for one in causes))
"""


@contextmanager
def spinning_on(processor: int) -> Iterator[None]:
    spin = f"import os; os.sched_setaffinity(0, {{{processor}}})\nwhile True: pass"
    with subprocess.Popen([sys.executable, "-c", spin]) as process:
        time.sleep(0.5)
        yield
        process.kill()


@pytest.mark.skipif((os.cpu_count() or 1) < 2, reason="needs two processors")
def test_a_real_neighbour_marks_a_confined_run_only_on_its_own_processor() -> None:
    def marked() -> int:
        done = subprocess.run([sys.executable, "-c", CONFINED], capture_output=True, check=True)
        return int(done.stdout.split()[0])

    with spinning_on(1):
        elsewhere = marked()
    with spinning_on(0):
        beside = marked()
    assert beside >= 15, "of 20 blocks"
    assert elsewhere < beside


@pytest.fixture
def half_a_processor() -> Iterator[Path]:
    """A real control group that allows half of a processor's time."""
    folder = Path("/sys/fs/cgroup/cpu") / f"paretogrid-test-{os.getpid()}"
    try:
        folder.mkdir()
        (folder / "cpu.cfs_quota_us").write_text("50000")
    except OSError as error:
        pytest.skip(f"no control group of version 1 can be made here: {error}")
    yield folder
    folder.rmdir()


def test_a_real_quota_marks_the_blocks_that_it_stops(half_a_processor: Path) -> None:
    enter = f"open({str(half_a_processor / 'cgroup.procs')!r}, 'w').write('0')\n"
    tell = "from harness.measure.processor import usable_processors\nprint(usable_processors())\n"
    done = subprocess.run(
        [sys.executable, "-c", enter + tell + CONFINED], capture_output=True, check=True, text=True
    )
    usable, told = done.stdout.splitlines()
    assert usable == "0.5"
    stopped = int(told.split()[1])
    assert stopped >= 10, "40 blocks of 20 ms take 1.6 s with half a processor: a third is stopped"
    # In the same group of processes without a quota none is.
    done = subprocess.run([sys.executable, "-c", CONFINED], capture_output=True, check=True)
    assert done.stdout.split()[1] == b"0"


def test_what_the_kernel_shows_can_be_read_here() -> None:
    assert count_others() >= 0
    assert read_machine_time().busy_s > 0
    stalled_s = read_stall_s()
    assert isnan(stalled_s) or stalled_s >= 0


def test_a_thread_that_may_run_anywhere_has_no_clock_that_is_known() -> None:
    """Another processor's, idle and so low, would look like a clock held back."""
    mine = os.sched_getaffinity(0)
    if len(mine) < 2:
        pytest.skip("one processor only")
    assert isnan(read_frequency_hz())
    try:
        os.sched_setaffinity(0, {min(mine)})
        shown = Path(f"/sys/devices/system/cpu/cpu{min(mine)}/cpufreq/scaling_cur_freq").exists()
        assert isnan(read_frequency_hz()) != shown
    finally:
        os.sched_setaffinity(0, mine)
