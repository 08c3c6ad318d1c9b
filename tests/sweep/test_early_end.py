"""Heats that end when their answer is known, with workers that are scripted."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from harness.commands.carry_out import decide_look
from harness.errors import WorkerFailure
from harness.grid import BASELINE
from harness.store import Run, read_cells
from harness.sweep import sessions
from harness.sweep.interruption import Interruption
from harness.sweep.look import Decide, Look
from harness.sweep.recover import recover
from tests.sweep.scripted_sweep import MODEL, ScriptedLauncher, ScriptedWorker, sweep

TECHNIQUES = ["bf16", "int8-dynamic"]
MEASURE = {"sessions": 3, "processes": 1}
BUDGET = {"max_seconds_per_cell": 0.3, "relative_ci": 1e-9}


@pytest.fixture(autouse=True)
def short_sessions(monkeypatch: pytest.MonkeyPatch) -> None:
    """Three of a tenth of a second each."""
    monkeypatch.setattr(sessions, "LEAST_S", 0.09)


def decide_as(**places: str) -> Decide:
    """Decide as is said of techniques; of all others nothing is known."""

    def decide(look: Look, _: float) -> dict[str, str]:
        rows = look.cells[["cell_id", "technique"]].itertuples(index=False, name=None)
        return {cell: places.get(technique, "open") for cell, technique in rows}

    return decide


def test_a_cell_that_is_dominated_leaves_and_is_timed_in_no_later_session(tmp_path: Path) -> None:
    launcher = ScriptedLauncher()
    decide = decide_as(bf16="dominated", baseline="dominated")
    found = sweep(tmp_path, launcher, TECHNIQUES, None, MEASURE, BUDGET, decide)
    cells = found.cells
    assert set(cells["status"]) == {"measured"}
    assert cells["sessions"].to_dict() == {"baseline": 3, "bf16": 1, "int8-dynamic": 3}
    assert cells["stopped_by"].to_dict() == {
        "baseline": "budget", "bf16": "decision", "int8-dynamic": "budget",
    }  # fmt: skip
    assert cells.loc["bf16", "timed_s"] < 0.5 * cells.loc["int8-dynamic", "timed_s"]
    loaded = {(session, variant) for session, asked, variant in launcher.asked if asked == "load"}
    assert (0, f"{MODEL} + bf16") in loaded
    assert not {(1, f"{MODEL} + bf16"), (2, f"{MODEL} + bf16")} & loaded
    samples = found.run.read("samples").to_pandas()
    assert samples["cell_id"].nunique() == 4, "the control's, too"
    assert cells["latency_ratio_low"].notna().all()
    assert not (found.run.folder / "journal").exists()


def test_who_has_left_is_told_at_the_level_of_the_whole_heat(tmp_path: Path) -> None:
    """Or it would be as fast as the machine was while it was timed."""
    pace_s = {f"{MODEL} + bf16": 1.05e-3}
    launcher = ScriptedLauncher(pace_s=pace_s, slowness={1: 2.0, 2: 2.0})
    decide = decide_as(bf16="dominated", baseline="dominated")
    found = sweep(tmp_path, launcher, TECHNIQUES, None, MEASURE, BUDGET, decide)
    cells = found.cells
    assert cells["sessions"].to_dict() == {"baseline": 3, "bf16": 1, "int8-dynamic": 3}
    told = cells.loc["bf16", "latency_s"] / cells.loc["baseline", "latency_s"]
    assert told == pytest.approx(1.05, rel=0.01)
    assert cells.loc["bf16", "latency_ratio"] == pytest.approx(1.05, rel=0.01)
    assert cells["control_latency_s"].nunique() == 1
    assert cells["throughput_per_s"].to_numpy() == pytest.approx(1 / cells["latency_s"].to_numpy())


@pytest.mark.parametrize("budget", [{}, {"max_seconds": 60.0}])
@pytest.mark.parametrize("measure", [{}, {"processes": 2}])
def test_a_session_in_which_nobody_goes_on_costs_nothing(
    tmp_path: Path, budget: dict[str, Any], measure: dict[str, Any]
) -> None:
    """The user's file has been edited meanwhile."""

    def change(worker: ScriptedWorker, asked: dict[str, Any]) -> str | None:
        later = worker.launcher.generation > 0
        return " + ".join([asked["model"], *asked["steps"], "edited"]) if later else None

    launcher = ScriptedLauncher({"find_key": change})
    measure, budget = {"sessions": 3} | measure, BUDGET | budget | {"stop": "budget"}
    found = sweep(tmp_path, launcher, TECHNIQUES, None, measure, budget)
    assert set(found.cells["status"]) == {"partial"}
    for warnings in found.cells["warnings"]:
        assert "its model has changed" in " ".join(warnings)
    assert not [phase for phase in found.phases if "mistake" in phase]


