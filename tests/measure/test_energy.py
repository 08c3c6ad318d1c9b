"""Energy against a world whose power is known: a scripted clock, a counter that follows it."""

import contextlib
import os
import tempfile
from collections.abc import Iterator
from itertools import pairwise
from math import floor, isnan
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from harness.measure.cuda import CudaDevice
from harness.measure.devices import CpuDevice, open_device
from harness.measure.energy import (
    EnergyCounter,
    NvmlCounter,
    RaplCounter,
    find_counter,
    measure_energy,
)

NOBODY = 65534


class World:
    """Time passes only by sleeping (idle power) and calling (20 W more). It is its own counter."""

    name = "scripted"
    window_s = 0.5

    def __init__(
        self, call_s: float = 0.01, drift_w_per_s: float = 0.0, update_s: float = 0.0
    ) -> None:
        self.call_s, self.drift, self.update_s = call_s, drift_w_per_s, update_s
        self.time_s = self.busy_s = 0.0

    def energy_j(self) -> float:
        """10 W that grow by the drift, and 20 W while busy."""
        return 10 * self.time_s + self.drift * self.time_s**2 / 2 + 20 * self.busy_s

    def clock(self) -> float:
        return self.time_s

    def sleep(self, seconds: float) -> None:
        self.time_s += seconds

    def call(self) -> None:
        self.time_s += self.call_s
        self.busy_s += self.call_s

    def read_j(self) -> float:
        if not self.update_s:
            return self.energy_j()
        known = World(drift_w_per_s=self.drift)
        known.time_s = floor(self.time_s / self.update_s) * self.update_s
        known.busy_s = floor(self.busy_s / self.update_s) * self.update_s
        return known.energy_j()

    def measure(self, counter: EnergyCounter | None = None, **options: Any) -> Any:
        return measure_energy(
            self.call, counter or self, clock=self.clock, sleep=self.sleep, **options
        )


def test_a_call_s_energy_is_what_it_takes_beyond_idling() -> None:
    estimate = World().measure()
    assert estimate.value == pytest.approx(0.2)
    assert estimate.low == pytest.approx(0.2) and estimate.high == pytest.approx(0.2)


@pytest.mark.parametrize("drift_w_per_s", [-0.5, 3.0])
def test_an_idle_level_that_drifts_cancels(drift_w_per_s: float) -> None:
    estimate = World(drift_w_per_s=drift_w_per_s).measure()
    assert estimate.value == pytest.approx(0.2)
    assert estimate.high - estimate.low < 1e-6


def test_a_call_longer_than_a_window_counts_as_one() -> None:
    assert World(call_s=3.0).measure().value == pytest.approx(60.0)


def test_the_energy_does_not_depend_on_the_window() -> None:
    assert World(call_s=0.03).measure(window_s=0.1).value == pytest.approx(0.6)


def test_a_counter_that_updates_seldom_errs_by_its_share_of_the_window() -> None:
    world = World(call_s=0.0073, update_s=0.02)
    # Both ends of a busy window and of its two idle ones can be one update late.
    worst_w = 30 * 2 * 0.02 / 2.0 + 10 * 2 * 0.02 / 2.0
    estimate = world.measure(window_s=2.0, windows=9)
    assert estimate.value == pytest.approx(20 * 0.0073, abs=worst_w * 0.0073)


def test_without_a_window_the_counter_s_own_is_taken() -> None:
    quick, slow = World(), World()
    slow.window_s = 2.0
    quick.measure()
    slow.measure()
    assert slow.time_s / quick.time_s == pytest.approx(4.0, rel=0.1)
    assert NvmlCounter.window_s > RaplCounter.window_s


def test_too_few_windows_give_a_value_without_an_interval() -> None:
    estimate = World().measure(windows=2)
    assert estimate.value == pytest.approx(0.2)
    assert isnan(estimate.low) and isnan(estimate.high)


def add_domain(root: Path, zone: str, name: str, energy_uj: int, span_uj: int = 10**9) -> Path:
    folder = root / "sys/class/powercap" / zone
    folder.mkdir(parents=True)
    (folder / "name").write_text(f"{name}\n")
    (folder / "energy_uj").write_text(f"{energy_uj}\n")
    (folder / "max_energy_range_uj").write_text(f"{span_uj}\n")
    return folder / "energy_uj"


def found(root: Path) -> EnergyCounter:
    counter = find_counter(CpuDevice(), root)
    assert not isinstance(counter, str), counter
    return counter


def test_packages_are_summed_and_what_they_contain_or_what_contains_them_is_not(
    tmp_path: Path,
) -> None:
    files = [
        add_domain(tmp_path, "intel-rapl:0", "package-0", 1_000_000),
        add_domain(tmp_path, "intel-rapl:1", "package-1", 500_000),
        add_domain(tmp_path, "intel-rapl:0:0", "core", 7),
        add_domain(tmp_path, "intel-rapl:0:1", "package-like", 7),
        add_domain(tmp_path, "intel-rapl:2", "psys", 7),
        add_domain(tmp_path, "intel-rapl-mmio:0", "package-0", 7),
    ]
    counter = found(tmp_path)
    begin = counter.read_j()
    for file in files:
        file.write_text(str(int(file.read_text()) + 3_000_000))
    assert counter.read_j() - begin == pytest.approx(6.0)


