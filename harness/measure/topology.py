"""Topology: which processors threads are pinned to, by cores, kinds of core, and memory nodes.

Read from /sys without torch; `root` is where it is found, so that a test can build another machine.
Source: Linux, Documentation/admin-guide/cputopology.rst and ABI/testing/sysfs-devices-system-cpu.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path

from harness.measure.processor import parse_list
from harness.wording import counted

FOLDER = "sys/devices/system/cpu"
SAME_KIND = 0.9
"""Cores within this share of the fastest one's clock are of its kind: some are favoured by a few
steps of the clock, another kind is slower by a fifth or more."""


@dataclass(frozen=True)
class Processor:
    """A hardware thread: its number, its core (the numbers that share it), node, and speed."""

    number: int
    core: tuple[int, ...]
    node: int
    speed: float


def choose_processors(
    threads: int, allowed: Collection[int], root: Path = Path("/"), near: int | None = None
) -> list[int]:
    """Return the processors for so many threads, the first thread's first; or all there are.

    One of each core, the fastest kind of core first, on the memory node `near` (a card's) or else
    on the one with most cores; then other nodes, then other kinds; a core's second hardware thread
    only when all cores are taken. Among equals the last: the system's own work prefers the first.
    """
    found = [read_processor(number, root) for number in allowed]
    firsts = [one for one in found if one.number == _first(one, allowed)]
    cores = Counter(one.node for one in firsts)
    kinds = _find_kinds(found)

    def rank(one: Processor) -> tuple[bool, int, bool, int, int, int]:
        return (
            one not in firsts,
            kinds[one.speed],
            near is not None and one.node != near,
            -cores[one.node],
            -one.node,
            -one.number,
        )

    return [one.number for one in sorted(found, key=rank)[:threads]]


def describe_choice(chosen: Collection[int], root: Path = Path("/")) -> str:
    """Return what processors are, as in "2 cores" or "3 processors on 2 cores, nodes 0 and 1"."""
    found = [read_processor(number, root) for number in chosen]
    cores = len({one.core for one in found})
    nodes = sorted({one.node for one in found})
    text = counted(cores, "core")
    if len(found) != cores:
        text = f"{counted(len(found), 'processor')} on {text}"
    several = len(list((root / "sys/devices/system/node").glob("node[0-9]*"))) > 1
    where = " and ".join(str(node) for node in nodes)
    return f"{text}, node{'s' * (len(nodes) > 1)} {where}" if several else text


def read_processor(number: int, root: Path = Path("/")) -> Processor:
    """Return what the kernel tells of a processor; else it is a core of its own on node 0."""
    folder = root / FOLDER / f"cpu{number}"
    shared = _read(folder / "topology/core_cpus_list") or _read(
        folder / "topology/thread_siblings_list"
    )
    nodes = [int(path.name[4:]) for path in folder.glob("node[0-9]*")]
    speeds = (_read(folder / "cpu_capacity"), _read(folder / "cpufreq/cpuinfo_max_freq"))
    return Processor(
        number,
        tuple(parse_list(shared)) or (number,),
        min(nodes, default=0),
        next((float(text) for text in speeds if text.isdecimal()), 1.0),
    )


def _find_kinds(found: Collection[Processor]) -> dict[float, int]:
    """The kind of core by its speed: 0 the fastest."""
    kinds: dict[float, int] = {}
    fastest, kind = 0.0, -1
    for speed in sorted({one.speed for one in found}, reverse=True):
        if kind < 0 or speed < SAME_KIND * fastest:
            fastest, kind = speed, kind + 1
        kinds[speed] = kind
    return kinds


def _first(one: Processor, allowed: Collection[int]) -> int:
    """The one of a core's processors that a first thread gets: the last that is allowed."""
    return max(number for number in one.core if number in allowed)


def _read(path: Path) -> str:
    try:
        return path.read_text().strip()
    except OSError:
        return ""
