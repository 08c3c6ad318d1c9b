"""Disturbance: what else had the processor while a block ran, read before and after it.

Nothing is read while samples are taken. A block is marked by its cause, worst first:
`throttled` (the clock was held back, or the container had used up its time), `preempted` (our
threads waited for a processor, or the hypervisor took it away), `loaded` (others were running,
though beside us).
"""

from __future__ import annotations

import os
import resource
import time
from collections import deque
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from math import isnan
from pathlib import Path
from typing import Any

from harness.measure.processor import quota_groups, read_stopped_s
from harness.rounds import CAUSES

LOST_SHARE = 0.02
"""A block that lost more of its time than this is preempted: ticks and wake-ups take less."""
LOADED_SHARE = 0.1
"""Others are a load when they keep busy at least this share of the machine's processors."""
OWN_LIMIT = "power cap"
"""A card at full work is held back by its power limit: that is the work's doing, not another's, and
so is the clock that falls with it."""
QUOTA = "cpu quota"
"""What a block is throttled by while its control group had used up its processor time."""
SLOW_CLOCK = 0.85
"""Below this share of the fastest clock seen, the processor is throttled."""
RECENT = 20
"""Blocks over which others are counted by ticks of 10 ms, where no list tells who runs where."""


@dataclass(frozen=True)
class MachineTime:
    """Seconds of all processors together since the start, in ticks of mostly 10 ms."""

    busy_s: float
    stolen_s: float


@dataclass(frozen=True)
class Reading:
    """Counters of this process and the machine at one moment."""

    wall_ns: int
    cpu_ns: int
    waited_ns: dict[str, int]
    sleeps: int
    switches: int
    others: int
    own_s: float
    machine: MachineTime
    frequency_hz: float
    stopped_s: float = 0.0
    device: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Disturbance:
    """What happened between two readings; `cause` is one of CAUSES.

    `others` is how many threads of other processes were running, `others_s` their processor time
    (with `stolen_s` from a clock so coarse that only sums over blocks mean something).
    """

    cause: str
    wall_s: float = 0.0
    lost_s: float = 0.0
    switches: int = 0
    others: int = 0
    others_s: float = 0.0
    stolen_s: float = 0.0
    frequency_hz: float = float("nan")
    throttled_by: tuple[str, ...] = ()

    @property
    def level(self) -> int:
        """How bad: the place of the cause in CAUSES."""
        return CAUSES.index(self.cause)


class Watch:
    """Reads counters around a block and says whether it was disturbed.

    `processors` are those that the run may use; None are all of the machine's. What runs on others
    is not beside it.
    """

    def __init__(
        self,
        device_state: Callable[[], Mapping[str, Any]] = dict,
        processors: Collection[int] | None = None,
    ) -> None:
        self._device_state = device_state
        everything = os.cpu_count() or 1
        self._processors = everything if processors is None else len(processors)
        self._only = None if self._processors >= everything else frozenset(processors or ())
        self._fastest_hz = 0.0
        self._is_card = False
        self._quotas = quota_groups()
        self._recent: deque[tuple[float, float]] = deque(maxlen=RECENT)

    def read(self) -> Reading:
        """Return the counters now; the calling thread must be the one that times."""
        usage = resource.getrusage(resource.RUSAGE_THREAD)
        return Reading(
            wall_ns=time.perf_counter_ns(),
            cpu_ns=time.thread_time_ns(),
            waited_ns=read_waits(),
            sleeps=usage.ru_nvcsw,
            switches=resource.getrusage(resource.RUSAGE_SELF).ru_nivcsw,
            others=count_others(),
            own_s=time.process_time(),
            machine=read_machine_time(self._only),
            frequency_hz=read_frequency_hz(),
            stopped_s=read_stopped_s(self._quotas),
            device=self._device_state(),
        )

    def judge(self, before: Reading, after: Reading) -> Disturbance:
        """Return what disturbed the time between two readings."""
        wall_s = (after.wall_ns - before.wall_ns) / 1e9
        lost_s = lost_time_s(before, after)
        busy_s = after.machine.busy_s - before.machine.busy_s
        others_s = busy_s - (after.own_s - before.own_s)
        others = min(before.others, after.others)  # at both ends: not just the runner's wake-up
        if self._only is not None:
            others = min(others, self._count_near(wall_s, others_s))
        frequency_hz = self._find_clock(after)
        self._fastest_hz = max(self._fastest_hz, frequency_hz)
        reasons = find_throttles(before, after, wall_s)
        throttled_by = tuple(reason for reason in reasons if reason != OWN_LIMIT)
        slow = frequency_hz < SLOW_CLOCK * self._fastest_hz and OWN_LIMIT not in reasons
        if throttled_by or slow:
            cause = "throttled"
        elif lost_s > LOST_SHARE * wall_s:
            cause = "preempted"
        elif others >= LOADED_SHARE * self._processors or after.device.get("others", 0):
            cause = "loaded"
        else:
            cause = ""
        return Disturbance(
            cause,
            wall_s,
            lost_s,
            switches=after.switches - before.switches,
            others=others,
            others_s=others_s,
            stolen_s=after.machine.stolen_s - before.machine.stolen_s,
            frequency_hz=frequency_hz,
            throttled_by=throttled_by,
        )

    def _find_clock(self, reading: Reading) -> float:
        """The clock of what computes; NaN where a card that had one has lost it."""
        clock_hz = reading.device.get("sm_clock_hz")
        self._is_card = self._is_card or clock_hz is not None
        if not self._is_card:
            return reading.frequency_hz
        return float("nan") if clock_hz is None else float(clock_hz)

    def _count_near(self, wall_s: float, others_s: float) -> int:
        """Return how many others kept our processors busy, over this and the blocks before."""
        if isnan(others_s):
            return 0
        self._recent.append((wall_s, others_s))
        walls_s, busy_s = (sum(column) for column in zip(*self._recent, strict=True))
        return max(0, round(busy_s / walls_s)) if walls_s > 0 else 0


