"""The shop: where a heat's workers come from, and under which limits they work."""

from __future__ import annotations

import os
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path

from harness.grid import Cell, Grid
from harness.sweep.hardware import Hardware
from harness.sweep.imports import NOTHING
from harness.sweep.interruption import Interruption
from harness.sweep.launcher import Launcher
from harness.sweep.look import Decide
from harness.sweep.plan import imports_of
from harness.sweep.progress import Progress
from harness.sweep.remote import Worker


@dataclass(frozen=True)
class Shop:
    """Where workers come from and under which limits they work."""

    launcher: Launcher
    grid: Grid
    worker_memory_bytes: int
    hardware: Hardware
    journal: Path
    """The folder of the heats' journals."""
    interruption: Interruption
    progress: Progress = field(default_factory=Progress)
    decide: Decide | None = None
    """Tells which places are known already; without it no heat ends before its intervals do."""

    @property
    def processors(self) -> int:
        """How many processors the run may use."""
        return len(os.sched_getaffinity(0))

    def hire(self, stack: ExitStack, device: str = "cpu", cell: Cell | None = None) -> Worker:
        """Return a worker that ends with the stack, limited in memory on the host.

        It has imported the files of a cell. CUDA reserves far more address space than it uses, so
        its workers have no such limit.
        """
        imports = NOTHING if cell is None else imports_of(self.grid, cell)
        worker = stack.enter_context(self.launcher.worker(imports))
        limit_bytes = self.worker_memory_bytes if device == "cpu" else 0
        worker.call("limit_memory", self.grid.budget.timeout_s, limit_bytes=limit_bytes)
        return worker
