"""A worker as the runner sees it: asked, paused, given up. Never imports torch."""

from __future__ import annotations

import os
import random
import signal
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import IO, Any

from harness.errors import WorkerFailure, WorkerRefusal
from harness.worker.channel import Channel, find_deadline, time_left

PROCESS_GROUP = 1 << 2
"""PIDFD_SIGNAL_PROCESS_GROUP of Linux 6.9, which Python does not name yet."""


class Worker:
    """One forked process: answers one request at a time.

    `exit_code` tells by its id how it ended, once it has. Who gives it up adds it to `ending`.
    """

    def __init__(
        self,
        pid: int,
        channel: Channel,
        log: IO[bytes],
        exit_code: Callable[[int], int | None],
        ending: list[Worker],
    ) -> None:
        self.pid = pid
        self._exit_code = exit_code
        self._ending = ending
        self._channel = channel
        self._log = log
        self._oom_kills = count_oom_kills()
        self._paused = False
        self._given_up = False
        self._handle: int | None = None
        with suppress(ProcessLookupError):  # it may have ended already
            self._handle = os.pidfd_open(pid)

    def call(self, operation: str, timeout_s: float, **arguments: Any) -> Any:
        """Return the answer; this process sleeps until it comes.

        Asking, working and answering are bounded in time together. A stopped worker is woken first:
        it takes nothing in. Raises WorkerFailure (usage, exception, timeout, crash, exit, killed,
        out-of-memory) and then the worker is gone; WorkerRefusal if what was asked for does not
        exist here.
        """
        try:
            if self._paused:
                self._signal(signal.SIGCONT)
                self._paused = False
            deadline = find_deadline(timeout_s)
            self._channel.send((operation, arguments), timeout_s)
            answer = self._channel.receive(time_left(deadline))
        except TimeoutError:
            self.kill()
            why = f"{operation} took longer than {timeout_s:g} s"
            raise WorkerFailure("timeout", why) from None
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
        """End the worker and its helpers at once, whatever they are doing."""
        if self._given_up:
            return
        self._given_up = True
        self._signal(signal.SIGKILL)
        if self._handle is not None:
            os.close(self._handle)
            self._handle = None
        self._channel.close()
        self._ending.append(self)

    def wait_for_end(self) -> None:
        """Wait until a worker that was given up is gone, and its memory is free."""
        self._exit_code(self.pid)

    def _signal(self, number: signal.Signals) -> None:
        """Signal the worker with its helpers, or alone before it leads a group of its own.

        By its handle: once it has ended, its id may be another process's.
        """
        if self._handle is None:
            return
        try:
            signal.pidfd_send_signal(self._handle, number, None, PROCESS_GROUP)
        except ProcessLookupError:
            self._signal_alone(number)
        except OSError:  # a kernel before 6.9 knows no groups here
            if self._signal_alone(0):
                with suppress(ProcessLookupError):
                    os.killpg(self.pid, number)
                self._signal_alone(number)

    def _signal_alone(self, number: int) -> bool:
        """Signal the worker itself, with 0 not at all; tell whether it is there."""
        assert self._handle is not None
        try:
            signal.pidfd_send_signal(self._handle, number)
        except ProcessLookupError:
            return False
        return True

    def _explain_death(self, operation: str) -> WorkerFailure:
        code = self._exit_code(self.pid)
        self._log.seek(0)
        said = last_line(self._log.read())
        if code is None:
            why = f"the worker and the server that had started it ended during {operation}. {said}"
            return WorkerFailure("crash", why)
        if code >= 0:
            how = f"the worker exited with code {code} during {operation}. {said}"
            return WorkerFailure("exit", how)
        name = signal.Signals(-code).name
        if -code == signal.SIGKILL and count_oom_kills() > self._oom_kills:
            return WorkerFailure("out-of-memory", f"the kernel ended the worker during {operation}")
        if -code in (signal.SIGKILL, signal.SIGTERM, signal.SIGHUP, signal.SIGINT):
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


def alternate(
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
