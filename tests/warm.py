"""The command, and its server, as forks of processes that have imported them.

Starting a command takes 2.5 s of a processor, and its server as much again. Each fork goes on as
`python -P -m paretogrid` or `paretogrid.serve` would, in a folder, environment and session of its
own; a server is no child of its runner, though. Tests of how either starts, those that look for a
run's children, and those that change Python's own environment start Python.
"""

from __future__ import annotations

import gc
import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Sequence
from importlib import import_module
from pathlib import Path
from typing import Any, Self

LONGEST_REQUEST = 2**20
IMPORTED = ("harness.report.write", "harness.sweep.runner", "rich.live", "rich.table",
            "scipy.stats", "typer")  # fmt: skip
"""What takes long, and does not look at the terminal yet."""
LATE = ("PARETOGRID_", "PYTEST_")
"""Variables of these names are read when the command runs, not when it is imported."""
ENOUGH = b"enough"
STANDARD = 3
"""Input, output and error come first among the descriptors of a request, and how it ends next."""


class Stove:
    """A process that has imported what it shall be, when it is first asked, and forks as asked.

    kind: "command" or "server".
    """

    def __init__(self, kind: str, **environment: str) -> None:
        self._environment = {**os.environ, **environment}
        self._kind = kind
        self._process: subprocess.Popen[bytes] | None = None

    def light(self, *descriptors: int) -> Self:
        """Start it, with descriptors of its own."""
        self.control, its = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with its:
            handed = [its.fileno(), *descriptors]
            self._process = subprocess.Popen(
                [sys.executable, "-P", __file__, self._kind, *map(str, handed)],
                pass_fds=handed, env=self._environment,
            )  # fmt: skip
        return self

    @property
    def is_lit(self) -> bool:
        """Tell whether it was started."""
        return self._process is not None

    def close(self) -> None:
        """End it; what it has started goes on."""
        if self._process is not None:
            self.control.send(ENOUGH)  # what it has started may hold a copy of its channel
            self.control.close()
            self._process.wait()


class WarmProcess(subprocess.Popen[Any]):
    """What a stove has started, by way of the `control` of it; else a process like any other."""

    def __init__(self, control: socket.socket, words: Sequence[str], **options: Any) -> None:
        self._control = control
        self._ended: socket.socket | None = None
        super().__init__(words, **options)

    def _execute_child(self, args: Any, *rest: Any) -> None:
        """Ask for a fork; `rest` is what `Popen` hands to what starts a process of its own."""
        (handed, cwd, env), handles = rest[3:6], rest[9:15]
        to_read, _, _, to_write, _, to_complain = handles
        request = {"words": args, "cwd": str(cwd or Path.cwd()), "env": dict(env or os.environ),
                   "session": rest[20]}  # fmt: skip
        self._ended, its = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with its:
            channels = [fd if fd >= 0 else own for own, fd in
                        enumerate((to_read, to_write, to_complain))]  # fmt: skip
            descriptors = [*channels, its.fileno(), *handed]
            socket.send_fds(self._control, [json.dumps(request).encode()], descriptors)
        self.pid = int(self._ended.recv(64))
        self._child_created = True
        self._close_pipe_fds(*handles)

    def _try_wait(self, wait_flags: int) -> tuple[int, int]:
        assert self._ended is not None
        waiting = socket.MSG_DONTWAIT if wait_flags & os.WNOHANG else 0
        try:
            status = self._ended.recv(64, waiting)
        except BlockingIOError:
            return 0, 0
        self._ended.close()
        return self.pid, int(status or b"-1")  # who would tell was ended itself

    def _internal_poll(self, *_: Any, **__: Any) -> int | None:
        if self.returncode is None:
            pid, status = self._try_wait(os.WNOHANG)
            if pid:
                self._handle_exitstatus(status)
        return self.returncode