def test_who_cannot_be_loaded_again_was_stopped_by_that(tmp_path: Path) -> None:
    def refuse(worker: ScriptedWorker, asked: dict[str, Any]) -> None:
        if worker.launcher.generation == 1 and "bf16" in asked["variant"]:
            raise WorkerFailure("exception", "no room")

    launcher = ScriptedLauncher({"load": refuse})
    found = sweep(tmp_path, launcher, TECHNIQUES, None, MEASURE, BUDGET, decide_as())
    assert found.cells["status"].to_dict() == {
        "baseline": "measured", "bf16": "partial", "int8-dynamic": "measured",
    }  # fmt: skip
    assert found.cells.loc["bf16", "stopped_by"] == "failure"
    assert found.cells.loc["bf16", "sessions"] == 1


def test_once_everything_is_known_there_are_no_more_sessions(tmp_path: Path) -> None:
    launcher = ScriptedLauncher()
    decide = decide_as(**{"bf16": "dominated", "baseline": "member", "int8-dynamic": "tie"})
    found = sweep(tmp_path, launcher, TECHNIQUES, None, MEASURE, BUDGET, decide)
    assert launcher.generation == 0
    assert set(found.cells["stopped_by"]) == {"decision"}
    assert set(found.cells["sessions"]) == {1}
    assert (found.cells["rounds"] == 10).all()
    allowance = found.sweep.allowance
    assert allowance._done == allowance._cells


@pytest.mark.parametrize("stop", ["interval", "budget"])
def test_nothing_ends_early_unless_that_is_asked(tmp_path: Path, stop: str) -> None:
    decide = decide_as(**dict.fromkeys([BASELINE, *TECHNIQUES], "dominated"))
    budget = BUDGET | {"stop": stop, "relative_ci": 0.5}
    found = sweep(tmp_path, ScriptedLauncher(), TECHNIQUES, None, MEASURE, budget, decide)
    assert set(found.cells["stopped_by"]) == {stop}


def answer_wrong(worker: ScriptedWorker, asked: dict[str, Any]) -> dict[str, Any] | None:
    """A variant in bf16 is wrong about each second example of a thousand."""
    labels = np.zeros(1000, int)
    predicted = np.where("bf16" in asked["variant"], np.arange(1000) % 2, 0)
    return {"outputs": np.ones((1000, 2)), "predicted": predicted, "labels": labels,
            "shape": np.array([1000, 2])}  # fmt: skip


def test_a_heat_with_a_clear_answer_ends_by_itself(tmp_path: Path) -> None:
    pace_s = {f"{MODEL} + bf16": 2e-3, f"{MODEL} + int8-dynamic": 0.5e-3}
    launcher = ScriptedLauncher({"answers": answer_wrong}, pace_s=pace_s)
    found = sweep(tmp_path, launcher, TECHNIQUES, None, MEASURE, BUDGET, decide_look)
    assert set(found.cells["stopped_by"]) == {"decision"}
    assert (found.cells["rounds"] <= 30).all()
    assert (found.cells["sessions"] == 1).all()