def test_a_counter_that_wraps_goes_on_growing(tmp_path: Path) -> None:
    file = add_domain(tmp_path, "intel-rapl:0", "package-0", 900, span_uj=1_000)
    counter = found(tmp_path)
    seen = [counter.read_j()]
    for value in (100, 600, 50):
        file.write_text(str(value))
        seen.append(counter.read_j())
    grown = [after - before for before, after in pairwise(seen)]
    assert grown == pytest.approx([200e-6, 500e-6, 450e-6])


def test_energy_through_a_wrapping_rapl_counter_is_the_world_s(tmp_path: Path) -> None:
    span_uj = 40_000_000  # the world takes more than that in three windows
    file = add_domain(tmp_path, "intel-rapl:0", "package-0", 0, span_uj)

    class Machine(World):
        """A world whose kernel shows its energy in a file."""

        def sleep(self, seconds: float) -> None:
            super().sleep(seconds)
            self.show()

        def call(self) -> None:
            super().call()
            self.show()

        def show(self) -> None:
            file.write_text(str(round(self.energy_j() * 1e6) % span_uj))

    world = Machine(call_s=0.05)
    estimate = world.measure(found(tmp_path))
    assert world.energy_j() * 1e6 > 2 * span_uj
    assert estimate.value == pytest.approx(1.0)


def test_where_there_is_no_rapl_that_is_the_reason(tmp_path: Path) -> None:
    reason = "no RAPL counter under /sys/class/powercap"
    assert find_counter(CpuDevice(), tmp_path) == reason
    folder = tmp_path / "sys/class/powercap"
    folder.mkdir(parents=True)
    (folder / "intel-rapl:0").symlink_to(tmp_path / "hidden by the container")
    assert find_counter(CpuDevice(), tmp_path) == reason


@contextlib.contextmanager
def without_root() -> Iterator[None]:
    """Give up root's right to read everything, for a while."""
    before = os.geteuid()
    if before == 0:
        os.seteuid(NOBODY)
    try:
        yield
    finally:
        os.seteuid(before)


def test_a_counter_for_root_only_is_said_to_be_so() -> None:
    with tempfile.TemporaryDirectory() as name:  # tmp_path's parents let only their owner enter
        root = Path(name)
        root.chmod(0o755)
        file = add_domain(root, "intel-rapl:0", "package-0", 1)
        file.chmod(0o400 if os.geteuid() == 0 else 0)
        with without_root():
            reason = find_counter(CpuDevice(), root)
    assert reason == "RAPL exists but may be read by root only"


def test_a_counter_that_holds_no_number_is_reported(tmp_path: Path) -> None:
    add_domain(tmp_path, "intel-rapl:0", "package-0", 1).write_text("")
    reason = find_counter(CpuDevice(), tmp_path)
    assert isinstance(reason, str) and reason.startswith("RAPL exists but cannot be read")


class FakeNvml:
    """NVML whose card has counted so many millijoules, or cannot count."""

    class NVMLError(Exception):
        pass

    def __init__(self, millijoules: int | None, knows_the_card: bool = True) -> None:
        self.millijoules = millijoules
        self.knows_the_card = knows_the_card

    def nvmlDeviceGetHandleByUUID(self, uuid: str) -> str:  # noqa: N802  # NVML's name
        if not self.knows_the_card:
            raise self.NVMLError("Not Found")
        return uuid

    def nvmlDeviceGetTotalEnergyConsumption(self, handle: str) -> int:  # noqa: N802
        assert handle == "GPU-1234"
        if self.millijoules is None:
            raise self.NVMLError("Not Supported")
        return self.millijoules


def card(nvml: FakeNvml | None) -> CudaDevice:
    cuda = SimpleNamespace(get_device_properties=lambda index: SimpleNamespace(uuid="1234"))
    return CudaDevice(0, cuda, nvml)


def test_a_card_s_millijoules_are_read_as_joules() -> None:
    counter = find_counter(card(FakeNvml(2_500)))
    assert not isinstance(counter, str)
    assert (counter.name, counter.read_j()) == ("NVML", 2.5)


@pytest.mark.parametrize(
    ("nvml", "reason"),
    [
        (FakeNvml(None), "this card has no energy counter: Not Supported"),
        (FakeNvml(1, knows_the_card=False), "NVML does not know cuda:0"),
        (None, "the driver's management library (NVML) does not load"),
    ],
)
def test_a_card_without_a_counter_says_why(nvml: FakeNvml | None, reason: str) -> None:
    assert find_counter(card(nvml)) == reason


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA card; none here")
def test_on_a_real_card_work_takes_energy() -> None:
    device = open_device("cuda")
    counter = find_counter(device)
    if isinstance(counter, str):
        pytest.skip(counter)
    values = device.place(torch.ones(8192, 8192))
    estimate = measure_energy(device.finish(lambda: values @ values), counter, window_s=0.5)
    assert estimate.value > 0


def test_on_a_real_processor_work_takes_energy_where_it_can_be_counted() -> None:
    counter = find_counter(CpuDevice())
    if isinstance(counter, str):
        pytest.skip(counter)
    values = torch.ones(512, 512)
    assert measure_energy(lambda: values @ values, counter, window_s=0.2).value > 0