def is_alike(environment: Any, other: Any) -> bool:
    """Tell whether Python would start with both environments in the same way."""
    differ = {name for name, _ in set(environment.items()) ^ set(other.items())}
    return all(name.startswith(LATE) for name in differ)


def start_server(control: socket.socket, known: dict[str, str]) -> Callable[..., Any]:
    """Return what starts a launcher's server as a fork of the one on `control`.

    `known` is the environment that one was started with; in any other Python is started.
    """

    def start(command: Sequence[str], **options: Any) -> subprocess.Popen[Any]:
        if not is_alike(options["env"], known):
            return subprocess.Popen(command, **options)
        return WarmProcess(control, [], **options)

    return start


def serve(control: socket.socket) -> tuple[dict[str, Any], list[int]] | None:
    """Fork as asked; return in each fork what it shall be, with what descriptors.

    None when nobody asks any more.
    """
    while True:
        message, descriptors, _, _ = socket.recv_fds(control, LONGEST_REQUEST, STANDARD + 2)
        if message in (b"", ENOUGH):
            return None
        if os.fork() == 0:
            control.close()
            return dict(json.loads(message)), keep(*descriptors)
        for descriptor in descriptors:
            os.close(descriptor)


def keep(*descriptors: int) -> list[int]:
    """Fork once more: the first waits and tells how the second ended, the second returns.

    What was handed beyond input, output, error and the end is its own.
    """
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    channels, (ended, *handed) = descriptors[:STANDARD], descriptors[STANDARD:]
    child = os.fork()
    if child:
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            signal.signal(number, signal.SIG_IGN)
        os.closerange(0, ended)
        os.closerange(ended + 1, 100)
        os.write(ended, b"%d" % child)
        _, status = os.waitpid(child, 0)
        try:
            os.write(ended, b"%d" % status)
        finally:
            os._exit(0)
    for own, descriptor in enumerate(channels):
        os.dup2(descriptor, own)
    for descriptor in (*channels, ended):
        if descriptor >= STANDARD:
            os.close(descriptor)
    return handed


def be_asked(asked: dict[str, Any]) -> None:
    """Take the folder, environment, session and channels that were asked for."""
    sys.stdin = open(0)  # noqa: SIM115  # as Python opens them when it starts
    sys.stdout = open(1, "w")  # noqa: SIM115
    sys.stderr = open(2, "w", buffering=1, errors="backslashreplace")  # noqa: SIM115
    if asked["session"]:
        os.setsid()
    os.chdir(asked["cwd"])
    os.environ.clear()
    os.environ.update(asked["env"])


def serve_commands(control: socket.socket, servers: socket.socket) -> None:
    """Import what a run imports, then be a command that was asked for."""
    import paretogrid

    for name in IMPORTED:
        import_module(name)
    assert "harness.console.streams" not in sys.modules, "it looks at where it prints"
    from harness.sweep import launcher

    known = {**os.environ, **launcher.SERVER_ENVIRONMENT}
    launcher.Popen = start_server(servers, known)
    gc.collect()
    gc.freeze()
    found = serve(control)
    if found is None:
        return
    asked, _ = found
    be_asked(asked)
    sys.argv = ["paretogrid", *asked["words"]]
    paretogrid.main()


def serve_servers(control: socket.socket) -> None:
    """Import what a server imports, then be one that was asked for."""
    import paretogrid

    from harness.worker.server import preload, preload_training, without_collector, without_cuda

    with without_cuda(), without_collector():
        preload()
        preload_training()  # most runs are of built-in models
    found = serve(control)
    if found is None:
        return
    asked, handed = found
    be_asked(asked)
    paretogrid.serve(*handed)


def main() -> None:
    """Be a stove of the kind that is named, for what is asked on a socket."""
    import paretogrid

    paretogrid.claim_names()
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # nobody waits for those who keep the others
    control, *others = (socket.socket(fileno=int(number)) for number in sys.argv[2:])
    {"command": serve_commands, "server": serve_servers}[sys.argv[1]](control, *others)


if __name__ == "__main__":
    main()
