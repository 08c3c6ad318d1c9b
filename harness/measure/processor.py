"""The processor and the limits put on it: read from /proc and /sys, without torch.

`root` is where these folders are found, so that a test can build another machine.
"""

from __future__ import annotations

import os
import platform
from collections.abc import Iterable, Iterator
from pathlib import Path, PurePosixPath
from typing import Any

FLAGS = ("avx2", "avx512f", "avx512_vnni", "avx_vnni", "avx512_bf16", "avx512_fp16", "amx_int8",
         "amx_bf16", "asimd", "asimddp", "i8mm", "bf16", "sve")  # fmt: skip
"""Processor flags that decide which low-precision kernels exist."""
CPU0 = "sys/devices/system/cpu/cpu0"
NO_LIMIT_BYTES = 2**60
"""Version 1 writes "no limit" as the largest number of whole pages, just under 2^63."""
UNITS = {"K": 2**10, "M": 2**20, "G": 2**30}


def describe_processor(root: Path = Path("/")) -> dict[str, Any]:
    """Return model, flags, threads a core, caches, governor and hypervisor as plain data.

    What cannot be read is empty: "" or [], and one thread a core.
    """
    model, flags = _model_and_flags(root)
    return {
        "cpu_model": model,
        "cpu_flags": [flag for flag in FLAGS if flag in flags],
        "threads_per_core": _count(_read(root / CPU0 / "topology/thread_siblings_list")),
        "caches": _caches(root),
        "governor": _read(root / CPU0 / "cpufreq/scaling_governor"),
        "hypervisor": _hypervisor(root) if "hypervisor" in flags else False,
    }


def container_limits(root: Path = Path("/")) -> dict[str, Any]:
    """Return {"cpus": processors' worth of time, "memory_bytes"} allowed; None where unlimited.

    The tightest limit of this process's control groups and their parents, of version 1 and 2.
    Source: Linux, Documentation/admin-guide/cgroup-v2.rst and cgroup-v1/, scheduler/sched-bwc.rst.
    """
    cpus: list[float] = []
    sizes: list[int] = []
    for group in _groups(root):
        cpus += _quotas(group)
        for name in ("memory.max", "memory.limit_in_bytes"):
            text = _read(group / name)
            if text.isdecimal() and int(text) < NO_LIMIT_BYTES:
                sizes.append(int(text))
    return {"cpus": min(cpus, default=None), "memory_bytes": min(sizes, default=None)}


def quota_groups(root: Path = Path("/")) -> list[Path]:
    """Return the control groups of this process that limit its processor time."""
    return [group for group in _groups(root) if _quotas(group)]


def read_stopped_s(groups: Iterable[Path]) -> float:
    """Return how long control groups were stopped, as their processor time was used up, in seconds.

    Summed over processors; NaN where one does not tell (any more). Source: as `container_limits`
    (cpu.stat).
    """
    total_s = 0.0
    for group in groups:
        lines = _read(group / "cpu.stat").splitlines()
        told = dict(line.split()[:2] for line in lines if " " in line)
        micro, nano = told.get("throttled_usec"), told.get("throttled_time")
        if micro is None and nano is None:
            return float("nan")
        total_s += int(micro or 0) / 1e6 + int(nano or 0) / 1e9
    return total_s


def usable_processors(root: Path = Path("/")) -> float:
    """Return how many processors this process may keep busy: those of its set, or its quota."""
    allowed = len(os.sched_getaffinity(0))
    quota = container_limits(root)["cpus"]
    return allowed if quota is None else min(allowed, quota)


def container_free_bytes(root: Path = Path("/")) -> int | None:
    """Return the memory that this process's control groups still allow; None where unlimited.

    The least over its groups and their parents: limit less use, where use counts no file pages that
    the kernel would drop first. Source: as `container_limits`, and memory.stat's inactive_file.
    """
    free = []
    for group in _groups(root):
        for limit, use, prefix in (
            ("memory.max", "memory.current", ""),
            ("memory.high", "memory.current", ""),
            ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_"),
        ):
            most, used = _read(group / limit), _read(group / use)
            if most.isdecimal() and used.isdecimal() and int(most) < NO_LIMIT_BYTES:
                lines = _read(group / "memory.stat").splitlines()
                stat = dict(line.split()[:2] for line in lines if " " in line)
                dropped = int(stat.get(f"{prefix}inactive_file", 0))
                free.append(max(0, int(most) - max(0, int(used) - dropped)))
    return min(free, default=None)


