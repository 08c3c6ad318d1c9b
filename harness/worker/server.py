"""The fork server: imports torch once; each worker is a fork of it and so starts in no time.

A template is a fork of the server that has imported a user's files as well, and serves forks of
itself: a heavy import is paid once, and what a file sets or patches when it is imported holds in
every worker that runs its models, and in no other. Both stay fit to be forked: they run no
operation of torch (which would start threads) and never touch CUDA; a file whose import does so is
imported in each worker. Started by `paretogrid.serve`.
"""

from __future__ import annotations

import contextlib
import ctypes
import faulthandler
import gc
import json
import os
import selectors
import signal
import socket
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

PR_SET_PDEATHSIG, PR_SET_CHILD_SUBREAPER = 1, 36
FORK, TRAIN, TEMPLATE, READY, UNFIT = b"fork", b"train", b"template", b"ready", b"unfit"
ENDINGS = (signal.SIGTERM, signal.SIGHUP, signal.SIGINT)
"""By which a run is asked to end."""
LONGEST_MESSAGE = 2**16
NVML_CHECK = "PYTORCH_NVML_BASED_CUDA_CHECK"
"""Lets `torch.cuda.is_available()` ask NVML: CUDA itself does not survive a fork."""
CUDA_MEMORY = "/dev/nvidia-uvm"
"""The device that the CUDA driver opens when it starts, and NVML does not."""
DEEPEST_ORPHANS = 100
"""Generations of helpers' helpers that are ended with their worker."""


def main(descriptor: int) -> None:
    """Serve the runner on a socket until it closes."""
    control = socket.socket(fileno=descriptor)
    for number in ENDINGS:  # who ends the whole run signals us too; the runner has yet to conclude
        signal.signal(number, signal.SIG_IGN)
    with without_cuda(), without_collector():
        preload()
    control.send(READY)
    serve_forks(control)


@dataclass
class Children:
    """The processes that were forked here, by the descriptor that tells of their end."""

    selector: selectors.BaseSelector
    by_watch: dict[int, int] = field(default_factory=dict)

    def add(self, child: int) -> None:
        """Watch a child by a descriptor: SIGCHLD would wake us each time a worker is paused."""
        watch = os.pidfd_open(child)
        self.by_watch[watch] = child
        self.selector.register(watch, selectors.EVENT_READ)

    def bury(self, watch: int) -> tuple[int, int]:
        """Return a child that has ended and its exit code, once its helpers are gone too."""
        self.selector.unregister(watch)
        child = self.by_watch.pop(watch)
        os.close(watch)
        _, status = os.waitpid(child, 0)
        self.kill_orphans()
        return child, os.waitstatus_to_exitcode(status)

    def kill_orphans(self) -> None:
        """End what ended workers have left running: it became ours when they ended."""
        for _ in range(DEEPEST_ORPHANS):
            orphans = set(find_children()) - set(self.by_watch.values())
            if not orphans:
                return
            for orphan in orphans:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(orphan, signal.SIGKILL)
                with contextlib.suppress(ChildProcessError):
                    os.waitpid(orphan, 0)

    def kill(self) -> None:
        """End every child and what it started."""
        for watch, child in list(self.by_watch.items()):
            os.kill(child, signal.SIGKILL)
            self.bury(watch)


def serve_forks(control: socket.socket) -> None:
    """Fork workers and templates as asked, until the runner hangs up; then end them all."""
    become_reaper()
    with selectors.DefaultSelector() as selector:
        children = Children(selector)
        selector.register(control, selectors.EVENT_READ)
        while True:
            for key, _ in selector.select():
                if key.fileobj is not control:
                    report_exit(control, children, key.fd)
                    continue
                message, descriptors, _, _ = socket.recv_fds(control, LONGEST_MESSAGE, 2)
                if message == TRAIN:
                    with without_cuda(), without_collector():
                        preload_training()
                elif message == FORK:
                    children.add(fork(control, *descriptors))
                elif message.startswith(TEMPLATE):
                    imports = json.loads(message.removeprefix(TEMPLATE))
                    children.add(fork_template(control, descriptors[0], imports))
                else:  # the runner is gone
                    children.kill()
                    return


def preload() -> None:
    """Import what every worker needs."""
    import cloudpickle
    import torch
    import torch.ao.quantization
    import torch.nn.utils.prune

    from bench import registry
    from harness.worker import serve

    registry.load_built_ins()
    settle()
    del cloudpickle, torch, serve


def preload_training() -> None:
    """Import what an optimizer imports when it makes its first step.

    Two seconds in every worker otherwise. Nothing is computed, so no thread starts.
    """
    import torch._dynamo
    import torch_pruning

    settle()
    del torch, torch_pruning


