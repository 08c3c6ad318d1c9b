"""NVML: what the driver knows of a card: its clocks, what holds them down, who else computes."""

from __future__ import annotations

import os
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

THROTTLES = {
    0x004: "power cap",
    0x008: "hw slowdown",
    0x010: "sync boost",
    0x020: "thermal",
    0x040: "hw thermal",
    0x080: "hw power brake",
    0x200: "board limit",
    0x400: "reliability",
}
"""Bits of nvmlClocksEventReasons (nvml.h). An idle card (1) and clocks that somebody has set for
applications (2) or displays (0x100) are not throttling."""


POLICIES = {1: "thermal", 2: "sync boost", 3: "board limit", 5: "reliability"}
"""What NVML counts the time of. The power limit (0) is the work's own doing; idling (4) is none."""
COMPUTE_MODES = {0: "default", 1: "exclusive thread", 2: "prohibited", 3: "exclusive process"}
"""Source: nvml.h, nvmlComputeMode_t."""


class NvmlCard:
    """What NVML knows of one card. Cards and drivers differ: what one cannot say is left out."""

    def __init__(self, nvml: Any, uuid: str, index: int) -> None:
        self.nvml = nvml
        self.handle = None if nvml is None else self._find(uuid, index)
        self.whole = self._find_whole()
        self._asked_us = int(time.time() * 1e6)

    @property
    def is_slice(self) -> bool:
        """Tell whether it is a MIG instance: a part of a card, with memory and cores of its own."""
        return self.whole is not self.handle

    def _find(self, uuid: str, index: int) -> Any:
        # NVML counts all cards, CUDA_VISIBLE_DEVICES hides some: the UUID is safe.
        plain = uuid.removeprefix("GPU-").removeprefix("MIG-")
        for name in (f"GPU-{plain}", f"MIG-{plain}") if plain else ():
            with suppress(self.nvml.NVMLError):
                return self.nvml.nvmlDeviceGetHandleByUUID(name)
        with suppress(self.nvml.NVMLError):
            return None if plain else self.nvml.nvmlDeviceGetHandleByIndex(index)
        return None

    def _find_whole(self) -> Any:
        """The card that a MIG instance is a part of: clocks, power and place are that card's."""
        find = getattr(self.nvml, "nvmlDeviceGetDeviceHandleFromMigDeviceHandle", None)
        if find is not None and self.handle is not None:
            with suppress(self.nvml.NVMLError):  # it is whole already
                return find(self.handle)
        return self.handle

    def ask(
        self, names: tuple[str, ...], *arguments: Any, scale: float | None = None,
        whole: bool = True,
    ) -> Any:  # fmt: skip
        """Return the answer of the first function that has one, scaled; None if none has.

        Asked of the whole card, or of the MIG instance. Functions are renamed over the years: a new
        name may be missing in the driver, an old one in pynvml.
        """
        handle = self.whole if whole else self.handle
        for function in (getattr(self.nvml, name, None) for name in names):
            if function is None or handle is None:
                continue
            try:
                answer = function(handle, *arguments)
            except self.nvml.NVMLError:
                continue
            return answer if scale is None else answer * scale
        return None

    def state(self) -> dict[str, Any]:
        """Return the clock (Hz), what holds it down and for how long (s), and who else computes.

        `held_back_s` counts from when the driver was loaded, by reason. `others` are processes of
        other sessions that have computed since the last time; where NVML's process numbers are not
        ours (containers), it is left out.
        """
        if self.handle is None:
            return {}
        reasons = self.ask(
            ("nvmlDeviceGetCurrentClocksEventReasons", "nvmlDeviceGetCurrentClocksThrottleReasons")
        )
        clock = ("nvmlDeviceGetClockInfo",)
        return leave_out_unknown(
            sm_clock_hz=self.ask(clock, self.nvml.NVML_CLOCK_SM, scale=1e6),
            throttle_reasons=None if reasons is None else _throttles(reasons),
            held_back_s=self._held_back_s() or None,
            others=self._count_others(),
        )

    def _held_back_s(self) -> dict[str, float]:
        """How long each policy has held the clock back. Source: nvml.h, nvmlPerfPolicyType_t."""
        told = {
            name: self.ask(("nvmlDeviceGetViolationStatus",), policy)
            for policy, name in POLICIES.items()
        }
        return {name: one.violationTime / 1e9 for name, one in told.items() if one is not None}

    def _count_others(self) -> int | None:
        if self.process_bytes() is None:
            return None
        now_us, since_us = int(time.time() * 1e6), self._asked_us
        samples = self.ask(("nvmlDeviceGetProcessUtilization",), since_us, whole=False) or []
        self._asked_us = now_us
        return len({one.pid for one in samples if one.smUtil > 0 and not _is_ours(one.pid)})

    def limits(self) -> dict[str, Any]:
        """Return the power limit in force (W) and the highest SM clock (Hz)."""
        if self.handle is None:
            return {}
        power = ("nvmlDeviceGetEnforcedPowerLimit", "nvmlDeviceGetPowerManagementLimit")
        return leave_out_unknown(
            power_limit_w=self.ask(power, scale=1e-3),
            sm_clock_max_hz=self.ask(
                ("nvmlDeviceGetMaxClockInfo",), self.nvml.NVML_CLOCK_SM, scale=1e6
            ),
        )

    def modes(self) -> dict[str, Any]:
        """Return who may compute on the card, whether its driver stays loaded, and MIG.

        In an exclusive mode the second process of a cell is refused; without persistence the driver
        is loaded anew by whoever comes first.
        """
        compute = self.ask(("nvmlDeviceGetComputeMode",))
        persistent = self.ask(("nvmlDeviceGetPersistenceMode",))
        return leave_out_unknown(
            compute_mode=None if compute is None else COMPUTE_MODES.get(compute, str(compute)),
            persistence_mode=None if persistent is None else ("off", "on")[bool(persistent)],
            mig_instance=self.ask(("nvmlDeviceGetName",), whole=False) if self.is_slice else None,
        )

    def process_bytes(self) -> float | None:
        """Return the memory that this process has on the card; None where NVML does not say.

        NVML lists the host's process numbers. In a container with numbers of its own ours is not
        among them, and to take another process for ours would be a guess.
        """
        processes = self.ask(("nvmlDeviceGetComputeRunningProcesses",), whole=False) or []
        mine = [process.usedGpuMemory for process in processes if process.pid == os.getpid()]
        return float(mine[0]) if mine and mine[0] is not None else None

    def memory_node(self, root: Path = Path("/")) -> int | None:
        """Return the host's memory node that the card hangs on; None where there is only one.

        Source: Linux, ABI/testing/sysfs-bus-pci (numa_node; -1 where the firmware does not say).
        """
        place = self.ask(("nvmlDeviceGetPciInfo_v3", "nvmlDeviceGetPciInfo"))
        bus = getattr(place, "busId", b"")
        name = (bus.decode() if isinstance(bus, bytes) else bus).lower()[-len("0000:00:00.0") :]
        try:
            node = int((root / "sys/bus/pci/devices" / name / "numa_node").read_text())
        except (OSError, ValueError):
            return None
        return node if node >= 0 else None

    def driver(self) -> str:
        """Return the driver's version, or nothing."""
        try:
            return str(self.nvml.nvmlSystemGetDriverVersion()) if self.nvml else ""
        except self.nvml.NVMLError:
            return ""


def load_nvml() -> Any:
    """Return pynvml, initialised, or None where the driver's library is absent."""
    import pynvml

    try:
        pynvml.nvmlInit()
    except pynvml.NVMLError:
        return None
    return pynvml


def _throttles(mask: int) -> list[str]:
    return [name for bit, name in THROTTLES.items() if mask & bit]


def _is_ours(process: int) -> bool:
    """Tell whether a process is of this run: its server's session, that of all its workers."""
    try:
        return os.getsid(process) == os.getsid(0)
    except (ProcessLookupError, PermissionError):
        return False


def leave_out_unknown(**values: Any) -> dict[str, Any]:
    """Return the values that are known, by name."""
    return {name: value for name, value in values.items() if value is not None}
