"""The machine: what it is, read without torch."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import subprocess
from pathlib import Path
from typing import Any

import psutil

FLAGS = ("avx2", "avx512f", "avx512_vnni", "avx_vnni", "avx512_bf16", "avx512_fp16", "amx_int8",
         "amx_bf16", "asimd", "asimddp", "i8mm", "bf16", "sve")  # fmt: skip
"""Processor flags that decide which low-precision kernels exist."""
LIBRARIES = ("paretogrid", "torch", "numpy", "torch-pruning", "scipy", "pandas", "pyarrow")


def describe_machine() -> dict[str, Any]:
    """Return host, processor, memory, system and library versions as plain data."""
    model, flags = _processor()
    return {
        "host": platform.node(),
        "system": f"{platform.system()} {platform.release()}",
        "cpu_model": model,
        "cpu_flags": flags,
        "cores": psutil.cpu_count(logical=False) or psutil.cpu_count() or 1,
        "processors": len(os.sched_getaffinity(0)),
        "memory_bytes": psutil.virtual_memory().total,
        "governor": _read("/sys/devices/system/cpu/cpu0/cpufreq/scaling_governor"),
        "python": platform.python_version(),
        "libraries": {name: _version(name) for name in LIBRARIES},
    }


def git_commit(folder: Path) -> str:
    """Return the commit checked out in a folder, with + if files differ; empty outside git."""
    try:
        head = _git(folder, "rev-parse", "--short=12", "HEAD")
        return head + ("+" if _git(folder, "status", "--porcelain", "-uno") else "")
    except (OSError, subprocess.SubprocessError):
        return ""


def available_memory_bytes() -> int:
    """Return the memory that new processes may take now."""
    return int(psutil.virtual_memory().available)


def _git(folder: Path, *arguments: str) -> str:
    command = ["git", "-C", str(folder), *arguments]
    return subprocess.run(
        command, capture_output=True, text=True, check=True, timeout=10
    ).stdout.strip()


def _processor() -> tuple[str, list[str]]:
    model = ""
    flags: set[str] = set()
    for line in _read("/proc/cpuinfo").splitlines():
        name, _, value = line.partition(":")
        if name.strip() == "model name" and not model:
            model = value.strip()
        if name.strip() in ("flags", "Features") and not flags:
            flags = set(value.split())
    return model or platform.processor() or platform.machine(), [f for f in FLAGS if f in flags]


def _read(path: str) -> str:
    try:
        return Path(path).read_text().strip()
    except OSError:
        return ""


def _version(name: str) -> str:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return ""
