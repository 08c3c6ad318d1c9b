"""The runner's side of the workers: start one, ask it, give it up. Never imports torch."""

from __future__ import annotations

import json
import os
import resource
import select
import socket
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from subprocess import DEVNULL, Popen, TimeoutExpired
from typing import IO, Any, Self

from bench.cache import cache_folder
from bench.errors import SpecError
from harness.errors import UserError, WorkerFailure
from harness.sweep.imports import NOTHING, Imports
from harness.sweep.remote import Worker, last_line
from harness.worker.channel import Channel

START_TIMEOUT_S = 300.0
EXIT_TIMEOUT_S = 5.0
KEPT_DESCRIPTORS = 16
"""For what the runner opens beside its workers: tables, their temporary files, folders."""
WAIT_POLICY = {"active": {}, "passive": {"OMP_WAIT_POLICY": "passive", "GOMP_SPINCOUNT": "0"}}
"""Environment that makes OpenMP threads wait as asked; the library reads it when it loads."""
SERVER_ENVIRONMENT = {
    "PYTHONUNBUFFERED": "1",
    "OPENBLAS_NUM_THREADS": "1",
    "PYTHONHASHSEED": "0",
    "JE_ARROW_MALLOC_CONF": "background_thread:false",
}
"""What it adds to the user's: a thread that NumPy's BLAS, or pandas by way of Arrow's allocator,
starts when it is imported would break in a fork; and a set of the user's has the same order in all
servers, or his model would be another in each."""


class Server:
    """The runner's end of a process that forks workers: the fork server, or a template."""

    def __init__(self, control: socket.socket, log: IO[bytes], ending: list[Worker]) -> None:
        self._control = control
        self._ending = ending
        self._log = log
        self._exits: dict[int, int] = {}
        self._answer = b""

    def is_gone(self) -> bool:
        """Tell whether the process has ended: its end of the connection is closed then."""
        poll = select.poll()
        poll.register(self._control, select.POLLHUP)
        return any(event & select.POLLHUP for _, event in poll.poll(0))

    def wait_until_ready(self) -> bool:
        """Tell whether it serves, once it has imported what it has to."""
        if not self._answer:
            self._control.settimeout(START_TIMEOUT_S)
            try:
                self._answer = self._control.recv(64) or b"gone"
            except (TimeoutError, OSError):
                self._answer = b"gone"
        return self.has_served

    @property
    def has_served(self) -> bool:
        """Tell whether it was ready once: one that was not is known to be of no use."""
        return self._answer == b"ready"

    def ask(self, message: bytes, *descriptors: int) -> None:
        """Send a message and descriptors; raise WorkerFailure where nobody takes it."""
        try:
            socket.send_fds(self._control, [message], descriptors)
        except OSError as error:
            raise WorkerFailure("crash", f"the worker server is gone: {error}") from None

    def start_worker(self) -> Worker:
        """Return a fresh worker: a fork of the server."""
        try:
            ours, theirs = socket.socketpair()
            log = tempfile.TemporaryFile()  # noqa: SIM115  # open as long as the worker is
        except OSError as error:
            raise WorkerFailure("exception", f"a worker cannot be started: {error}") from None
        with theirs:
            self.ask(b"fork", theirs.fileno(), log.fileno())
        message = self._receive(START_TIMEOUT_S)
        while message is not None and "pid" not in message:
            message = self._receive(START_TIMEOUT_S)
        if message is None:
            raise WorkerFailure("crash", f"the worker server does not answer. {self.last_words()}")
        self._exits.pop(message["pid"], None)  # of one that had this id long ago
        try:
            return Worker(message["pid"], Channel(ours), log, self.exit_code, self._ending)
        except OSError as error:  # its end of the channel closes, and it ends
            raise WorkerFailure("exception", f"a worker cannot be started: {error}") from None

    def open_template(self, imports: Imports) -> Server:
        """Return a fork that has imported files and serves in its turn."""
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with theirs:
            self.ask(b"template" + json.dumps(imports.to_json()).encode(), theirs.fileno())
        return Server(ours, self._log, self._ending)

    def exit_code(self, pid: int) -> int | None:
        """Return how a worker ended (negative: by which signal), or None if nobody knows."""
        deadline = time.monotonic() + EXIT_TIMEOUT_S
        while pid not in self._exits and time.monotonic() < deadline:
            if self._receive(deadline - time.monotonic()) is None:
                break
        return self._exits.get(pid)

    def close(self) -> None:
        """Hang up: the process ends, and with it every worker."""
        self._control.close()

    def last_words(self) -> str:
        """Return what it wrote last."""
        self._log.seek(0)
        return last_line(self._log.read())

    def _receive(self, timeout_s: float) -> dict[str, Any] | None:
        """Return the next message, noting exits; None on time-out or when nobody is there."""
        try:
            self._control.settimeout(max(0.001, timeout_s))
            raw = self._control.recv(4096)
        except (TimeoutError, OSError):
            return None
        if not raw:
            return None
        message: dict[str, Any] = json.loads(raw)
        if "exited" in message:
            self._exits[message["exited"]] = message["code"]
        return message


