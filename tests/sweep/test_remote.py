"""A worker is signalled with its helpers, and never another process that has its id by now."""

from __future__ import annotations

import io
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator

import psutil
import pytest

from harness.sweep import remote
from harness.sweep.remote import Worker
from harness.worker.channel import Channel

WITH_HELPER = "import subprocess, time; subprocess.Popen(['sleep', '99']); time.sleep(99)"


@pytest.fixture(params=["by the kernel", "before Linux 6.9"], autouse=True)
def kernel(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Groups signalled by the kernel where it can, and as before it could."""
    if request.param != "by the kernel":
        monkeypatch.setattr(remote, "PROCESS_GROUP", 1 << 20)  # no kernel knows this flag


@pytest.fixture
def start() -> Iterator[Callable[[], subprocess.Popen[bytes]]]:
    """Start a process that has a helper and leads a group, as a worker does."""
    started: list[subprocess.Popen[bytes]] = []

    def start() -> subprocess.Popen[bytes]:
        command = [sys.executable, "-c", WITH_HELPER]
        started.append(subprocess.Popen(command, start_new_session=True))
        helpers = psutil.Process(started[-1].pid).children
        # Until it is itself: between fork and exec of a helper its parent cannot be stopped.
        wait_for(lambda: [one.name() for one in helpers()] == ["sleep"])
        return started[-1]

    yield start
    for process in started:
        process.kill()
        process.wait()


def wait_for(ready: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 30
    while not ready():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def make_worker(pid: int) -> Worker:
    ours, _ = socket.socketpair()
    return Worker(pid, Channel(ours), io.BytesIO(), lambda _: None, [])


def states(family: list[psutil.Process]) -> set[str]:
    return {one.status() for one in family}


def test_a_worker_is_paused_and_ended_with_its_helpers(
    start: Callable[[], subprocess.Popen[bytes]],
) -> None:
    process = start()
    family = [psutil.Process(process.pid), *psutil.Process(process.pid).children()]
    worker = make_worker(process.pid)
    worker.pause()
    wait_for(lambda: states(family) == {psutil.STATUS_STOPPED})
    worker.kill()
    process.wait(30)
    wait_for(lambda: not any(one.is_running() and one.status() != "zombie" for one in family))


def test_a_process_that_has_the_id_of_a_worker_that_ended_is_left_alone(
    start: Callable[[], subprocess.Popen[bytes]],
) -> None:
    ended, innocent = start(), start()
    worker = make_worker(ended.pid)
    for one in psutil.Process(ended.pid).children():
        one.kill()
    ended.kill()
    ended.wait()
    worker.pid = innocent.pid  # as if the kernel had come round to its number
    worker.pause()
    worker.kill()
    worker.kill()
    time.sleep(0.1)
    assert innocent.poll() is None
    assert psutil.Process(innocent.pid).status() != psutil.STATUS_STOPPED


def test_a_worker_that_ended_before_it_was_known_is_given_up_like_any_other(
    start: Callable[[], subprocess.Popen[bytes]],
) -> None:
    process = start()
    for one in psutil.Process(process.pid).children():
        one.kill()
    process.kill()
    process.wait()
    worker = make_worker(process.pid)
    worker.pause()
    worker.kill()