def data_caches(machine: dict[str, Any]) -> list[int]:
    """Return the sizes in bytes of a described machine's data caches, the first level first."""
    caches = (cache for cache in machine.get("caches", []) if cache["type"] != "instruction")
    return [cache["size_bytes"] for cache in sorted(caches, key=lambda cache: cache["level"])]


def parse_list(text: str) -> list[int]:
    """Return the numbers in a kernel's list such as "0-3,8"; nothing where it is none."""
    numbers: list[int] = []
    for part in filter(None, text.strip().split(",")):
        first, _, last = part.partition("-")
        if not first.isdecimal() or not (last or first).isdecimal():
            return []
        numbers += range(int(first), int(last or first) + 1)
    return numbers


def _model_and_flags(root: Path) -> tuple[str, set[str]]:
    model = ""
    flags: set[str] = set()
    for line in _read(root / "proc/cpuinfo").splitlines():
        name, _, value = line.partition(":")
        if name.strip() == "model name" and not model:
            model = value.strip()
        if name.strip() in ("flags", "Features") and not flags:
            flags = set(value.split())
    return model or platform.processor() or platform.machine(), flags


def _hypervisor(root: Path) -> str | bool:
    """The name that the hypervisor gives its machines, or True where it gives none."""
    folder = root / "sys/class/dmi/id"
    names = (_read(folder / name) for name in ("sys_vendor", "product_name"))
    return " ".join(name for name in names if name) or True


def _caches(root: Path) -> list[dict[str, Any]]:
    found = []
    for folder in sorted((root / CPU0 / "cache").glob("index*")):
        level, size = _read(folder / "level"), _read(folder / "size")
        if level.isdecimal() and size[:-1].isdecimal() and size[-1] in UNITS:
            found.append(
                {
                    "level": int(level),
                    "type": _read(folder / "type").lower(),
                    "size_bytes": int(size[:-1]) * UNITS[size[-1]],
                    "shared_by": _count(_read(folder / "shared_cpu_list")),
                }
            )
    return found


def _count(processors: str) -> int:
    """The length of a kernel's list; 1 where it says nothing."""
    return max(1, len(parse_list(processors)))


def _quotas(group: Path) -> list[float]:
    """Processors' worth of time that a group allows, of version 2 and 1; nothing without limit."""
    quota, _, period = _read(group / "cpu.max").partition(" ")
    old = (_read(group / name) for name in ("cpu.cfs_quota_us", "cpu.cfs_period_us"))
    return [*_share(quota, period), *_share(*old)]


def _share(quota: str, period: str) -> list[float]:
    """Processors' worth of time, or nothing where the quota is "max", -1 or unreadable."""
    limited = quota.isdecimal() and period.isdecimal() and int(period) > 0
    return [int(quota) / int(period)] if limited else []


def _groups(root: Path) -> Iterator[Path]:
    """The folders in which a limit of this process may stand: its groups and their parents.

    Inside a container the path may be the host's, which is not mounted there: its parents end at
    the mount itself, and that is then the container's own group.
    """
    base = root / "sys/fs/cgroup"
    for line in _read(root / "proc/self/cgroup").splitlines():
        _, controllers, path = line.split(":", 2)
        # Version 2 has no controllers here, and stands in `unified` where both are in use.
        names = (controllers, *controllers.split(",")) if controllers else ("", "unified")
        group = PurePosixPath(path)
        for name in dict.fromkeys(names):
            for ancestor in (group, *group.parents):
                yield base / name / ancestor.relative_to("/")


def _read(path: Path) -> str:
    try:
        return path.read_text().strip()
    except OSError:
        return ""
