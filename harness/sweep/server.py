"""The fork server: imports torch once; each worker is a fork of it and so starts in no time.

It stays fit to be forked: it runs no operation of torch (which would start threads) and never
touches CUDA. Started as `python -P -m harness.sweep.server FD`.
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
import sys
from multiprocessing.connection import Connection
from pathlib import Path

PR_SET_PDEATHSIG = 1
FORK, TRAIN, READY = b"fork", b"train", b"ready"


def main(descriptor: int) -> None:
    """Serve the runner on a socket until it closes; then end every worker."""
    control = socket.socket(fileno=descriptor)
    preload()
    control.send(READY)
    children: dict[int, int] = {}
    with selectors.DefaultSelector() as selector:
        selector.register(control, selectors.EVENT_READ)
        while True:
            for key, _ in selector.select():
                if key.fileobj is not control:
                    selector.unregister(key.fileobj)
                    report_exit(control, children.pop(key.fd), key.fd)
                    continue
                message, descriptors, _, _ = socket.recv_fds(control, 64, 2)
                if message == TRAIN:
                    preload_training()
                elif message == FORK:
                    # Told of its end by a descriptor and not by SIGCHLD, which would wake the
                    # server each time the runner pauses a worker.
                    child = fork(control, *descriptors)
                    watch = os.pidfd_open(child)
                    children[watch] = child
                    selector.register(watch, selectors.EVENT_READ)
                else:  # the runner is gone
                    for child in children.values():
                        os.kill(child, signal.SIGKILL)
                    return


def preload() -> None:
    """Import what every worker needs."""
    import cloudpickle
    import torch
    import torch.ao.quantization
    import torch.nn.utils.prune

    from bench import registry
    from harness.sweep import worker

    registry.load_built_ins()
    settle()
    del cloudpickle, torch, worker


def preload_training() -> None:
    """Let an optimizer and a dispatch mode import what they import late.

    Two seconds in every worker otherwise. Nothing is computed, so no thread starts.
    """
    import torch
    import torch_pruning
    from torch.utils.flop_counter import FlopCounterMode

    optimizer = torch.optim.AdamW([torch.nn.Parameter(torch.empty(1))])
    torch.optim.lr_scheduler.OneCycleLR(optimizer, 0.1, total_steps=2)
    with FlopCounterMode(display=False):
        torch.empty(1)
    settle()
    del torch_pruning


def settle() -> None:
    """Keep the collector off what is there: in a fork it would copy every page it looks at."""
    gc.collect()
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


def become_worker(control: socket.socket, channel: int, log: int) -> None:
    """Serve requests in the forked process; never returns."""
    from harness.sweep.worker import serve

    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    control.close()
    os.dup2(log, 1)
    os.dup2(log, 2)
    os.close(log)
    faulthandler.enable()
    # When memory runs out, the kernel shall end a worker and not the user's other programs.
    with contextlib.suppress(OSError):
        Path("/proc/self/oom_score_adj").write_text("800")
    serve(Connection(channel))


def report_exit(control: socket.socket, child: int, watch: int) -> None:
    """Tell the runner how a worker ended."""
    os.close(watch)
    _, status = os.waitpid(child, 0)
    code = os.waitstatus_to_exitcode(status)
    with contextlib.suppress(ConnectionError):  # a runner that is gone needs no news
        control.send(json.dumps({"exited": child, "code": code}).encode())


if __name__ == "__main__":
    main(int(sys.argv[1]))
