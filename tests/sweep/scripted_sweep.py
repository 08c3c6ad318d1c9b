"""A launcher whose workers are scripted, so that the runner's own part is tested in no time."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from harness.errors import WorkerRefusal
from harness.grid_file import parse_grid
from harness.measure.disturbance import Disturbance
from harness.measure.machine import describe_machine
from harness.measure.timing import Block
from harness.store import Run, read_cells
from harness.sweep.imports import NOTHING
from harness.sweep.interruption import Interruption
from harness.sweep.look import Decide
from harness.sweep.plan import Plan, Technique
from harness.sweep.progress import Progress
from harness.sweep.runner import Sweep

MODEL = "own.py:net"
CONTROL = "the control"
NUMBERS = count(1000)
Hook = Callable[["ScriptedWorker", dict[str, Any]], Any]


@dataclass
class ScriptedLauncher:
    """Starts scripted workers. `hooks`: what to do first when one is asked for an operation.

    generation: how often the server was renewed. block_s: what a block takes. pace_s: what a call
    takes of a variant, by its name. slowness: of the machine, by generation.
    """

    hooks: dict[str, Hook] = field(default_factory=dict)
    generation: int = 0
    block_s: float = 0.001
    pace_s: dict[str, float] = field(default_factory=dict)
    slowness: dict[int, float] = field(default_factory=dict)
    asked: list[tuple[int, str, str]] = field(default_factory=list)

    @contextmanager
    def worker(self, imports: object = NOTHING) -> Iterator[ScriptedWorker]:
        yield ScriptedWorker(self)

    def renew(self) -> None:
        self.generation += 1

    def preload_training(self) -> None:
        """Nothing is trained."""

    def close_templates(self) -> None:
        """There are none."""


class ScriptedWorker:
    """Answers as a worker does that has a model of no parameters."""

    def __init__(self, launcher: ScriptedLauncher) -> None:
        self.launcher = launcher
        self.pid = next(NUMBERS)
        self.loaded = ""
        self.random = np.random.default_rng(self.pid)

    def call(self, operation: str, timeout_s: float, **asked: Any) -> Any:
        told = (self.launcher.generation, operation, asked.get("variant", ""))
        self.launcher.asked.append(told)
        hook = self.launcher.hooks.get(operation)
        answer = hook(self, asked) if hook else None
        return getattr(self, operation)(**asked) if answer is None else answer

    def pause(self) -> None:
        """It never spins."""

    def limit_memory(self, **_: Any) -> None: ...

    def probe_device(self, **_: Any) -> dict[str, Any]:
        return {}

    def roofs(self, **_: Any) -> None:
        raise WorkerRefusal("no roofs")

    def prepare_base(self, model: str, **_: Any) -> dict[str, Any]:
        return {"variant": model, "trained": False, "task": "t", "prepare_s": 0.0, "notes": [],
                "tune_quality": [], "updates_per_epoch": 0}  # fmt: skip

    def prepare_step(self, base: str, step: str, **_: Any) -> dict[str, Any]:
        return self.prepare_base(f"{base} + {step}")

    def find_key(self, model: str, steps: Sequence[str], **_: Any) -> str:
        return " + ".join([model, *steps])

    def count(self, **_: Any) -> dict[str, Any]:
        return {"metrics": {}, "work": None, "uncounted_ops": [], "mapped_bytes": 0.0}

    def measure_memory(self, **_: Any) -> dict[str, float]:
        return {"peak_memory_bytes": 1e6}

    def load_control(self, **_: Any) -> None:
        self.loaded = CONTROL

    def load(self, variant: str, cold: bool, **_: Any) -> dict[str, Any]:
        self.loaded = variant
        if not cold:
            return {"pace_s": 1e-3, "traffic": None}
        return {"pace_s": 1e-3, "traffic": None, "metrics": {}, "conditions": {"loops": 1}}

    def answers(self, **_: Any) -> dict[str, Any]:
        labels = np.zeros(8, int)
        return {"outputs": np.ones((8, 2)), "predicted": labels, "labels": labels,
                "shape": np.array([8, 2])}  # fmt: skip

    def time_block(self, timeout_s: float, block_s: float) -> Block:
        hook = self.launcher.hooks.get("block")
        if hook:
            hook(self, {"variant": self.loaded})
        time.sleep(self.launcher.block_s)
        pace_s = self.launcher.pace_s.get(self.loaded, 1e-3)
        pace_s *= self.launcher.slowness.get(self.launcher.generation, 1.0)
        seconds = pace_s * (1 + 0.001 * self.random.standard_normal(3))
        return Block(seconds, 1, Disturbance("", wall_s=3e-3), self.pid)


@dataclass
class Swept:
    """A sweep that has ended: its rows, how many failed, what it said, and the sweep itself."""

    run: Run
    cells: pd.DataFrame
    failures: int
    phases: list[str]
    sweep: Sweep


def sweep(
    folder: Path, launcher: ScriptedLauncher, techniques: Sequence[str], run: Run | None = None,
    measure: dict[str, Any] | None = None, budget: dict[str, Any] | None = None,
    decide: Decide | None = None, interruption: Interruption | None = None,
) -> Swept:  # fmt: skip
    """Sweep a model's techniques with scripted workers; or go on with a run."""
    names = ["baseline", *techniques]
    grid = parse_grid(
        {"grid": {"models": [MODEL], "techniques": names}, "measure": measure or {},
         "budget": budget or {}}, "a test",
    )  # fmt: skip
    known = {name: Technique((), "simulated", 0) for name in names}
    plan = Plan(grid, known, {MODEL: "t"})
    facts = {"plan": plan.to_json(), "machine": describe_machine()}
    made = run or Run.create(folder / "results", "test", facts)
    phases: list[str] = []
    launcher_for_sweep: Any = launcher
    whole = Sweep(
        plan, made, launcher_for_sweep, Progress(phase=phases.append), (), interruption, decide
    )
    with made.lock():
        failures = whole.measure()
    cells = read_cells(made).set_index("technique")
    return Swept(made, cells, failures, phases, whole)
