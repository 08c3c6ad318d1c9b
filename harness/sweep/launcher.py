"""The runner's side of the workers: start one, ask it, give it up. Never imports torch."""

from __future__ import annotations

import json
import os
import random
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from multiprocessing.connection import Connection
from pathlib import Path
from typing import IO, Any, Self

from harness.errors import UserError, WorkerFailure, WorkerRefusal

START_TIMEOUT_S = 300.0
EXIT_TIMEOUT_S = 5.0
WAIT_POLICY = {"active": {}, "passive": {"OMP_WAIT_POLICY": "passive", "GOMP_SPINCOUNT": "0"}}
"""Environment that makes OpenMP threads wait as asked; the library reads it when it loads."""


class Launcher:
    """Starts the fork server, and workers from it. Use as a context manager."""

    def __init__(self, wait_policy: str = "active", cwd: Path | None = None) -> None:
        self._control, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._exits: dict[int, int] = {}
        # One BLAS thread: numpy's pool would start in the server and break in its forks.
        environment = {
            **os.environ, **WAIT_POLICY[wait_policy],
            "OPENBLAS_NUM_THREADS": "1", "PYTHONUNBUFFERED": "1",
        }  # fmt: skip
        self._log = tempfile.TemporaryFile()  # noqa: SIM115  # open as long as the server is
        self._server = subprocess.Popen(
            [sys.executable, "-P", "-m", "harness.sweep.server", str(theirs.fileno())],
            pass_fds=(theirs.fileno(),),
            stdin=subprocess.DEVNULL,
            stdout=self._log,
            stderr=self._log,
            env=environment,
            cwd=cwd,
            start_new_session=True,  # Ctrl-C is the runner's to handle
        )
        theirs.close()
        self._ready = False

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """End the server and with it every worker."""
        self._control.close()
        try:
            self._server.wait(EXIT_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            self._server.kill()
            self._server.wait()
        self._log.close()

    def preload_training(self) -> None:
        """Let the server import what preparing needs, so that workers need not."""
        self._wait_until_ready()
        self._control.send(b"train")

    def start_worker(self) -> Worker:
        """Return a fresh worker: a fork of the server."""
        self._wait_until_ready()
        ours, theirs = socket.socketpair()
        log = tempfile.TemporaryFile()  # noqa: SIM115  # open as long as the worker is
        socket.send_fds(self._control, [b"fork"], [theirs.fileno(), log.fileno()])
        theirs.close()
        message = self._receive(START_TIMEOUT_S)
        while message is not None and "pid" not in message:
            message = self._receive(START_TIMEOUT_S)
        if message is None:
            raise WorkerFailure("crash", f"the worker server does not answer. {self._server_log()}")
        return Worker(self, message["pid"], Connection(ours.detach()), log)

    @contextmanager
    def worker(self) -> Iterator[Worker]:
        """Start a worker for the length of a `with` block."""
        started = self.start_worker()
        try:
            yield started
        finally:
            started.kill()

    def exit_code(self, pid: int) -> int | None:
        """Return how a worker ended (negative: by which signal), or None if nobody knows."""
        deadline = time.monotonic() + EXIT_TIMEOUT_S
        while pid not in self._exits and time.monotonic() < deadline:
            if self._receive(deadline - time.monotonic()) is None:
                break
        return self._exits.get(pid)

    def _receive(self, timeout_s: float) -> dict[str, Any] | None:
        """Return the server's next message, noting exits; None on time-out or when it is gone."""
        self._control.settimeout(max(0.001, timeout_s))
        try:
            raw = self._control.recv(4096)
        except (TimeoutError, OSError):
            return None
        if not raw:
            return None
        message: dict[str, Any] = json.loads(raw)
        if "exited" in message:
            self._exits[message["exited"]] = message["code"]
        return message

    def _wait_until_ready(self) -> None:
        if self._ready:
            return
        self._control.settimeout(START_TIMEOUT_S)
        try:
            self._ready = self._control.recv(64) == b"ready"
        except (TimeoutError, OSError):
            self._ready = False
        if not self._ready:
            raise UserError(f"The worker server did not start. {self._server_log()}")

    def _server_log(self) -> str:
        self._log.seek(0)
        return last_line(self._log.read())


class Worker:
    """One forked process: answers one request at a time."""

    def __init__(
        self, launcher: Launcher, pid: int, connection: Connection, log: IO[bytes]
    ) -> None:
        self.pid = pid
        self._launcher = launcher
        self._connection = connection
        self._log = log
        self._oom_kills = count_oom_kills()
        self._paused = False

    def call(self, operation: str, timeout_s: float, **arguments: Any) -> Any:
        """Return the answer; this process sleeps until it comes.

        Raises WorkerFailure (usage, exception, timeout, crash, exit, killed, out-of-memory) and
        then the worker is gone; WorkerRefusal if what was asked for does not exist here.
        """
        try:
            self._connection.send((operation, arguments))
            if self._paused:
                self._signal(signal.SIGCONT)
                self._paused = False
            if not self._connection.poll(timeout_s):
                self.kill()
                raise WorkerFailure("timeout", f"{operation} took longer than {timeout_s:g} s")
            answer = self._connection.recv()
        except (EOFError, ConnectionError):
            raise self._explain_death(operation) from None
        kind, *rest = answer
        if kind == "ok":
            return rest[0]
        if kind == "refused":
            raise WorkerRefusal(rest[0])
        self.kill()
        raise WorkerFailure(rest[0], rest[1])

    def time_block(self, timeout_s: float, block_s: float) -> Any:
        """Return one block of samples of what the worker has loaded; it sleeps afterwards."""
        samples = self.call("block", timeout_s, block_s=block_s)
        self.pause()
        return samples

    def pause(self) -> None:
        """Stop the worker until it is asked again, so that it takes nothing from the others.

        OpenMP threads spin for some milliseconds after a call: the next worker's whole block.
        """
        self._signal(signal.SIGSTOP)
        self._paused = True

    def kill(self) -> None:
        """End the worker at once, whatever it is doing."""
        self._signal(signal.SIGKILL)
        self._connection.close()

    def _signal(self, number: signal.Signals) -> None:
        with suppress(ProcessLookupError):
            os.kill(self.pid, number)

    def _explain_death(self, operation: str) -> WorkerFailure:
        code = self._launcher.exit_code(self.pid)
        self._log.seek(0)
        said = last_line(self._log.read())
        if code is None:
            return WorkerFailure("crash", f"the worker ended during {operation}. {said}")
        if code >= 0:
            how = f"the worker exited with code {code} during {operation}. {said}"
            return WorkerFailure("exit", how)
        name = signal.Signals(-code).name
        if -code == signal.SIGKILL and count_oom_kills() > self._oom_kills:
            return WorkerFailure("out-of-memory", f"the kernel ended the worker during {operation}")
        if -code == signal.SIGKILL:
            return WorkerFailure("killed", f"somebody ended the worker ({name}) during {operation}")
        return WorkerFailure("crash", f"the worker crashed ({name}) during {operation}. {said}")


def count_oom_kills() -> int:
    """Return how many processes this kernel has ended for lack of memory."""
    try:
        text = Path("/proc/vmstat").read_text()
    except OSError:
        return 0
    return next((int(line.split()[1]) for line in text.splitlines() if "oom_kill " in line), 0)


def last_line(log: bytes) -> str:
    """Return the last line of a log that says something."""
    lines = [line.strip() for line in log.decode(errors="replace").splitlines() if line.strip()]
    return f"Its last words: {lines[-1][:300]}" if lines else ""


def take_turns(
    workers: Sequence[Worker], timeout_s: float, block_s: float, order: random.Random
) -> Callable[[], Any]:
    """Return what gives a block of one of the workers, which have loaded the same.

    All have had a turn before one has another, in an order that is shuffled each time.
    """
    waiting: list[Worker] = []

    def time_block() -> Any:
        if not waiting:
            waiting.extend(order.sample(workers, len(workers)))
        return waiting.pop().time_block(timeout_s, block_s)

    return time_block