def find_throttles(before: Reading, after: Reading, wall_s: float) -> list[str]:
    """Return what held the clock back, before or after or for some of the time between."""
    reasons = [
        *before.device.get("throttle_reasons", ()),
        *after.device.get("throttle_reasons", ()),
    ]
    known = before.device.get("held_back_s", {})
    for reason, held_s in after.device.get("held_back_s", {}).items():
        if held_s - known.get(reason, held_s) > LOST_SHARE * wall_s:
            reasons.append(reason)
    if after.stopped_s - before.stopped_s > LOST_SHARE * wall_s:
        reasons.append(QUOTA)
    return list(dict.fromkeys(reasons))


def lost_time_s(before: Reading, after: Reading) -> float:
    """Return the longest that any thread wanted to run and did not, in seconds.

    Waiting on a run queue is counted by the kernel for each thread. Time that the hypervisor took
    is seen only as wall time without processor time, which means that only if the timing thread
    never slept by itself.
    """
    waits = [after.waited_ns[name] - before.waited_ns.get(name, 0) for name in after.waited_ns]
    lost_ns = max(waits, default=0)
    if after.sleeps == before.sleeps:
        off_ns = (after.wall_ns - before.wall_ns) - (after.cpu_ns - before.cpu_ns)
        lost_ns = max(lost_ns, off_ns)
    return max(0, lost_ns) / 1e9


def read_waits() -> dict[str, int]:
    """Return for each thread of this process the nanoseconds it has waited for a processor."""
    waits = {}
    for thread in _threads():
        fields = _read(f"/proc/self/task/{thread}/schedstat").split()
        if len(fields) == 3:
            waits[thread] = int(fields[1])
    return waits


def count_others() -> int:
    """Return how many threads of other processes run or wait to run, on the whole machine."""
    fields = _read("/proc/loadavg").split()
    running = int(fields[3].partition("/")[0]) if len(fields) > 3 else 1
    if running <= 1:
        return 0
    states = [_read(f"/proc/self/task/{thread}/stat").rpartition(")")[2] for thread in _threads()]
    return max(0, running - sum(state.split()[:1] == ["R"] for state in states))


def read_machine_time(processors: Collection[int] | None = None) -> MachineTime:
    """Return how long processors (None: all) were busy, and were taken by the hypervisor.

    NaN where the kernel does not tell: a difference to it is unknown, too.
    """
    wanted = {"cpu"} if processors is None else {f"cpu{number}" for number in processors}
    busy = stolen = 0
    known = False
    for line in _read("/proc/stat").splitlines():
        name, *fields = line.split()
        if not name.startswith("cpu"):
            break
        if name in wanted and len(fields) >= 8:
            user, nice, system, _, _, irq, soft_irq, taken = (int(field) for field in fields[:8])
            busy += user + nice + system + irq + soft_irq
            stolen += taken
            known = True
    tick_s = 1 / os.sysconf("SC_CLK_TCK") if known else float("nan")
    return MachineTime(tick_s * busy, tick_s * stolen)


def read_stall_s() -> float:
    """Return how long somebody has waited for a processor since the start; NaN without PSI.

    The kernel brings the figure up to date every two seconds: it is for heats, not for blocks.
    """
    fields = dict(field.split("=") for field in _read("/proc/pressure/cpu").split()[1:5])
    return int(fields["total"]) / 1e6 if "total" in fields else float("nan")


def read_frequency_hz() -> float:
    """Return the clock of the processor this thread is pinned to; NaN where either is unknown."""
    mine = os.sched_getaffinity(0)
    if len(mine) > 1:  # it may have run on any of them, and an idle one's clock is low
        return float("nan")
    (processor,) = mine
    text = _read(f"/sys/devices/system/cpu/cpu{processor}/cpufreq/scaling_cur_freq")
    return float(text) * 1e3 if text.strip().isdigit() else float("nan")


def _threads() -> list[str]:
    try:
        return [path.name for path in Path("/proc/self/task").iterdir()]
    except OSError:
        return []


def _read(path: str) -> str:
    try:
        return Path(path).read_text()
    except OSError:
        return ""