def test_a_cell_of_unknown_quality_holds_no_other(tmp_path: Path) -> None:
    def tell(worker: ScriptedWorker, asked: dict[str, Any]) -> dict[str, Any] | None:
        if "int8" in asked["variant"]:
            return {"outputs": np.full((8, 2), np.nan), "shape": np.array([8, 2])}
        return answer_wrong(worker, asked)

    pace_s = {f"{MODEL} + bf16": 2e-3, f"{MODEL} + int8-dynamic": 0.5e-3}
    launcher = ScriptedLauncher({"answers": tell}, pace_s=pace_s)
    found = sweep(tmp_path, launcher, TECHNIQUES, None, MEASURE, BUDGET, decide_look)
    assert found.cells["accuracy"].isna().to_dict() == {
        "baseline": False, "bf16": False, "int8-dynamic": True,
    }  # fmt: skip
    assert set(found.cells["stopped_by"]) == {"decision"}


def test_a_heat_whose_cells_are_of_unknown_quality_goes_on(tmp_path: Path) -> None:
    def tell_nothing(*_: Any) -> dict[str, Any]:
        return {"outputs": np.full((8, 2), np.nan), "shape": np.array([8, 2])}

    launcher = ScriptedLauncher({"answers": tell_nothing}, pace_s={f"{MODEL} + bf16": 2e-3})
    found = sweep(tmp_path, launcher, TECHNIQUES, None, MEASURE, BUDGET, decide_look)
    assert set(found.cells["stopped_by"]) == {"budget"}


@pytest.mark.parametrize("seconds", [0.002, 0.01, 0.04])
def test_nothing_is_known_of_a_few_rounds(tmp_path: Path, seconds: float) -> None:
    """A time that was too short for an interval has told no cell's place."""
    decide = decide_as(**dict.fromkeys([BASELINE, *TECHNIQUES], "dominated"))
    budget = {"max_seconds_per_cell": seconds, "relative_ci": 1e-9}
    found = sweep(tmp_path, ScriptedLauncher(), TECHNIQUES, None, {"sessions": 1}, budget, decide)
    enough = (found.cells["rounds"] >= 6).all()
    assert set(found.cells["stopped_by"]) == {"decision" if enough else "budget"}


@pytest.mark.parametrize(("count", "off"), [(1, 1e-9), (3, 2e-3)])
def test_ratios_are_those_of_the_latencies_that_are_told(
    tmp_path: Path, count: int, off: float
) -> None:
    """To what sessions are weighted by, where there are several; one of the cells has left."""
    pace_s = {f"{MODEL} + bf16": 2e-3, f"{MODEL} + int8-dynamic": 0.5e-3}
    launcher = ScriptedLauncher(pace_s=pace_s, slowness={1: 1.5, 2: 0.7})
    decide, measure = decide_as(bf16="dominated"), {"sessions": count, "processes": 1}
    cells = sweep(tmp_path, launcher, TECHNIQUES, None, measure, BUDGET, decide).cells
    told = cells["latency_s"] / cells.loc["baseline", "latency_s"]
    assert cells["latency_ratio"].to_numpy() == pytest.approx(told.to_numpy(), rel=off)


def test_what_has_left_is_not_timed_again_after_an_interruption(tmp_path: Path) -> None:
    decide, interruption = decide_as(bf16="dominated"), Interruption()

    def interrupt(worker: ScriptedWorker, asked: dict[str, Any]) -> None:
        interruption.asked |= worker.launcher.generation == 1

    pace_s = {f"{MODEL} + bf16": 1.05e-3}
    launcher = ScriptedLauncher({"block": interrupt}, pace_s=pace_s)
    with pytest.raises(KeyboardInterrupt):
        sweep(tmp_path, launcher, TECHNIQUES, None, MEASURE, BUDGET, decide, interruption)
    (made,) = (tmp_path / "results").iterdir()
    cells = read_cells(Run(made)).set_index("technique")
    assert cells["status"].to_dict() == {"baseline": "partial", "bf16": "measured",
                                         "int8-dynamic": "partial"}  # fmt: skip
    again = ScriptedLauncher(pace_s=pace_s, slowness={0: 2.0, 1: 2.0, 2: 2.0})
    found = sweep(tmp_path, again, TECHNIQUES, Run(made), MEASURE, BUDGET, decide)
    assert set(found.cells["status"]) == {"measured"}
    told = found.cells["latency_s"] / found.cells.loc["baseline", "latency_s"]
    assert told["bf16"] == pytest.approx(1.05, rel=0.01), "though the machine is slower by now"
    assert found.cells.loc["bf16", "stopped_by"] == "decision"
    assert found.cells["control_latency_s"].nunique() == 1
    assert not [asked for asked in again.asked if asked[1] == "load" and "bf16" in asked[2]]
    assert found.cells.loc["int8-dynamic", "sessions"] > found.cells.loc["bf16", "sessions"]


