"""What the runner makes of sessions in which things go wrong, with workers that are scripted."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from harness.errors import WorkerFailure
from harness.sweep.allowance import LEAST_S, Allowance
from harness.sweep.crew import Crew
from harness.sweep.heat import LEAST_FOR_INTERVAL
from harness.sweep.pack import WORKER_BYTES
from tests.sweep.scripted_sweep import MODEL, ScriptedLauncher, ScriptedWorker, Swept, sweep

TECHNIQUES = ["bf16", "int8-dynamic"]
BUDGET = {"max_seconds_per_cell": 3.0, "relative_ci": 0.5}
SESSIONS = {"sessions": 3, "processes": 1}
SMALL = {"max_heat_memory_bytes": int(3.5 * WORKER_BYTES)}
"""Room for the control, a baseline and another."""


def fail_in(session: int, operation: str) -> ScriptedLauncher:
    """Workers of which the baseline's crashes in a session, when it is loaded or timed."""

    def crash(worker: ScriptedWorker, asked: dict[str, Any]) -> None:
        if worker.launcher.generation == session and asked["variant"] == MODEL:
            raise WorkerFailure("crash", "boom")

    return ScriptedLauncher({operation: crash})


@pytest.mark.parametrize("operation", ["load", "block"])
@pytest.mark.parametrize("session", [1, 2])
def test_a_baseline_that_fails_in_a_later_session_costs_nobody_the_ratio(
    tmp_path: Path, operation: str, session: int
) -> None:
    launcher = fail_in(session, operation)
    found = sweep(tmp_path, launcher, TECHNIQUES, measure=SESSIONS, budget=BUDGET)
    assert found.failures == 1
    cells = found.cells
    assert cells["status"].to_dict() == {"baseline": "partial", "bf16": "measured",
                                         "int8-dynamic": "measured"}  # fmt: skip
    assert cells["latency_ratio"].notna().all()
    assert cells["latency_ratio_low"].notna().all()
    assert cells.loc["bf16", "sessions"] == 3
    (warning,) = cells.loc["baseline", "warnings"]
    assert warning.startswith("it went on and failed: ") and "boom" in warning
    again = sweep(
        tmp_path, ScriptedLauncher(), TECHNIQUES, found.run, measure=SESSIONS, budget=BUDGET
    )
    assert set(again.cells["status"]) == {"measured"}
    assert again.cells["latency_ratio"].notna().all()


def sweep_apart(folder: Path, sessions: int, launcher: ScriptedLauncher, **budget: Any) -> Swept:
    """Sweep cells of which only two fit in memory beside each other."""
    techniques = [*TECHNIQUES, "prune-magnitude(0.5)"]
    measure = {"sessions": sessions, "processes": 1}
    return sweep(folder, launcher, techniques, None, measure, BUDGET | SMALL | budget)


@pytest.mark.parametrize("sessions", [1, 3])
def test_heats_that_share_a_baseline_stay_apart_and_know_its_answers(
    tmp_path: Path, sessions: int
) -> None:
    found = sweep_apart(tmp_path, sessions, ScriptedLauncher())
    others = found.cells.drop("baseline")
    assert others["heat"].nunique() == 3
    assert (found.cells["sessions"] == sessions).all()
    assert (found.cells["processes"] == sessions).all()
    assert others[["fidelity", "agreement", "latency_ratio"]].notna().all().all()
    samples = found.run.read("samples").to_pandas()
    assert samples.groupby("heat")["cell_id"].nunique().max() == 3, "and the control"
    assert found.failures == 0
    assert not (found.run.folder / "journal").exists()


def test_a_baseline_that_failed_in_one_heat_is_timed_in_the_others(tmp_path: Path) -> None:
    struck: list[int] = []

    def crash(worker: ScriptedWorker, asked: dict[str, Any]) -> None:
        if worker.launcher.generation == 1 and asked["variant"] == MODEL and not struck:
            struck.append(1)
            raise WorkerFailure("crash", "boom")

    found = sweep_apart(tmp_path, 3, ScriptedLauncher({"load": crash}))
    others = found.cells.drop("baseline")
    assert set(others["status"]) == {"measured"}
    assert others["latency_ratio"].notna().all()


