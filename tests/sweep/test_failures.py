"""Workers that fail in any way become failed cells of that kind; the rest is measured."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from harness.errors import WorkerFailure
from harness.grid_file import parse_grid
from harness.store import Run, read_cells
from harness.sweep.doctor import examine
from harness.sweep.imports import NOTHING, Imports
from harness.sweep.launcher import Launcher
from harness.sweep.plan import resolve
from harness.sweep.progress import Progress
from harness.sweep.remote import Worker
from harness.sweep.runner import Sweep

pytestmark = pytest.mark.workers

FATES = """
import os, signal, time
import torch
from torch import nn

class Fated(nn.Module):
    def __init__(self, fate, calls):
        super().__init__()
        self.fate, self.calls = fate, calls
    def forward(self, x):
        self.calls -= 1
        if self.calls < 0:
            getattr(self, self.fate)()
        return x * 2
    def killed(self):
        os.kill(os.getpid(), signal.SIGKILL)
    def exit(self):
        os._exit(3)
    def exception(self):
        raise RuntimeError("no luck today")
    def mistake(self):
        from bench import SpecError
        raise SpecError("such inputs do not go")
    def timeout(self):
        time.sleep(600)
    def crash(self):
        os.kill(os.getpid(), signal.SIGSEGV)
    def memory(self):
        kept = []
        while True:
            kept.append(torch.empty(2**26))

def net(fate="fine", calls=10**9):
    return Fated(fate, calls), torch.ones(1, 4)
"""
KINDS = {
    "killed": "killed",
    "exit": "exit",
    "exception": "exception",
    "mistake": "usage",
    "timeout": "timeout",
    "crash": "crash",
    "memory": "out-of-memory",
}
# The first forward counts operators; a thousand calls later the worker is in its heat.
MOMENTS = {"at once": 0, "in the heat": 1_000}


@pytest.mark.parametrize("moment", MOMENTS)
def test_a_worker_that_dies_becomes_a_failed_cell_of_that_kind_and_the_rest_is_measured(
    measure: Callable[..., pd.DataFrame], tmp_path: Path, moment: str
) -> None:
    file = tmp_path / "fates.py"
    file.write_text(FATES)
    models = {fate: f"{file}:net('{fate}', {MOMENTS[moment]})" for fate in KINDS}
    cells = measure(
        budget={"timeout_s": 4.0, "max_memory_bytes": 3 * 10**9},
        models=[*models.values(), f"{file}:net"],
    )
    assert len(cells) == len(KINDS) + 1
    for fate, kind in KINDS.items():
        name = f"{file}:net({fate!r}, calls={MOMENTS[moment]})"
        (cell,) = cells[cells["model"] == name].to_dict("records")
        assert (cell["status"], cell["failure_kind"]) == ("failed", kind), cell["message"]
        assert cell["message"]
        assert ("3,000,000,000 bytes: max_memory" in cell["message"]) == (fate == "memory")
        assert pd.isna(cell["latency_s"])
    (fine,) = cells[cells["model"] == f"{file}:net"].to_dict("records")
    assert fine["status"] == "measured"


SERVERS = """
import os, signal, time
import torch
from torch import nn

def parent(pid):
    with open(f"/proc/{pid}/stat") as file:
        return int(file.read().rpartition(")")[2].split()[1])

class Murderer(nn.Module):
    def __init__(self, generations, calls):
        super().__init__()
        self.generations, self.calls = generations, calls
    def forward(self, x):
        self.calls -= 1
        if self.calls < 0:
            victim = os.getpid()
            for _ in range(self.generations):
                victim = parent(victim)
            os.kill(victim, signal.SIGKILL)
            time.sleep(20)  # until this process, which has lost its parent, is ended, too
        return x * 2

def net(generations, calls):
    return Murderer(generations, calls), torch.ones(1, 4)