@pytest.mark.parametrize("blocks", [1, 40, 130, 200, 320])
def test_a_resumed_heat_has_the_sessions_and_the_time_that_are_left(
    tmp_path: Path, blocks: int
) -> None:
    """Wherever it was interrupted; some 340 blocks are all of it."""
    budget, interruption, taken = BUDGET | {"stop": "budget"}, Interruption(), 0

    def interrupt(worker: ScriptedWorker, asked: dict[str, Any]) -> None:
        nonlocal taken
        taken += 1
        interruption.asked |= taken == blocks

    launcher = ScriptedLauncher({"block": interrupt})
    with pytest.raises(KeyboardInterrupt):
        sweep(tmp_path, launcher, TECHNIQUES, None, MEASURE, budget, decide_as(), interruption)
    (made,) = (tmp_path / "results").iterdir()
    before = read_cells(Run(made))["sessions"].max()
    found = sweep(tmp_path, ScriptedLauncher(), TECHNIQUES, Run(made), MEASURE, budget, decide_as())
    assert set(found.cells["status"]) == {"measured"}
    assert found.cells["sessions"].tolist() == [before + max(1, 3 - before)] * 3
    told = [phase for phase in found.phases if ", session " in phase]
    assert told[0].endswith(f"session {min(3, before + 1):.0f} of 3")
    assert (found.cells["timed_s"] >= 0.29).all()
    assert (found.cells["timed_s"] <= 0.4).all(), "no more than a round beyond the time"


@pytest.mark.parametrize("slower", [1.05, 1.004])
def test_what_a_kill_leaves_is_told_at_one_level(slower: float, tmp_path: Path) -> None:
    """In the second session, after one has left, who has paid for the looks before."""

    class Killed(BaseException):
        pass

    blocks = 0

    def kill(worker: ScriptedWorker, asked: dict[str, Any]) -> None:
        nonlocal blocks
        blocks += worker.launcher.generation
        if blocks > 100:
            raise Killed

    pace_s = {f"{MODEL} + bf16": slower * 1e-3}
    launcher = ScriptedLauncher({"block": kill}, pace_s=pace_s, slowness={1: 2.0})
    with pytest.raises(Killed):
        sweep(tmp_path, launcher, TECHNIQUES, None, MEASURE, BUDGET, decide_as(bf16="dominated"))
    (made,) = (tmp_path / "results").iterdir()
    before = read_cells(Run(made)).set_index("technique")
    assert recover(Run(made)) == 2
    cells = read_cells(Run(made)).set_index("technique")
    assert cells["sessions"].to_dict() == {"baseline": 2, "bf16": 1, "int8-dynamic": 2}
    told = cells["latency_s"] / cells.loc["baseline", "latency_s"]
    assert told["bf16"] == pytest.approx(slower, rel=0.01)
    p_values = [one.loc["bf16", "latency_ratio_p_value"] for one in (before, cells)]
    assert p_values[1] == pytest.approx(p_values[0], rel=0.05)
    assert cells.loc["baseline", "latency_s"] > 1.2 * before.loc["baseline", "latency_s"]
    kept = ["status", "stopped_by", "accuracy", "started_at", "rounds", "heat"]
    assert cells.loc["bf16", kept].to_dict() == before.loc["bf16", kept].to_dict()


def test_a_look_that_goes_wrong_costs_nothing(tmp_path: Path) -> None:
    def fail(*_: Any) -> dict[str, str]:
        raise ZeroDivisionError("ours")

    found = sweep(tmp_path, ScriptedLauncher(), TECHNIQUES, None, MEASURE, BUDGET, fail)
    assert set(found.cells["status"]) == {"measured"}
    assert set(found.cells["stopped_by"]) == {"budget"}
    assert sum("ours" in phase for phase in found.phases) == 1


