"""What the machine can reach is asked for once, whatever a grid's limits are."""

from __future__ import annotations

import os
import signal
from dataclasses import replace
from pathlib import Path

import pytest

from harness.grid_file import parse_grid
from harness.store import Run
from harness.sweep.hardware import Hardware
from harness.sweep.interruption import Interruption
from harness.sweep.launcher import Launcher
from harness.sweep.progress import Progress
from harness.sweep.reach import Reach, place_of
from harness.sweep.remote import Worker
from harness.sweep.shop import Shop

pytestmark = [pytest.mark.workers, pytest.mark.slow]


@pytest.fixture
def reach(launcher: Launcher, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Reach:
    """A run of a grid that gives its cells little memory and time, where nothing is known yet."""
    monkeypatch.setenv("PARETOGRID_CACHE", str(tmp_path / "cache"))
    budget = {"max_memory_bytes": 100_000_000, "timeout_s": 1}
    grid = parse_grid({"grid": {"models": ["tiny-mlp"]}, "budget": budget}, "the test")
    hardware = Hardware(launcher, grid)
    shop = Shop(launcher, grid, 100_000_000, hardware, tmp_path, Interruption(), Progress())
    return Reach(shop, Run.create(tmp_path / "results", "test", {}))


def test_a_worker_that_is_killed_is_followed_by_another(
    reach: Reach, monkeypatch: pytest.MonkeyPatch
) -> None:
    kills = []

    def call(worker: Worker, operation: str, *arguments: object, **request: object) -> object:
        if operation == "roofs" and not kills:
            kills.append(os.kill(worker.pid, signal.SIGKILL))
        return plain(worker, operation, *arguments, **request)

    plain = Worker.call
    monkeypatch.setattr(Worker, "call", call)
    found = reach.roofs("cpu", 1)
    assert kills
    assert found is not None
    assert found.flops_per_s["float32"] > 1e6
    assert reach._run.facts()["roofs"].keys() == {place_of("cpu", 1)}


def test_what_cannot_be_reached_is_said_and_asked_once(
    reach: Reach, monkeypatch: pytest.MonkeyPatch
) -> None:
    told: list[str] = []
    reach._shop = replace(reach._shop, progress=Progress(phase=told.append))
    calls = []

    def call(worker: Worker, operation: str, *arguments: object, **request: object) -> object:
        if operation == "roofs":
            calls.append(os.kill(worker.pid, signal.SIGKILL))
        return plain(worker, operation, *arguments, **request)

    plain = Worker.call
    monkeypatch.setattr(Worker, "call", call)
    assert reach.roofs("cpu", 1) is None
    assert reach.roofs("cpu", 1) is None
    assert len(calls) == 2
    assert any("is not known: " in text and "SIGKILL" in text for text in told)
    assert "roofs" not in reach._run.facts()
