"""Shared by all tests: a cache of their own, one worker server, and the command."""

import gc
import os
import signal
import subprocess
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import torch
from hypothesis import settings

from harness.grid_file import parse_grid
from harness.store import Run, read_cells
from harness.sweep import launcher as launching
from harness.sweep.launcher import Launcher
from harness.sweep.plan import resolve
from harness.sweep.progress import Progress
from harness.sweep.runner import Sweep
from harness.worker.server import settle
from tests.start import KITCHEN, Kitchen, run_command

settings.register_profile("a busy machine", deadline=None)
settings.load_profile("a busy machine")
STARTERS = {"launcher", "measure", "command"}
torch.manual_seed(0)  # for modules that are made while tests are collected


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_auto_num_workers() -> int:
    """Return how many processes run tests side by side: much of their time they wait for others."""
    return (os.cpu_count() or 1) + 1


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark what starts workers or the command: by one of these fixtures, or in these folders."""
    for item in items:
        starts = STARTERS & set(getattr(item, "fixturenames", ()))
        if starts or item.path.parent.name in ("cli", "browser"):
            item.add_marker("workers")
    # The longest first: at the end short ones fill the gaps between processes.
    ranks = (("longest",), ("workers", "slow"))
    items.sort(key=lambda item: [not any(map(item.get_closest_marker, rank)) for rank in ranks])


@pytest.fixture(autouse=True)
def the_same_random_weights_every_time() -> None:
    """One of 16 million normal numbers is exactly zero: a test that counts others failed by it."""
    torch.manual_seed(0)


@pytest.fixture(scope="session", autouse=True)
def one_thread_beside_others() -> None:
    """Threads of two test processes would wait for each other's, spinning."""
    if "PYTEST_XDIST_WORKER" in os.environ:
        torch.set_num_threads(1)


@pytest.fixture(scope="session", autouse=True)
def garbage_is_sought_in_what_tests_make() -> Iterator[None]:
    """Whoever counts a call looks at every object; those of all modules take 0.1 s each time."""
    settle()
    yield
    gc.unfreeze()


@pytest.fixture(scope="session", autouse=True)
def what_we_start_hears_signals() -> None:
    """What nohup or a shell made us ignore, we go on ignoring, and children start afresh."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        if signal.getsignal(number) is signal.SIG_IGN:
            signal.signal(number, lambda *_: None)


@pytest.fixture(scope="session", autouse=True)
def what_we_start_writes_as_a_users_does() -> None:
    """Through buffers, which hide until the end what could not be written."""
    os.environ.pop("PYTHONUNBUFFERED", None)


@pytest.fixture(scope="session", autouse=True)
def own_cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    folder = tmp_path_factory.mktemp("cache")
    if "PYTEST_XDIST_WORKER" in os.environ:  # the machine and the data are the same in each
        for name in ("roofs", "data"):
            (folder.parents[1] / name).mkdir(exist_ok=True)
            (folder / name).symlink_to(folder.parents[1] / name)
    before = os.environ.get("PARETOGRID_CACHE")
    os.environ["PARETOGRID_CACHE"] = str(folder)
    yield folder
    if before is None:
        del os.environ["PARETOGRID_CACHE"]
    else:
        os.environ["PARETOGRID_CACHE"] = before


@pytest.fixture(scope="session", autouse=True)
def kitchen(
    own_cache: Path, what_we_start_hears_signals: None, what_we_start_writes_as_a_users_does: None
) -> Iterator[None]:
    """Keep the command warm for `start_command`, and the servers of launchers in this process."""
    KITCHEN.append(Kitchen())
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(launching, "Popen", KITCHEN[0].start_server)
        yield
    KITCHEN.pop().close()


@pytest.fixture
def cold_servers(monkeypatch: pytest.MonkeyPatch) -> None:
    """Start launchers' servers in this process by Python, as users do."""
    monkeypatch.setattr(launching, "Popen", subprocess.Popen)


@pytest.fixture(scope="session")
def launcher(kitchen: None) -> Iterator[Launcher]:
    with Launcher() as started:
        started.preload_training()
        yield started


@pytest.fixture
def measure(launcher: Launcher, tmp_path: Path) -> Callable[..., pd.DataFrame]:
    """Measure a grid given as axes and tables; return its cells."""

    def run(
        budget: dict[str, Any] | None = None, task: str = "inference",
        training: dict[str, Any] | None = None, prepare: dict[str, Any] | None = None,
        instrument: dict[str, Any] | None = None, **axes: Any,
    ) -> pd.DataFrame:  # fmt: skip
        quick = {"max_seconds_per_cell": 0.3, "relative_ci": 0.01, **(budget or {})}
        tables = {"grid": axes, "budget": quick, "task": task, "training": training or {},
                  "prepare": prepare or {}, "measure": instrument or {}}  # fmt: skip
        grid = parse_grid(tables, "the test")
        plan = resolve(grid, launcher, "the test")
        made = Run.create(tmp_path / "results", "test", {"plan": plan.to_json()})
        Sweep(plan, made, launcher, Progress()).measure()
        made.compact()
        return read_cells(made)

    return run


@pytest.fixture
def command(tmp_path: Path) -> Callable[..., subprocess.CompletedProcess[str]]:
    """Run `paretogrid` in an empty folder of its own."""

    return partial(run_command, tmp_path)