def settle() -> None:
    """Keep the collector off what is there: in a fork it would copy every page it looks at."""
    from harness.measure.macs import remember_tensors

    gc.collect()
    remember_tensors()
    gc.freeze()


def fork(control: socket.socket, channel: int, log: int) -> int:
    """Start a worker that talks on `channel` and writes its errors to `log`; return its pid."""
    child = os.fork()
    if child == 0:
        try:
            become_worker(control, channel, log)
        finally:
            os._exit(70)
    os.close(channel)
    os.close(log)
    control.send(json.dumps({"pid": child}).encode())
    return child


def fork_template(control: socket.socket, channel: int, imports: dict[str, list[str]]) -> int:
    """Start a template that imports the user's files and is served on `channel`."""
    child = os.fork()
    if child == 0:
        try:
            control.close()
            become_template(socket.socket(fileno=channel), imports)
        finally:
            os._exit(0)
    os.close(channel)
    return child


def become_template(control: socket.socket, imports: dict[str, list[str]]) -> None:
    """Import files and serve forks; say so, or end where that is not safe."""
    from harness.prepare.imports import bring_in

    die_with_parent()
    with without_cuda():
        bring_in(**imports)
    if not is_fit():
        control.send(UNFIT)
        return
    settle()
    control.send(READY)
    serve_forks(control)


@contextlib.contextmanager
def without_collector() -> Iterator[None]:
    """Import without looking for garbage on the way: a tenth of the time."""
    gc.disable()
    try:
        yield
    finally:
        gc.enable()


@contextlib.contextmanager
def without_cuda() -> Iterator[None]:
    """Let whoever asks in a `with` block whether there is a card not start CUDA by that."""
    if NVML_CHECK in os.environ:
        yield
        return
    os.environ[NVML_CHECK] = "1"
    try:
        yield
    finally:
        os.environ.pop(NVML_CHECK, None)


def is_fit() -> bool:
    """Tell whether this process can be forked.

    A thread or the CUDA driver does not survive that, and a helper would be every worker's.
    """
    import torch

    if find_children() or torch.cuda.is_initialized() or holds_card(Path("/proc/self/fd")):
        return False
    return len([*Path("/proc/self/task").iterdir()]) == 1


def holds_card(opened: Path) -> bool:
    """Tell whether CUDA was started, by whatever library, from the links to what is open."""
    for link in opened.iterdir():
        with contextlib.suppress(OSError):  # the folder's own is closed by now
            if str(link.readlink()).startswith(CUDA_MEMORY):
                return True
    return False


def become_worker(control: socket.socket, channel: int, log: int) -> None:
    """Serve requests in the forked process; never returns."""
    from harness.worker.channel import Channel
    from harness.worker.serve import serve

    for number in ENDINGS:  # what it starts may be ended in this way
        signal.signal(number, signal.SIG_DFL)
    die_with_parent()
    become_reaper()  # its helpers stay its own until it ends
    os.setpgid(0, 0)  # with its helpers it is paused and ended as one
    control.close()
    os.dup2(log, 1)
    os.dup2(log, 2)
    os.close(log)
    faulthandler.enable()
    # When memory runs out, the kernel shall end a worker and not the user's other programs.
    with contextlib.suppress(OSError):
        Path("/proc/self/oom_score_adj").write_text("800")
    serve(Channel(socket.socket(fileno=channel)))


def die_with_parent() -> None:
    """Let the kernel end this process when the one that forked it ends."""
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)


def become_reaper() -> None:
    """Inherit what ended workers leave running, whatever group or session it is in."""
    ctypes.CDLL(None).prctl(PR_SET_CHILD_SUBREAPER, 1)


def find_children() -> list[int]:
    """Return the ids of this process's children (not every kernel lists them itself)."""
    mine, found = b"%d" % os.getpid(), []
    with os.scandir("/proc") as entries:  # four times as fast as a glob, at every worker's end
        processes = [entry.name for entry in entries if entry.name.isdigit()]
    for process in processes:
        with contextlib.suppress(OSError, IndexError):  # a process may end meanwhile
            status = Path(f"/proc/{process}/stat").read_bytes()
            found += [int(process)] if status.rpartition(b")")[2].split()[1] == mine else []
    return found


def report_exit(control: socket.socket, children: Children, watch: int) -> None:
    """Tell the runner how a worker ended."""
    child, code = children.bury(watch)
    with contextlib.suppress(ConnectionError):  # a runner that is gone needs no news
        control.send(json.dumps({"exited": child, "code": code}).encode())
