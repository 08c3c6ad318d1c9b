"""Energy of a call, where the hardware has a counter: RAPL for processors, NVML for cards."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Protocol

from harness.measure.cuda import CudaDevice
from harness.measure.devices import Device
from harness.stats import LEAST_FOR_INTERVAL, Estimate, median_interval

POWERCAP = "sys/class/powercap"


class EnergyCounter(Protocol):
    """Joules that only grow, from an arbitrary start. `window_s` is long against its updates."""

    name: str
    window_s: float

    def read_j(self) -> float:
        """Return the joules counted so far."""


class RaplCounter:
    """The processor packages' counters together, cores and caches included; AMD's too.

    Updated about every millisecond. Source: Linux, Documentation/power/powercap/powercap.rst.
    """

    name = "RAPL"
    window_s = 0.5

    def __init__(self, packages: Sequence[Path]) -> None:
        self._counters = [package / "energy_uj" for package in packages]
        self._ranges_uj = [_read_integer(package / "max_energy_range_uj") for package in packages]
        self._last_uj = [_read_integer(counter) for counter in self._counters]
        self._total_uj = 0

    def read_j(self) -> float:
        """Return the joules since the counter was made.

        Read it more often than the hardware wraps, which takes minutes at the least.
        """
        now_uj = [_read_integer(counter) for counter in self._counters]
        for now, last, span in zip(now_uj, self._last_uj, self._ranges_uj, strict=True):
            self._total_uj += now - last + (span if now < last else 0)
        self._last_uj = now_uj
        return self._total_uj / 1e6


class NvmlCounter:
    """A card's own counter since its driver was loaded: 64 bits of millijoules, which never wrap.

    Updated every 20 to 100 ms. The whole card's: other processes' work on it is counted.
    """

    name = "NVML"
    window_s = 2.0

    def __init__(self, handle: Any, nvml: Any) -> None:
        self._handle = handle
        self._nvml = nvml

    def read_j(self) -> float:
        """Return the joules since the driver was loaded."""
        return float(self._nvml.nvmlDeviceGetTotalEnergyConsumption(self._handle)) / 1e3


def find_counter(device: Device, root: Path = Path("/")) -> EnergyCounter | str:
    """Return the device's energy counter, or the reason why there is none."""
    return _find_nvml(device) if isinstance(device, CudaDevice) else _find_rapl(root / POWERCAP)


def measure_energy(
    call: Callable[[], Any],
    counter: EnergyCounter,
    window_s: float | None = None,
    windows: int = LEAST_FOR_INTERVAL + 1,
    clock: Callable[[], float] = time.perf_counter,
    sleep: Callable[[float], None] = time.sleep,
) -> Estimate:
    """Return the energy of one call beyond idling, in joules, with an interval over busy windows.

    Busy windows of calls alternate with idle ones. A busy window's value is its energy, less its
    duration at the mean power of the idle windows just before and after it, so that a level that
    drifts evenly cancels; divided by its calls, at least one. Takes 2 · windows + 1 windows.

    The counter lags by up to one update, so a window is wrong by that share of it: without
    `window_s` the counter's own is taken, at least 20 updates long. Give a call that ends when its
    outputs are ready, on a machine that is otherwise quiet: the counter sees all of it. Threads
    that spin between calls (an active wait policy) count as idling.
    """
    length_s = counter.window_s if window_s is None else window_s

    def idle() -> int:
        sleep(length_s)
        return 0

    def busy() -> int:
        calls, end = 0, clock() + length_s
        while True:
            call()
            calls += 1
            if clock() >= end:
                return calls

    def watch(work: Callable[[], int]) -> tuple[float, float, int]:
        energy_j, begin = counter.read_j(), clock()
        calls = work()
        return counter.read_j() - energy_j, clock() - begin, calls

    values = []
    before = watch(idle)
    for _ in range(windows):
        energy_j, took_s, calls = watch(busy)
        after = watch(idle)
        idle_w = (before[0] / before[1] + after[0] / after[1]) / 2
        values.append((energy_j - idle_w * took_s) / calls)
        before = after
    return median_interval(values)


def _find_nvml(device: CudaDevice) -> EnergyCounter | str:
    nvml, handle = device.card.nvml, device.card.handle
    if nvml is None:
        return "the driver's management library (NVML) does not load"
    if handle is None:
        return f"NVML does not know {device.name}"
    counter = NvmlCounter(handle, nvml)
    try:
        counter.read_j()
    except nvml.NVMLError as error:  # cards before Volta, MIG slices, virtual cards
        return f"this card has no energy counter: {error}"
    return counter


def _find_rapl(folder: Path) -> EnergyCounter | str:
    packages = sorted(path for path in folder.glob("intel-rapl:*") if _is_package(path))
    if not packages:
        return f"no RAPL counter under /{POWERCAP}"
    try:
        return RaplCounter(packages)
    except PermissionError:
        return "RAPL exists but may be read by root only"
    except (OSError, ValueError) as error:
        return f"RAPL exists but cannot be read: {error}"


def _is_package(path: Path) -> bool:
    """Tell a package from its parts (intel-rapl:0:1), which it contains, and from the platform.

    A laptop's "psys" stands beside the packages and contains them.
    """
    try:
        name = (path / "name").read_text()
    except OSError:  # containers hide what the link points to
        return False
    return bool(re.fullmatch(r"intel-rapl:\d+", path.name)) and name.startswith("package")


def _read_integer(path: Path) -> int:
    return int(path.read_text())
