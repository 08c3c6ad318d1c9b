"""The command as forks of a process that has imported it: starting it takes 2.5 s of a processor.

Each fork goes on as `python -P -m paretogrid` would, in a folder, environment and session of its
own. Tests of how the command starts, and those that change Python's own environment, start Python.
"""

from __future__ import annotations

import gc
import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Sequence
from importlib import import_module
from pathlib import Path
from typing import Any

COMMAND = (sys.executable, "-P", "-m", "paretogrid")
LONGEST_REQUEST = 2**20
IMPORTED = ("harness.report.write", "harness.sweep.runner", "rich.live", "rich.table",
            "scipy.stats", "typer")  # fmt: skip
"""What takes long, and does not look at the terminal yet."""
OURS = "PARETOGRID_"
"""Variables of these names are read when the command runs, not when it is imported."""


class Stove:
    """A process that has imported the command when it is first asked, and forks as asked."""

    def __init__(self) -> None:
        self._control: socket.socket | None = None

    def ask(self, request: dict[str, Any], descriptors: list[int]) -> None:
        """Let it fork, with these for standard input, output and error, and for how it ends."""
        if self._control is None:
            self._control, its = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
            with its:
                self._process = subprocess.Popen(
                    [sys.executable, "-P", __file__, str(its.fileno())], pass_fds=[its.fileno()]
                )
        socket.send_fds(self._control, [json.dumps(request).encode()], descriptors)

    def close(self) -> None:
        """End it; what it has started goes on."""
        if self._control is not None:
            self._control.close()
            self._process.wait()


class WarmCommand(subprocess.Popen[str]):
    """A command that a stove has started; in all else it is a process like any other."""

    def __init__(self, stove: Stove, command: Sequence[str], **options: Any) -> None:
        self._stove = stove
        self._ended: socket.socket | None = None
        super().__init__(command, **options)

    def _execute_child(self, args: Any, *rest: Any) -> None:
        """Ask for a fork; `rest` is what `Popen` hands to what starts a process of its own."""
        (cwd, env), handles = rest[4:6], rest[9:15]
        to_read, _, _, to_write, _, to_complain = handles
        request = {"arguments": args[len(COMMAND) :], "cwd": str(cwd or Path.cwd()),
                   "env": dict(env or os.environ), "session": rest[20]}  # fmt: skip
        self._ended, its = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with its:
            channels = [fd if fd >= 0 else own for own, fd in
                        enumerate((to_read, to_write, to_complain))]  # fmt: skip
            self._stove.ask(request, [*channels, its.fileno()])
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
        return self.pid, int(status)

    def _internal_poll(self, *_: Any, **__: Any) -> int | None:
        if self.returncode is None:
            pid, status = self._try_wait(os.WNOHANG)
            if pid:
                self._handle_exitstatus(status)
        return self.returncode


def can_start(options: dict[str, Any]) -> bool:
    """Tell whether Python would start with the same environment."""
    environment = options.get("env") or os.environ
    differ = {name for name, _ in set(environment.items()) ^ set(os.environ.items())}
    return all(name.startswith(OURS) for name in differ)


def serve(control: socket.socket) -> dict[str, Any] | None:
    """Fork as asked; return in each fork what it shall run, None when nobody asks any more."""
    while True:
        message, descriptors, _, _ = socket.recv_fds(control, LONGEST_REQUEST, 4)
        if not message:
            return None
        if os.fork() == 0:
            control.close()
            keep(*descriptors)
            return dict(json.loads(message))
        for descriptor in descriptors:
            os.close(descriptor)


def keep(*descriptors: int) -> None:
    """Fork once more: the first waits and tells how the second ended, the second returns."""
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    *channels, ended = descriptors
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
    for descriptor in descriptors:
        if descriptor >= len(channels):
            os.close(descriptor)


def main() -> None:
    """Import what a run imports, then be what is asked for."""
    import paretogrid

    paretogrid.claim_names()
    for name in IMPORTED:
        import_module(name)
    assert "harness.console.streams" not in sys.modules, "it looks at where it prints"
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # nobody waits for those who keep the others
    gc.collect()
    gc.freeze()
    asked = serve(socket.socket(fileno=int(sys.argv[1])))
    if asked is None:
        return
    sys.stdin = open(0)  # noqa: SIM115  # as Python opens them when it starts
    sys.stdout = open(1, "w")  # noqa: SIM115
    sys.stderr = open(2, "w", buffering=1, errors="backslashreplace")  # noqa: SIM115
    if asked["session"]:
        os.setsid()
    os.chdir(asked["cwd"])
    os.environ.clear()
    os.environ.update(asked["env"])
    sys.argv = ["paretogrid", *asked["arguments"]]
    paretogrid.main()


if __name__ == "__main__":
    main()
