"""Copies of one cell in a heat, and a neighbour beside them: what the benchmarks share."""

import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from random import Random

from harness.sweep.heat import Member, Stop, run_heat
from harness.sweep.imports import Imports
from harness.sweep.launcher import Launcher
from harness.sweep.remote import alternate

BLOCK_S = 0.01
TIMEOUT_S = 120.0
BUSY = """
import os
parent = os.getppid()
while os.getppid() == parent:
    sum(range(100_000))
"""


def prepare(launcher: Launcher, model: str) -> str:
    """Return the trained variant of a model."""
    with launcher.worker() as worker:
        facts = worker.call("prepare_base", 600.0, model=model, recipes=[], seed=0, token="a test",
                            threads=1)  # fmt: skip
    return str(facts["variant"])


def time_copies(
    launcher: Launcher, variant: str, batch: int, stop: Stop, seed: int,
    threads: int = 1, wait_policy: str = "active", processes: int = 1, files: tuple[str, ...] = (),
    names: str = "ab",
) -> list[Member]:  # fmt: skip
    """Return copies of a cell, each in processes of its own, timed in one heat.

    `files` are those that the model is from. A copy for each letter of `names`.
    """
    with ExitStack() as stack:
        members = []
        for name in names:
            imports = Imports(files=files)
            workers = [stack.enter_context(launcher.worker(imports)) for _ in range(processes)]
            for worker in workers:
                worker.call("load", TIMEOUT_S, variant=variant, device="cpu", runtime="eager",
                            threads=threads, batch=batch, pin=True, wait_policy=wait_policy,
                            flush_cache=False, cold=False)  # fmt: skip
                worker.pause()
            members.append(Member(name, alternate(workers, TIMEOUT_S, BLOCK_S, Random(seed))))
        run_heat(members, stop, seed)
    return members


@contextmanager
def busy_neighbour() -> Iterator[subprocess.Popen[bytes]]:
    """Keep one processor busy with another process, which is given, in a `with` block.

    It ends with this one, though that be killed: it would be beside all that is measured later.
    """
    with subprocess.Popen([sys.executable, "-c", BUSY]) as busy:
        try:
            yield busy
        finally:
            busy.kill()