def _fix_cache() -> dict[str, str]:
    """The cache's folder as a whole path: a user's code may change the working folder."""
    try:
        return {"PARETOGRID_CACHE": str(cache_folder())}
    except SpecError:  # there is none: who needs one says so
        return {}


class Launcher:
    """Starts the fork server, templates, and workers from them. Use as a context manager.

    A server that ends takes its workers with it; the next worker is one of a new server.
    """

    def __init__(self, wait_policy: str = "active", cwd: Path | None = None) -> None:
        raise_file_limit()
        self._environment = {
            **os.environ, **_fix_cache(), **WAIT_POLICY[wait_policy], **SERVER_ENVIRONMENT,
        }  # fmt: skip
        self._cwd = Path.cwd() if cwd is None else cwd
        self._trains = False
        self._ending: list[Worker] = []
        """Workers that were given up, until the next one is started."""
        self._templates: dict[Imports, Server] = {}
        self._start_server()

    def _start_server(self) -> None:
        control, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._log = tempfile.TemporaryFile()  # noqa: SIM115  # open as long as the server is
        self._process = Popen(
            [sys.executable, "-P", "-c", f"import paretogrid; paretogrid.serve({theirs.fileno()})"],
            pass_fds=(theirs.fileno(),),
            stdin=DEVNULL,
            stdout=self._log,
            stderr=self._log,
            env=self._environment,
            cwd=self._cwd,
            start_new_session=True,  # Ctrl-C is the runner's to handle
        )
        theirs.close()
        self._server = Server(control, self._log, self._ending)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """End the server and with it every template and worker."""
        self.close_templates()
        self._server.close()
        try:
            self._process.wait(EXIT_TIMEOUT_S)
        except TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._log.close()

    def renew(self) -> None:
        """Take another server: its successor has its libraries and its memory elsewhere."""
        self.close()
        self._ending.clear()  # they ended with it
        self._start_server()

    def close_templates(self) -> None:
        """Forget the users' files: what is asked for next imports them as they are then."""
        for template in self._templates.values():
            template.close()
        self._templates.clear()

    def preload_training(self) -> None:
        """Let the server and its templates import what training needs, so that workers need not."""
        if self._trains:
            return
        self._wait_until_ready()
        self._trains = True
        for server in (self._server, *self._templates.values()):
            with suppress(WorkerFailure):  # it is gone, and its successor will be asked
                server.ask(b"train")

    def start_worker(self, imports: Imports = NOTHING) -> Worker:
        """Return a fresh worker that has imported the user's files.

        Those that were given up before are gone by then. It is a fork of a template that has
        imported them; where the import starts threads or fails, a fork of the server that does so
        itself. Raises WorkerFailure where they cannot be imported.
        """
        self._wait_until_it_serves()
        template = self._find_template(imports) if imports else self._server
        worker = (template or self._server).start_worker()
        while self._ending:  # while it was forked they ended; it has loaded nothing yet
            self._ending.pop().wait_for_end()
        if template is None:
            worker.call("bring_in", START_TIMEOUT_S, **imports.to_json())
        return worker

    def _find_template(self, imports: Imports) -> Server | None:
        """Return the template that has imported these files; None where none can."""
        if imports not in self._templates:
            self._templates[imports] = self._server.open_template(imports)
        template = self._templates[imports]
        return template if template.wait_until_ready() else None

    @contextmanager
    def worker(self, imports: Imports = NOTHING) -> Iterator[Worker]:
        """Start a worker for the length of a `with` block."""
        started = self.start_worker(imports)
        try:
            yield started
        finally:
            started.kill()

    def _wait_until_it_serves(self) -> None:
        """Have a server, another one where it has ended; forget templates that have."""
        self._wait_until_ready()
        if self._server.is_gone():
            self.renew()
            self._wait_until_ready()
        for imports, template in list(self._templates.items()):
            if template.has_served and template.is_gone():
                self._templates.pop(imports).close()

    def _wait_until_ready(self) -> None:
        if self._server.has_served:
            return
        if not self._server.wait_until_ready():
            raise UserError(f"The worker server did not start. {self._server.last_words()}")
        if self._trains:
            with suppress(WorkerFailure):  # it is gone already, which the next request tells
                self._server.ask(b"train")


def free_descriptors() -> int:
    """Return how many more files this process may open, some kept back for itself."""
    most, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return max(0, most - len([*Path("/proc/self/fd").iterdir()]) - KEPT_DESCRIPTORS)


def raise_file_limit() -> None:
    """Let this process and those it starts open as many files as it may: workers take some each."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    with suppress(ValueError, OSError):
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
