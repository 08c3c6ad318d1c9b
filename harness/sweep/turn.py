"""Turns: one run at a time on a host's processors and on each card, or they would time each other.

A lock is a file that the kernel gives up when its holder ends, however it ends.
"""

from __future__ import annotations

import fcntl
import json
import os
import platform
import shlex
import sys
import time
from collections.abc import Callable, Collection, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager, suppress
from pathlib import Path
from typing import IO

from bench.cache import cache_folder
from harness.errors import UserError, WorkerFailure, WorkerRefusal
from harness.locks import try_lock
from harness.sweep.launcher import Launcher

PROBE_TIMEOUT_S = 60.0


def hold_machine(
    devices: Collection[str], launcher: Launcher, tell: Callable[[str], None], wait: bool
) -> AbstractContextManager[None]:
    """Return what holds this host, and those of its cards that a run on these devices needs."""
    return take_turn(find_places(devices, launcher), cache_folder() / "turns", tell, wait)


@contextmanager
def take_turn(
    places: Collection[str], folder: Path, tell: Callable[[str], None], wait: bool = True
) -> Iterator[None]:
    """Hold this host and its cards as long as the `with` block takes; wait for those before.

    `places` are "cpu" and cards' UUIDs. Runs on different cards go side by side: only one that
    times the processors has the host to itself. `tell` hears for whom it waits; without `wait`
    that is a UserError. A file system without locks has no turns.
    """
    host = platform.node()
    wanted = {f"{host}.lock": "cpu" in places}
    wanted |= {f"{host}-{card}.lock": True for card in places if card != "cpu"}
    with ExitStack() as stack:
        for name, alone in sorted(wanted.items()):
            stack.enter_context(_hold(folder / name, alone, tell, wait))
        yield


def find_places(devices: Collection[str], launcher: Launcher) -> set[str]:
    """Return what a run on these devices has to hold: "cpu", and cards by their UUIDs.

    A card that is not there has no turn.
    """
    places = {device for device in devices if device == "cpu"}
    for device in sorted(set(devices) - places):
        with suppress(WorkerFailure, WorkerRefusal), launcher.worker() as worker:
            facts = worker.call("probe_device", PROBE_TIMEOUT_S, device=device)
            places.add(facts.get("gpu_uuid") or device.replace(":", "-"))
    return places


@contextmanager
def _hold(path: Path, alone: bool, tell: Callable[[str], None], wait: bool) -> Iterator[None]:
    file = _open(path)
    if file is None:  # no room here: as if nobody else were
        yield
        return
    with file:
        if not try_lock(file, alone):
            if not wait:
                raise UserError(
                    f"{_describe_holder(path)} Wait for it (without --no-wait), or stop it."
                )
            tell(f"{_describe_holder(path)} Waiting for it; --no-wait would not.")
            fcntl.flock(file, fcntl.LOCK_EX if alone else fcntl.LOCK_SH)
        with suppress(OSError):
            os.ftruncate(file.fileno(), 0)
            os.write(file.fileno(), json.dumps(_describe_self()).encode())
        yield


def _open(path: Path) -> IO[str] | None:
    """Open a lock's file, another user's to read only; None where that cannot be done."""
    for mode in ("a+", "r"):
        with suppress(OSError):
            path.parent.mkdir(parents=True, exist_ok=True)
            return path.open(mode)
    return None


def _describe_self() -> dict[str, str | int]:
    command = shlex.join(["paretogrid", *sys.argv[1:]])
    return {"pid": os.getpid(), "command": command, "cwd": str(Path.cwd()),
            "since": time.strftime("%Y-%m-%d %H:%M")}  # fmt: skip


def _describe_holder(path: Path) -> str:
    try:
        told = json.loads(path.read_text())
        who = f"process {told['pid']}, `{told['command']}` in {told['cwd']}, since {told['since']}"
    except (OSError, ValueError, KeyError, TypeError):
        return "Another run is timing on this machine."
    return f"Another run is timing on this machine: {who}."