def test_a_look_knows_as_much_of_a_cell_as_its_last_record_does(tmp_path: Path) -> None:
    """How far it wanders with its baseline, too: what a look draws is what the report draws."""
    works = {MODEL: '{"mm float32": 1.0}', f"{MODEL} + bf16": '{"mm bfloat16": 1.0}',
             f"{MODEL} + int8-dynamic": '{"mm float32": 0.5, "mm int8": 0.5}'}  # fmt: skip

    def load(worker: ScriptedWorker, asked: dict[str, Any]) -> dict[str, Any]:
        loaded = worker.load(**asked)
        if asked["cold"]:
            loaded["conditions"]["operators"] = works[asked["variant"]]
        return loaded

    seen: list[pd.DataFrame] = []

    def decide(look: Look, _: float) -> dict[str, str]:
        seen.append(look.cells.set_index("technique"))
        return {}

    found = sweep(
        tmp_path, ScriptedLauncher({"load": load}), TECHNIQUES, None, MEASURE, BUDGET, decide
    )
    columns = ["reference_likeness", "reference_share", "work_spread", "known_sessions",
               "run_spread", "known_runs", "operators"]  # fmt: skip
    assert seen[-1].loc[found.cells.index, columns].equals(found.cells[columns])
    assert found.cells["reference_likeness"].to_dict() == {
        "baseline": 1.0, "bf16": 0.0, "int8-dynamic": pytest.approx(1 / 3)
    }  # fmt: skip
    assert found.cells.loc["baseline", ["latency_ratio_low", "latency_ratio_high"]].eq(1.0).all()


def test_answers_of_who_had_left_before_an_interruption_are_known_to_the_next_look(
    tmp_path: Path,
) -> None:
    """Without them its quality would be in doubt on its own, and the places of others open."""
    interruption, seen = Interruption(), {}

    def interrupt(worker: ScriptedWorker, asked: dict[str, Any]) -> None:
        interruption.asked |= worker.launcher.generation == 1

    def decide(look: Look, _: float) -> dict[str, str]:
        seen.update(look.answers)
        return decide_as(bf16="dominated")(look, _)

    with pytest.raises(KeyboardInterrupt):
        sweep(tmp_path, ScriptedLauncher({"block": interrupt}), TECHNIQUES, None, MEASURE, BUDGET,
              decide, interruption)  # fmt: skip
    before = dict(seen)
    seen.clear()
    (made,) = (tmp_path / "results").iterdir()
    sweep(tmp_path, ScriptedLauncher(), TECHNIQUES, Run(made), MEASURE, BUDGET, decide)
    assert len(before) == 3
    assert {name: right.tolist() for name, right in seen.items()} == {
        name: right.tolist() for name, right in before.items()
    }


@pytest.mark.parametrize("slowness", [{1: 2.0, 2: 2.0}, {1: 1.0, 2: 0.4}, {}])
def test_tails_are_told_at_the_level_of_the_latency(
    tmp_path: Path, slowness: dict[int, float]
) -> None:
    """However fast the machine was in which session: a tenth of the calls takes a tenth more."""

    def time_block(worker: ScriptedWorker, asked: dict[str, Any]) -> None:
        worker.launcher.pace_s[MODEL] = 1.1e-3 if worker.random.random() < 0.1 else 1e-3

    launcher = ScriptedLauncher({"block": time_block}, slowness=slowness)
    budget = BUDGET | {"max_seconds_per_cell": 0.9, "stop": "budget"}
    cells = sweep(tmp_path, launcher, TECHNIQUES, None, MEASURE, budget).cells
    assert cells["sessions"].eq(3).all()
    tails = cells["latency_p90_s"] / cells["latency_s"]
    assert tails.drop("baseline").between(0.999, 1.02).all()
    assert (cells["latency_p99_s"].isna() | (cells["latency_p99_s"] > cells["latency_p90_s"])).all()