"""


@pytest.mark.parametrize("moment", MOMENTS)
@pytest.mark.parametrize(("victim", "generations"), [("template", 1), ("server", 2)])
def test_a_server_that_dies_costs_the_cells_at_hand_and_a_new_one_serves_the_next(
    tmp_path: Path, moment: str, victim: str, generations: int
) -> None:
    file = tmp_path / "servers.py"
    file.write_text(SERVERS)
    models = [f"{file}:net({generations}, {MOMENTS[moment]})", f"{file}:net(0, {10**9})"]
    axes = {"models": [models[0], "digits-mlp(width=4)", models[1]]}
    with Launcher() as launcher:
        budget = {"max_seconds_per_cell": 0.1}
        plan = resolve(parse_grid({"grid": axes, "budget": budget}, ""), launcher, "the test")
        made = Run.create(tmp_path / "results", "test", {"plan": plan.to_json()})
        Sweep(plan, made, launcher, Progress()).measure()
    cells = pd.concat([pd.read_parquet(part) for part in made.folder.glob("parts/*.cells.parquet")])
    (bad,) = cells[cells["model"].str.contains(f"net\\({generations}")].to_dict("records")
    assert (bad["status"], bad["failure_kind"]) == ("failed", "crash")
    assert "server" in bad["message"]
    assert list(cells["status"]).count("measured") == 2


def test_a_baseline_that_dies_in_the_heat_leaves_the_others_measured_without_a_ratio(
    measure: Callable[..., pd.DataFrame], tmp_path: Path
) -> None:
    (tmp_path / "fates.py").write_text(FATES)
    plugin = tmp_path / "spare.py"
    plugin.write_text(
        "import copy, dataclasses\n"
        "from bench import technique\n"
        "@technique('spare')\n"
        "def spare(subject):\n"
        "    module = copy.deepcopy(subject.module)\n"
        "    module.calls = 10**9\n"
        "    return dataclasses.replace(subject, module=module)\n"
    )
    cells = measure(
        models=[f"{tmp_path}/fates.py:net('killed', 1000)"],
        techniques=["spare"],
        plugins=[str(plugin)],
    ).set_index("technique")
    assert cells.loc["baseline", "failure_kind"] == "killed"
    assert cells.loc["spare", "status"] == "measured"
    assert cells.loc["spare", "latency_s"] > 0


def test_an_exception_is_told_with_its_type_and_place(
    measure: Callable[..., pd.DataFrame], tmp_path: Path
) -> None:
    file = tmp_path / "fates.py"
    file.write_text(FATES)
    (cell,) = measure(models=[f"{file}:net('exception', 0)"]).to_dict("records")
    assert cell["message"].startswith("RuntimeError: no luck today (fates.py:")


class Faulty(Launcher):
    """Starts workers that fail at whatever is asked of a CUDA card."""

    problem: WorkerFailure

    def start_worker(self, imports: Imports = NOTHING) -> Worker:
        worker = super().start_worker(imports)
        call = worker.call

        def fail_on_card(operation: str, timeout_s: float, **arguments: Any) -> Any:
            if arguments.get("device") == "cuda":
                raise self.problem
            return call(operation, timeout_s, **arguments)

        worker.call = fail_on_card  # type: ignore[method-assign]  # of this one
        return worker


PROBLEMS = {
    "exception": "AcceleratorError: CUDA error: all CUDA-capable devices are busy",
    "out-of-memory": "OutOfMemoryError: CUDA out of memory",
    "timeout": "probe_device took longer than 300 s",
    "crash": "the worker crashed (SIGSEGV) during probe_device.",
}


def test_a_device_that_fails_instead_of_refusing_costs_its_cells_only(tmp_path: Path) -> None:
    axes = {"models": ["dense-64-32-1"], "devices": ["cpu", "cuda"], "threads": [1]}
    grid = parse_grid({"grid": axes, "budget": {"max_seconds_per_cell": 0.05}}, "the test")
    with Faulty() as launcher:
        for kind, message in PROBLEMS.items():
            launcher.problem = WorkerFailure(kind, message)
            plan = resolve(grid, launcher, "the test")
            run = Run.create(tmp_path / kind, "test", {"plan": plan.to_json()})
            Sweep(plan, run, launcher, Progress()).measure()
            run.compact()
            rows = read_cells(run).set_index("device")
            assert rows.loc["cpu", "status"] == "measured"
            assert rows.loc["cuda", "status"] == "failed"
            assert tuple(rows.loc["cuda", ["failure_kind", "message"]]) == (kind, message)
            examined = examine(launcher, (), lambda _: None)
            assert examined.devices["cuda"] == message
            assert isinstance(examined.devices["cpu"], dict)


TELLS_THREADS = """
import torch
from torch import nn
def net():
    return nn.Linear(4, torch.get_num_threads(), bias=False), torch.randn(2, 4)
"""


def test_a_card_for_preparing_that_is_not_there_is_the_cells_reason(
    measure: Callable[..., pd.DataFrame],
) -> None:
    cells = measure(models=["digits-mlp(width=4)"], prepare={"device": "cuda:7"})
    assert cells["status"].tolist() == ["skipped"]
    assert "no CUDA device" in cells["message"][0] or "cuda:7" in cells["message"][0]


def test_preparing_has_the_threads_that_are_asked_for(
    measure: Callable[..., pd.DataFrame], tmp_path: Path
) -> None:
    (tmp_path / "own.py").write_text(TELLS_THREADS)
    for threads in (1, 2):
        cells = measure(models=[f"{tmp_path}/own.py:net"], prepare={"threads": threads})
        assert cells["params"].tolist() == [threads * 4]
