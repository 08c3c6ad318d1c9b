"""The machine: what it is, read without torch."""

from __future__ import annotations

import hashlib
import importlib.metadata
import json
import os
import platform
import subprocess
from pathlib import Path
from typing import Any

import psutil

from harness.measure.processor import (
    container_free_bytes,
    container_limits,
    describe_processor,
)

LIBRARIES = ("paretogrid", "torch", "numpy", "torch-pruning", "scipy", "pandas", "pyarrow")
SPEED_LIBRARIES = ("torch", "numpy")
SPEED_KEYS = ("cpu_model", "cpu_flags", "cores", "processors", "threads_per_core", "caches",
              "container", "governor", "gpu_name", "gpu_uuid", "driver")  # fmt: skip
"""What decides how fast a machine is, beside its memory and the libraries."""


def describe_machine(root: Path = Path("/")) -> dict[str, Any]:
    """Return host, processor, limits, memory, system and library versions as plain data.

    `root` is where /proc and /sys are found.
    """
    return {
        "host": platform.node(),
        "system": f"{platform.system()} {platform.release()}",
        **describe_processor(root),
        "cores": psutil.cpu_count(logical=False) or psutil.cpu_count() or 1,
        "processors": len(os.sched_getaffinity(0)),
        "memory_bytes": psutil.virtual_memory().total,
        "container": container_limits(root),
        "python": platform.python_version(),
        "libraries": {name: _version(name) for name in LIBRARIES},
    }


def fingerprint(machine: dict[str, Any]) -> str:
    """Return 12 hex digits that are equal where two measurements of speed may be compared.

    Of what `describe_machine` tells, and a device's `describe` if it was added: neither the host's
    name nor the kernel's release counts, and memory to the GiB only.
    """
    text = json.dumps(_speed_facts(machine), sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:12]


def find_differences(before: dict[str, Any], now: dict[str, Any]) -> list[str]:
    """Return in what two described machines differ that decides on speed: "torch 2.11 → 2.13".

    Empty where their fingerprints are equal.
    """
    known, here = (_flatten(_speed_facts(machine)) for machine in (before, now))
    return [
        f"{name.replace('_', ' ')} {known.get(name, 'unknown')} → {here.get(name, 'unknown')}"
        for name in dict.fromkeys([*known, *here])
        if known.get(name) != here.get(name)
    ]


def _speed_facts(machine: dict[str, Any]) -> dict[str, Any]:
    libraries = machine.get("libraries", {})
    facts = {key: machine[key] for key in SPEED_KEYS if key in machine}
    facts["memory_gib"] = round(machine.get("memory_bytes", 0) / 2**30)
    facts["python"] = machine.get("python", "").split(".")[:2]
    facts["libraries"] = {name: libraries.get(name, "") for name in SPEED_LIBRARIES}
    return facts


def _flatten(facts: dict[str, Any]) -> dict[str, Any]:
    """The facts with each library one of its own."""
    plain = {**facts, **facts["libraries"], "python": ".".join(facts["python"])}
    plain.pop("libraries")
    return plain


def git_commit(folder: Path) -> str:
    """Return the commit checked out in a folder, with + if files differ; empty outside git."""
    try:
        head = _git(folder, "rev-parse", "--short=12", "HEAD")
        return head + ("+" if _git(folder, "status", "--porcelain", "-uno") else "")
    except (OSError, subprocess.SubprocessError):
        return ""


def available_memory_bytes(root: Path = Path("/")) -> int:
    """Return the memory that new processes may take now: the machine's, or what a limit leaves."""
    machine = int(psutil.virtual_memory().available)
    allowed = container_free_bytes(root)
    return machine if allowed is None else min(machine, allowed)


def _git(folder: Path, *arguments: str) -> str:
    command = ["git", "-C", str(folder), *arguments]
    return subprocess.run(
        command, capture_output=True, text=True, check=True, timeout=10
    ).stdout.strip()


def _version(name: str) -> str:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return ""
