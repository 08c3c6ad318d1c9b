"""The machine on trees of files like the kernel's, and the real one."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from harness.measure.machine import (
    available_memory_bytes,
    describe_machine,
    find_differences,
    fingerprint,
)
from harness.measure.processor import (
    container_free_bytes,
    container_limits,
    data_caches,
    describe_processor,
    quota_groups,
    read_stopped_s,
    usable_processors,
)

CPU0 = "sys/devices/system/cpu/cpu0"
NO_LIMIT_V1 = "9223372036854771712\n"
CPUINFO = """processor\t: 0
model name\t: Some CPU @ 3 GHz
flags\t\t: fpu avx2 hypervisor avx512_vnni

processor\t: 1
model name\t: Another
flags\t\t: fpu amx_int8
"""


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return tmp_path


def write(root: Path, files: dict[str, str]) -> None:
    for name, text in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)


def cache(index: int, level: int, kind: str, size: str, shared: str) -> dict[str, str]:
    texts = {"level": f"{level}\n", "type": f"{kind}\n", "size": size, "shared_cpu_list": shared}
    return {f"{CPU0}/cache/index{index}/{name}": text for name, text in texts.items()}


def test_model_and_flags_are_the_first_processors(root: Path) -> None:
    write(root, {"proc/cpuinfo": CPUINFO})
    found = describe_processor(root)
    assert found["cpu_model"] == "Some CPU @ 3 GHz"
    assert found["cpu_flags"] == ["avx2", "avx512_vnni"]


def test_caches_are_read_with_their_sizes_in_bytes_and_who_shares_them(root: Path) -> None:
    write(root, cache(0, 1, "Data", "48K\n", "0,32\n"))
    write(root, cache(1, 1, "Instruction", "32K\n", "0,32\n"))
    write(root, cache(2, 2, "Unified", "2048K\n", "0,32\n"))
    write(root, cache(3, 3, "Unified", "1G\n", "0-31,32-63\n"))
    found = describe_processor(root)
    assert found["caches"] == [
        {"level": 1, "type": "data", "size_bytes": 48 * 2**10, "shared_by": 2},
        {"level": 1, "type": "instruction", "size_bytes": 32 * 2**10, "shared_by": 2},
        {"level": 2, "type": "unified", "size_bytes": 2 * 2**20, "shared_by": 2},
        {"level": 3, "type": "unified", "size_bytes": 2**30, "shared_by": 64},
    ]
    assert data_caches(found) == [48 * 2**10, 2 * 2**20, 2**30]


@pytest.mark.parametrize(("siblings", "threads"), [("0\n", 1), ("0,32\n", 2), ("0-3\n", 4)])
def test_threads_of_a_core_are_counted_from_its_siblings(
    root: Path, siblings: str, threads: int
) -> None:
    write(root, {f"{CPU0}/topology/thread_siblings_list": siblings})
    assert describe_processor(root)["threads_per_core"] == threads


def test_a_virtual_machine_is_named_where_the_hypervisor_gives_a_name(root: Path) -> None:
    write(root, {"proc/cpuinfo": CPUINFO})
    assert describe_processor(root)["hypervisor"] is True
    names = {"sys_vendor": "Amazon EC2\n", "product_name": "m7i.large\n"}
    write(root, {f"sys/class/dmi/id/{name}": text for name, text in names.items()})
    assert describe_processor(root)["hypervisor"] == "Amazon EC2 m7i.large"


def test_a_machines_maker_is_not_taken_for_a_hypervisor(root: Path) -> None:
    write(root, {"proc/cpuinfo": "flags : avx2\n", "sys/class/dmi/id/sys_vendor": "Dell Inc.\n"})
    assert describe_processor(root)["hypervisor"] is False


def test_what_cannot_be_read_is_left_empty(root: Path) -> None:
    found = describe_processor(root)
    assert found.pop("cpu_model")  # what Python knows of it
    assert found == {
        "cpu_flags": [],
        "threads_per_core": 1,
        "caches": [],
        "governor": "",
        "hypervisor": False,
    }
    assert container_limits(root) == {"cpus": None, "memory_bytes": None}


def test_limits_of_version_2_are_read_from_the_processs_own_group(root: Path) -> None:
    group = "sys/fs/cgroup/system.slice/job"
    write(root, {"proc/self/cgroup": "0::/system.slice/job\n"})
    write(root, {f"{group}/cpu.max": "150000 100000\n", f"{group}/memory.max": "2147483648\n"})
    assert container_limits(root) == {"cpus": 1.5, "memory_bytes": 2**31}


def test_limits_of_version_1_are_read_from_each_controllers_own_group(root: Path) -> None:
    write(root, {"proc/self/cgroup": "4:memory:/a\n2:cpu,cpuacct:/b\n1:name=systemd:/c\n"})
    cpu, memory = "sys/fs/cgroup/cpu,cpuacct/b", "sys/fs/cgroup/memory/a"
    write(root, {f"{cpu}/cpu.cfs_quota_us": "50000\n", f"{cpu}/cpu.cfs_period_us": "100000\n"})
    write(root, {f"{memory}/memory.limit_in_bytes": "1073741824\n"})
    assert container_limits(root) == {"cpus": 0.5, "memory_bytes": 2**30}


def test_both_versions_side_by_side_are_read(root: Path) -> None:
    write(root, {"proc/self/cgroup": "3:memory:/a\n0::/b\n"})
    write(root, {"sys/fs/cgroup/memory/a/memory.limit_in_bytes": NO_LIMIT_V1})
    write(root, {"sys/fs/cgroup/unified/b/cpu.max": "200000 100000\n"})
    assert container_limits(root) == {"cpus": 2.0, "memory_bytes": None}


@pytest.mark.parametrize(
    ("line", "files"),
    [
        ("0::/a", {"a/cpu.max": "max 100000\n", "a/memory.max": "max\n"}),
        ("1:cpu:/", {"cpu/cpu.cfs_quota_us": "-1\n", "cpu/cpu.cfs_period_us": "100000\n"}),
        ("1:memory:/", {"memory/memory.limit_in_bytes": NO_LIMIT_V1}),
    ],
)
def test_no_limit_is_none_however_it_is_written(
    root: Path, line: str, files: dict[str, str]
) -> None:
    write(root, {"proc/self/cgroup": f"{line}\n"})
    write(root, {f"sys/fs/cgroup/{name}": text for name, text in files.items()})
    assert container_limits(root) == {"cpus": None, "memory_bytes": None}


@pytest.mark.parametrize("tightest", ["a", "a/b", "a/b/c"])
def test_the_tightest_limit_of_nested_groups_wins(root: Path, tightest: str) -> None:
    write(root, {"proc/self/cgroup": "0::/a/b/c\n"})
    for group in ("a", "a/b", "a/b/c"):
        quota = 100_000 if group == tightest else 800_000
        write(root, {f"sys/fs/cgroup/{group}/cpu.max": f"{quota} 100000\n"})
        write(root, {f"sys/fs/cgroup/{group}/memory.max": f"{quota}\n"})
    assert container_limits(root) == {"cpus": 1.0, "memory_bytes": 100_000}


def test_a_quota_is_a_share_of_the_processors_that_may_be_used(root: Path) -> None:
    allowed = len(os.sched_getaffinity(0))
    assert usable_processors(root) == allowed
    write(root, {"proc/self/cgroup": "0::/a\n", "sys/fs/cgroup/a/cpu.max": "50000 100000\n"})
    assert usable_processors(root) == 0.5
    write(root, {"sys/fs/cgroup/a/cpu.max": f"{allowed + 3}00000 100000\n"})
    assert usable_processors(root) == allowed


@pytest.mark.parametrize(
    ("line", "group", "files", "stopped_s"),
    [
        ("0::/a", "a", {"cpu.max": "50000 100000",
                        "cpu.stat": "nr_throttled 3\nthrottled_usec 250000"}, 0.25),
        ("2:cpu,cpuacct:/a", "cpu,cpuacct/a",
         {"cpu.cfs_quota_us": "50000", "cpu.cfs_period_us": "100000",
          "cpu.stat": "nr_throttled 3\nthrottled_time 250000000"}, 0.25),
        ("0::/a", "a", {"cpu.max": "50000 100000"}, float("nan")),
        ("0::/a", "a", {"cpu.max": "max 100000", "cpu.stat": "throttled_usec 7"}, 0.0),
    ],
)  # fmt: skip
def test_how_long_a_quota_has_stopped_its_group_is_read(
    root: Path, line: str, group: str, files: dict[str, str], stopped_s: float
) -> None:
    write(root, {"proc/self/cgroup": f"{line}\n"})
    write(root, {f"sys/fs/cgroup/{group}/{name}": text for name, text in files.items()})
    assert read_stopped_s(quota_groups(root)) == pytest.approx(stopped_s, nan_ok=True)


def test_a_sibling_groups_limit_is_not_ours(root: Path) -> None:
    write(root, {"proc/self/cgroup": "0::/a/b\n", "sys/fs/cgroup/a/other/memory.max": "4096\n"})
    assert container_limits(root)["memory_bytes"] is None


def test_inside_a_container_that_sees_the_hosts_path_the_mounts_own_limit_is_read(
    root: Path,
) -> None:
    write(root, {"proc/self/cgroup": "4:memory:/docker/1f2e\n"})
    write(root, {"sys/fs/cgroup/memory/memory.limit_in_bytes": "1048576\n"})
    assert container_limits(root)["memory_bytes"] == 2**20


@pytest.mark.parametrize("kind", [1, 2])
@pytest.mark.parametrize(
    ("most", "used", "dropped", "free"),
    [
        (2**30, 2**29, 0, 2**29),
        (2**30, 2**29, 2**28, 2**29 + 2**28),  # pages of files are dropped first
        (2**30, 2**31, 0, 0),  # a limit that was lowered under what is used
        (2**30, 2**20, 2**29, 2**30),  # counters that are read one after the other
        (2**62, 2**29, 0, None),
    ],
)
def test_what_a_limit_leaves_is_less_what_is_used_and_cannot_be_dropped(
    root: Path, kind: int, most: int, used: int, dropped: int, free: int | None
) -> None:
    group = root / "sys/fs/cgroup" / ("memory/a" if kind == 1 else "a")
    names = (("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file")
             if kind == 1 else ("memory.max", "memory.current", "inactive_file"))  # fmt: skip
    write(root, {"proc/self/cgroup": f"{'4:memory' if kind == 1 else '0:'}:/a\n"})
    write(root, {str(group.relative_to(root) / name): f"{value}\n"
                 for name, value in zip(names, (most, used), strict=False)})  # fmt: skip
    write(root, {str(group.relative_to(root) / "memory.stat"): f"anon 7\n{names[2]} {dropped}\n"})
    assert container_free_bytes(root) == free
    available = available_memory_bytes(root)
    assert available <= free if free is not None else available > 0


def test_the_least_that_any_group_leaves_counts_and_a_bare_host_has_no_limit(root: Path) -> None:
    assert container_free_bytes(root) is None
    write(root, {"proc/self/cgroup": "0::/a/b\n"})
    for group, most, used in (("a", 1000, 900), ("a/b", 500, 300)):
        write(root, {f"sys/fs/cgroup/{group}/memory.max": f"{most}\n",
                     f"sys/fs/cgroup/{group}/memory.current": f"{used}\n"})  # fmt: skip
    assert container_free_bytes(root) == 100


def test_this_machine_is_described_with_values_that_can_be() -> None:
    machine = describe_machine()
    assert machine["cpu_model"]
    assert machine["processors"] >= 1
    assert 1 <= machine["threads_per_core"] <= 8
    assert machine["memory_bytes"] > 2**28
    assert isinstance(machine["hypervisor"], bool | str)
    cpus, memory = machine["container"]["cpus"], machine["container"]["memory_bytes"]
    assert cpus is None or cpus > 0
    assert memory is None or memory > 2**20
    for found in machine["caches"]:
        assert found["level"] in (1, 2, 3, 4)
        assert 2**10 <= found["size_bytes"] <= 2**34
        assert found["shared_by"] >= 1
    assert data_caches(machine) == sorted(data_caches(machine))


def test_describing_the_machine_imports_no_torch() -> None:
    code = "from harness.measure.machine import describe_machine, fingerprint; import sys; "
    code += "fingerprint(describe_machine()); print('torch' in sys.modules)"
    command = [sys.executable, "-P", "-c", code]
    answer = subprocess.run(command, capture_output=True, text=True, check=True)
    assert answer.stdout.strip() == "False"


@pytest.fixture
def machine() -> dict[str, Any]:
    return {
        "host": "one",
        "system": "Linux 6.1",
        "cpu_model": "Some CPU",
        "cpu_flags": ["avx2"],
        "cores": 2,
        "processors": 4,
        "threads_per_core": 2,
        "caches": [{"level": 1, "type": "data", "size_bytes": 32768, "shared_by": 2}],
        "memory_bytes": 8 * 2**30,
        "container": {"cpus": None, "memory_bytes": None},
        "governor": "performance",
        "python": "3.11.7",
        "libraries": {"torch": "2.13.0+cpu", "numpy": "2.4.0", "pandas": "3.1.0"},
    }


def test_a_fingerprint_is_12_hex_digits_and_stays_the_same(machine: dict[str, Any]) -> None:
    found = fingerprint(machine)
    assert len(found) == 12
    assert int(found, 16) >= 0
    assert fingerprint(dict(reversed(machine.items()))) == found
    assert fingerprint(describe_machine()) == fingerprint(describe_machine())


@pytest.mark.parametrize(
    "changed",
    [
        {"cpu_model": "Another CPU"},
        {"cpu_flags": ["avx2", "avx512f"]},
        {"cores": 4},
        {"processors": 2},
        {"threads_per_core": 1},
        {"caches": []},
        {"memory_bytes": 16 * 2**30},
        {"container": {"cpus": 1.0, "memory_bytes": None}},
        {"governor": "powersave"},
        {"python": "3.12.7"},
        {"libraries": {"torch": "2.11.0", "numpy": "2.4.0"}},
        {"libraries": {"torch": "2.13.0+cpu", "numpy": "2.0.0"}},
        {"gpu_name": "H200"},
        {"gpu_uuid": "1234"},
        {"driver": "580.1"},
    ],
    ids=str,
)
def test_what_changes_the_speed_changes_the_fingerprint(
    machine: dict[str, Any], changed: dict[str, Any]
) -> None:
    assert fingerprint({**machine, **changed}) != fingerprint(machine)
    (told,) = find_differences(machine, {**machine, **changed})
    assert " → " in told
    assert find_differences({}, machine)


@pytest.mark.parametrize(
    "changed",
    [
        {"host": "another"},
        {"system": "Linux 6.2"},
        {"python": "3.11.9"},
        {"memory_bytes": 8 * 2**30 - 5 * 2**20},  # the kernel keeps a little more for itself
        {"libraries": {"torch": "2.13.0+cpu", "numpy": "2.4.0", "pandas": "3.2.0"}},
    ],
    ids=str,
)
def test_what_leaves_the_speed_alone_leaves_the_fingerprint_alone(
    machine: dict[str, Any], changed: dict[str, Any]
) -> None:
    assert fingerprint({**machine, **changed}) == fingerprint(machine)
    assert find_differences(machine, {**machine, **changed}) == []


def test_a_machine_is_the_same_after_its_way_through_a_file() -> None:
    machine = describe_machine()
    assert find_differences(json.loads(json.dumps(machine, sort_keys=True)), machine) == []


def test_a_difference_is_told_in_words(machine: dict[str, Any]) -> None:
    other = {**machine, "cpu_model": "Another", "python": "3.12.1", "gpu_name": "H200",
             "libraries": {"torch": "2.11.0", "numpy": "2.4.0"}}  # fmt: skip
    assert find_differences(machine, other) == [
        "cpu model Some CPU → Another", "python 3.11 → 3.12", "torch 2.13.0+cpu → 2.11.0",
        "gpu name unknown → H200",
    ]  # fmt: skip