@pytest.mark.slow
def test_where_there_is_time_for_all_sessions_each_has_its_share(tmp_path: Path) -> None:
    budget = {"max_seconds": 20.0, "max_seconds_per_cell": 3.0, "relative_ci": 1e-9}
    launcher = ScriptedLauncher(block_s=0.02)
    found = sweep(tmp_path, launcher, ["bf16"], measure=SESSIONS, budget=budget)
    assert (found.cells["sessions"] == 3).all()
    samples = found.run.read("samples").to_pandas()
    rounds = samples.groupby("session")["round"].nunique()
    assert rounds.max() < 1.5 * rounds.min()


@pytest.mark.slow
def test_a_time_is_kept_and_no_session_starves(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    given: list[float] = []
    together: list[float] = []
    ask = Allowance.seconds_per_cell

    def listen(self: Allowance, cells: int, members: int, *asked: Any) -> float:
        given.append(ask(self, cells, members, *asked))
        together.append(given[-1] * members)
        return given[-1]

    monkeypatch.setattr(Allowance, "seconds_per_cell", listen)
    found = sweep_apart(
        tmp_path, 3, ScriptedLauncher(block_s=0.004), max_seconds=25.0,
        max_seconds_per_cell=1000.0, relative_ci=1e-9,
    )  # fmt: skip
    assert sum(together) < 25
    assert len(given) == 9
    assert min(given) > 2 * LEAST_S
    allowance = found.sweep.allowance
    assert allowance._done == allowance._cells == 4 * 3


def test_a_mistake_of_ours_in_a_later_session_is_told_and_counted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    launcher, control = ScriptedLauncher(), Crew._control

    def fail(crew: Crew, *asked: Any) -> Any:
        if launcher.generation == 1:
            raise ZeroDivisionError("ours")
        return control(crew, *asked)

    monkeypatch.setattr(Crew, "_control", fail)
    found = sweep(tmp_path, launcher, TECHNIQUES, measure=SESSIONS, budget=BUDGET)
    assert found.failures == 3
    assert set(found.cells["status"]) == {"partial"}
    monkeypatch.undo()
    again = sweep(tmp_path, launcher, TECHNIQUES, found.run, measure=SESSIONS, budget=BUDGET)
    assert set(again.cells["status"]) == {"measured"}


@pytest.mark.slow
def test_cells_of_slow_calls_have_their_rounds_over_all_sessions(tmp_path: Path) -> None:
    budget = {"max_seconds_per_cell": 3.0, "relative_ci": 1e-9}
    launcher = ScriptedLauncher(block_s=0.8)
    found = sweep(tmp_path, launcher, [], measure=SESSIONS, budget=budget)
    (cell,) = found.cells.to_dict("records")
    assert cell["rounds"] >= LEAST_FOR_INTERVAL
    assert cell["sessions"] == 3


def test_a_file_that_is_another_each_time_it_is_imported_has_not_changed(tmp_path: Path) -> None:
    def key(worker: ScriptedWorker, asked: dict[str, Any]) -> str:
        return f"another, {worker.pid}"

    found = sweep(
        tmp_path, ScriptedLauncher({"find_key": key}), TECHNIQUES, measure=SESSIONS, budget=BUDGET
    )
    assert set(found.cells["status"]) == {"measured"}
    assert (found.cells["sessions"] == 3).all()


def test_a_model_that_has_changed_is_not_timed_further(tmp_path: Path) -> None:
    def key(worker: ScriptedWorker, asked: dict[str, Any]) -> str | None:
        return "another" if worker.launcher.generation == 1 else None

    found = sweep(
        tmp_path, ScriptedLauncher({"find_key": key}), TECHNIQUES, measure=SESSIONS, budget=BUDGET
    )
    assert found.failures == 3
    assert set(found.cells["status"]) == {"partial"}
    assert "has changed" in found.cells.loc["bf16", "warnings"][0]
    assert found.cells["latency_ratio"].notna().all()
