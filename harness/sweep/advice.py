"""Advice: what on this machine makes figures wide or wrong, and what would help."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from harness.record import SLOW_SPEED
from harness.sweep.self_test import SelfTest
from harness.wording import counted

STOLEN_SHARE = 0.01
PREEMPTED_SHARE = 0.1
SLOW_GOVERNORS = ("powersave", "ondemand", "conservative")
LEAST_MEMORY_BYTES = 2 * 2**30


def advise(
    machine: Mapping[str, Any], available_bytes: int, tests: Sequence[SelfTest],
    devices: Mapping[str, Any],
) -> list[str]:  # fmt: skip
    """Return a sentence for each thing to mend, the worst first; empty where all is well.

    `machine` is what `describe_machine` tells, `tests` are self-tests with the active wait policy,
    `devices` descriptions, or why there is none.
    """
    return [
        *_about_neighbours(machine["processors"], tests),
        *_about_processors(machine),
        *_about_memory(machine, available_bytes),
        *_about_cards(devices),
    ]


def _about_neighbours(processors: int, tests: Sequence[SelfTest]) -> Iterator[str]:
    others = max((test.others for test in tests), default=0)
    if others:
        busy = f"{counted(others, 'busy neighbour')} on {counted(processors, 'processor')}"
        yield f"Other work is running: {busy}. Stop it, or read intervals with care."
        crowded = [test.threads for test in tests if test.threads + others > processors]
        if crowded:
            yield (
                f"Cells with {counted(min(crowded), 'thread')} or more are oversubscribed: set "
                'wait_policy = "passive" in [measure], which suffers far less beside neighbours '
                "(and costs 1.3 to 2 times on small operators when the machine is quiet)."
            )
    stolen = max((test.stolen_share for test in tests), default=0.0)
    if stolen > STOLEN_SHARE:
        yield (
            f"The hypervisor takes {stolen:.1%} of the processors' time: other guests share this "
            "host. Only a dedicated machine helps; heats make ratios hold, headlines may move."
        )
    slowest = min((test.machine_speed for test in tests), default=1.0)
    if slowest < SLOW_SPEED and not others:
        yield (
            f"The machine runs at {slowest:.0%} of the speed it was seen at before, and nothing "
            "here slows it: other guests of the host do, or its temperature. Ratios hold; compare "
            "latencies of different heats by their machine_speed only."
        )
    for test in tests:
        preempted = test.disturbed.get("preempted", 0.0)
        if preempted > PREEMPTED_SHARE and not others:
            yield (
                f"With threads {test.threads}, {preempted:.0%} of the blocks lost processor time "
                "though nothing else was running for long: look for short jobs (cron, indexers)."
            )


def _about_processors(machine: Mapping[str, Any]) -> Iterator[str]:
    governor = machine.get("governor")
    if governor in SLOW_GOVERNORS:
        yield (
            f"The frequency governor is {governor}: clocks follow the load. Set it with "
            "`sudo cpupower frequency-set --governor performance`."
        )
    if machine.get("threads_per_core", 1) > 1:
        yield (
            f"{machine['threads_per_core']} hardware threads share a core: cells with more threads "
            f"than the {machine['cores']} cores compete with themselves."
        )
    limit = machine.get("container", {}).get("cpus")
    if limit is not None and limit < machine["processors"]:
        yield (
            f"The container may use {limit:g} of {machine['processors']} processors: it is stopped "
            "when it has used them up. "
            f"Use at most {counted(max(1, int(limit)), 'thread')}, or lift it."
        )


def _about_memory(machine: Mapping[str, Any], available_bytes: int) -> Iterator[str]:
    if available_bytes < LEAST_MEMORY_BYTES:
        yield (
            f"Only {available_bytes / 2**30:.1f} GiB of memory are free: large cells will be "
            "measured one after the other instead of together."
        )
    if not os.access("/proc/self/clear_refs", os.W_OK):
        yield (
            "The kernel does not let this user reset a process's memory peak "
            "(/proc/self/clear_refs): the peak of loading counts for calls too."
        )


def _about_cards(devices: Mapping[str, Any]) -> Iterator[str]:
    for device, facts in devices.items():
        if isinstance(facts, str):
            continue
        mode = facts.get("compute_mode", "default")
        if mode != "default":
            yield (
                f"{device} is in compute mode {mode}: cells that are compared are alive together, "
                "in a process each, which it refuses. Set it with `sudo nvidia-smi -c DEFAULT`."
            )
        if facts.get("persistence_mode") == "off":
            yield (
                f"{device} has persistence mode off: its driver is loaded anew when nobody uses "
                "it, which cold starts pay for. Set it with `sudo nvidia-smi -pm 1`."
            )
