"""A sweep as a whole: what is skipped, cached, compared and recorded."""

import json
import os
from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pytest
import torch

from harness.grid_file import parse_grid
from harness.rounds import find_latencies
from harness.store import Run, read_cells
from harness.sweep.hardware import Hardware
from harness.sweep.launcher import Launcher
from harness.sweep.plan import Plan, plan_lineups, resolve
from harness.sweep.progress import Progress
from harness.sweep.runner import Sweep

NETS = """
import dataclasses
import torch
from torch import nn
from bench.registry import build

def net():
    class Local(nn.Module):  # pickle cannot find a class that lives in a function
        def __init__(self):
            super().__init__()
            self.inner = nn.Sequential(nn.Linear(32, 64), nn.ReLU(), nn.Linear(64, 10))
            self.twice = lambda x: 2 * x
        def forward(self, x):
            return self.twice(self.inner(x))
    return Local(), torch.randn(5, 32)

def two_inputs():
    class Sum(nn.Module):
        def forward(self, a, b):
            return {"total": (a + b).sum(1, keepdim=True)}
    return Sum(), (torch.randn(3, 4), torch.randn(3, 4))

def quick():
    subject = build("model", "digits-mlp")
    return dataclasses.replace(subject, recipe=dataclasses.replace(subject.recipe, epochs=3))
"""


@pytest.fixture
def nets(tmp_path: Path) -> str:
    file = tmp_path / "nets.py"
    file.write_text(NETS)
    return str(file)


@pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has a CUDA card")
def test_cuda_cells_are_skipped_with_the_reason_where_there_is_no_card(
    measure: Callable[..., pd.DataFrame], nets: str
) -> None:
    cells = measure(models=[f"{nets}:net"], devices=["cpu", "cuda"])
    assert list(cells.set_index("device")["status"].loc[["cpu", "cuda"]]) == ["measured", "skipped"]
    assert "no CUDA device here" in cells.set_index("device")["message"]["cuda"]


def test_a_model_of_nothing_but_a_function_is_measured_with_fidelity_and_without_accuracy(
    measure: Callable[..., pd.DataFrame], nets: str
) -> None:
    cells = measure(models=[f"{nets}:net"], techniques=["int8-dynamic"]).set_index("technique")
    assert list(cells["status"]) == ["measured", "measured"]
    assert cells["accuracy"].isna().all()
    assert cells.loc["baseline", "fidelity"] == 1
    assert 0.9 < cells.loc["int8-dynamic", "fidelity"] < 1
    assert cells.loc["int8-dynamic", "weight_bytes"] < 0.4 * cells.loc["baseline", "weight_bytes"]


def test_several_inputs_and_outputs_in_a_dict_are_measured(
    measure: Callable[..., pd.DataFrame], nets: str
) -> None:
    (cell,) = measure(models=[f"{nets}:two_inputs"], batch=[7]).to_dict("records")
    assert cell["status"] == "measured"
    assert cell["params"] == 0
    assert cell["throughput_per_s"] == pytest.approx(7 / cell["latency_s"])


def test_accuracy_comes_with_a_wilson_interval_and_every_answer_is_kept(
    launcher: Launcher, nets: str, tmp_path: Path
) -> None:
    data = {"grid": {"models": [f"{nets}:quick"], "techniques": ["prune-magnitude(0.9)"]},
            "budget": {"max_seconds_per_cell": 0.2}}  # fmt: skip
    plan = resolve(parse_grid(data, "test"), launcher, "test")
    run = Run.create(tmp_path / "results", "test", {"plan": plan.to_json()})
    Sweep(plan, run, launcher, Progress()).measure()
    run.compact()
    cells = read_cells(run)
    examples = pd.read_parquet(run.folder / "examples.parquet")
    for _, cell in cells.iterrows():
        mine = examples[examples["cell_id"] == cell["cell_id"]]
        assert len(mine) == cell["test_examples"] == 597
        assert (mine["label"] == mine["predicted"]).mean() == pytest.approx(cell["accuracy"])
        assert cell["accuracy_low"] < cell["accuracy"] < cell["accuracy_high"]
    whole, pruned = cells["accuracy"]
    assert whole > 0.8 > pruned


def test_what_was_in_effect_is_recorded(measure: Callable[..., pd.DataFrame], nets: str) -> None:
    cells = measure(models=[f"{nets}:net"], threads=[1, 2])
    processors = sorted(os.sched_getaffinity(0))
    for _, cell in cells.iterrows():
        assert cell["threads_in_effect"] == cell["threads"]
        assert list(cell["affinity_in_effect"]) == processors[-cell["threads"] :]
        assert cell["wait_policy_in_effect"] == "active"
        assert cell["dtype_in_effect"] == "float32"
        assert json.loads(cell["environment"])["libraries"]["torch"] == torch.__version__


def test_more_threads_than_processors_are_named_oversubscribed(
    measure: Callable[..., pd.DataFrame], nets: str
) -> None:
    wanted = len(os.sched_getaffinity(0)) + 1
    (cell,) = measure(models=[f"{nets}:net"], threads=[wanted]).to_dict("records")
    assert any(warning.startswith("oversubscribed") for warning in cell["warnings"])


def test_a_variant_is_prepared_once_and_its_training_time_stays(
    measure: Callable[..., pd.DataFrame], nets: str, own_cache: Path
) -> None:
    axes = {"models": [f"{nets}:quick"], "techniques": ["prune-channels(0.5)"]}
    first = measure(**axes)
    variants = {path: path.stat().st_mtime_ns for path in (own_cache / "variants").iterdir()}
    again = measure(**axes)
    assert {p: p.stat().st_mtime_ns for p in (own_cache / "variants").iterdir()} == variants
    assert list(first["prepare_s"]) == list(again["prepare_s"])
    assert list(first["accuracy"]) == list(again["accuracy"])


def test_changed_code_of_a_model_is_prepared_anew(
    measure: Callable[..., pd.DataFrame], tmp_path: Path
) -> None:
    file = tmp_path / "own.py"
    text = "import torch\ndef net():\n    return torch.nn.Linear(4, {0}), torch.ones(1, 4)\n"
    counts = []
    for outputs in (2, 3):
        file.write_text(text.format(outputs))
        counts.append(measure(models=[f"{file}:net"])["params"].item())
    assert counts == [10, 15]


def test_the_seed_decides_the_weights(
    measure: Callable[..., pd.DataFrame], nets: str, tmp_path: Path
) -> None:
    cells = measure(models=[f"{nets}:quick"], seeds=[0, 1])
    assert list(cells["seed"]) == [0, 1]
    (file,) = tmp_path.glob("results/*/examples.parquet")
    predicted = pd.read_parquet(file).groupby("cell_id")["predicted"].agg(tuple)
    assert predicted.nunique() == 2, "other weights answer otherwise"


@pytest.fixture
def two_cells(launcher: Launcher, nets: str, tmp_path: Path) -> Run:
    """A run of a baseline and a variant."""
    data = {"grid": {"models": [f"{nets}:net"], "techniques": ["bf16"]},
            "budget": {"max_seconds_per_cell": 0.3}}  # fmt: skip
    plan = resolve(parse_grid(data, "test"), launcher, "test")
    run = Run.create(tmp_path / "results", "test", {})
    Sweep(plan, run, launcher, Progress()).measure()
    return run


def test_every_sample_is_stored_with_its_place(two_cells: Run) -> None:
    run = two_cells
    run.compact()
    samples = pd.read_parquet(run.folder / "samples.parquet")
    cells = read_cells(run).set_index("cell_id")
    visits = samples.drop_duplicates("block").sort_values("block")
    orders = visits.groupby("round")["cell_id"].agg(tuple)
    assert orders.nunique() > 1, "the order is shuffled"
    assert set(orders.iloc[0]) >= set(cells.index)
    for cell_id, cell in cells.iterrows():
        mine = samples[samples["cell_id"] == cell_id]
        assert mine["round"].nunique() == cell["rounds"]
        assert len(mine) == cell["samples"]
        blocks = mine.drop_duplicates("block")
        assert blocks["disturbed"].mean() == pytest.approx(cell["disturbed_share"])
        assert blocks["process"].nunique() == cell["processes"] == 2
        counts = blocks["process"].value_counts()
        assert counts.max() - counts.min() <= 1, "they take turns"


def test_the_headline_follows_from_the_samples(two_cells: Run) -> None:
    cells = read_cells(two_cells).set_index("cell_id")
    samples = two_cells.read("samples").to_pandas()
    shares = samples.drop_duplicates("block").groupby("cell_id")["disturbed"].mean()
    if (shares > 2 / 3).any():
        pytest.skip("something else is running: a cell's headline takes disturbed blocks as well")
    clean = samples[~samples["disturbed"]].groupby(["cell_id", "round"])["seconds"].median()
    medians = {str(name): part.droplevel(0).to_dict() for name, part in clean.groupby("cell_id")}
    found = find_latencies(medians)
    for cell_id, cell in cells.iterrows():
        assert found[str(cell_id)].value == pytest.approx(cell["latency_s"])


def test_a_heat_that_is_resumed_brings_its_baseline_along(launcher: Launcher, nets: str) -> None:
    data = {"grid": {"models": [f"{nets}:net"], "techniques": ["bf16"]}}
    plan = resolve(parse_grid(data, "test"), launcher, "test")
    baseline, _ = plan.grid.expand()
    ((heat,),) = plan_lineups(plan, {baseline.id})
    assert heat.references == (baseline,)
    assert [cell.technique for cell in heat.cells] == ["bf16"]


def test_who_leaves_while_energy_is_measured_loses_no_cell(
    launcher: Launcher, nets: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A device says that it has a meter; asked, it fails, or the run is left meanwhile."""
    axes = {"models": [f"{nets}:net"], "techniques": ["bf16"]}
    data = {"grid": axes, "budget": {"max_seconds_per_cell": 0.1}}
    plan = resolve(parse_grid(data, "test"), launcher, "test")
    made = Run.create(tmp_path / "results", "test", {"plan": plan.to_json()})
    known = Hardware.facts_of
    monkeypatch.setattr(Hardware, "facts_of", lambda self, name: known(self, name) | METER)
    asked: list[str] = []

    def leave(phase: str) -> None:
        asked.append(phase)
        if "energy of 2" in phase:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        Sweep(plan, made, launcher, Progress(phase=leave)).measure()
    cells = read_cells(made).set_index("technique")
    assert list(cells["status"]) == ["measured"] * 2
    assert cells["latency_s"].notna().all()
    assert all("none: " in source for source in cells["energy_source"])
    assert cells.loc["bf16", "energy_source"] == "none: not measured yet"


METER = {"energy": "a meter", "no_energy": "not measured yet"}


def test_a_plan_survives_being_written_down(launcher: Launcher, nets: str) -> None:
    data = {"grid": {"models": [f"{nets}:net"], "techniques": ["prune-channels(fraction=0.50)"]}}
    plan = resolve(parse_grid(data, "test"), launcher, "test")
    assert "prune-channels(0.5)" in plan.techniques
    again = Plan.from_json(json.loads(json.dumps(plan.to_json())))
    assert again == plan
    assert [cell.id for cell in again.grid.expand()] == [cell.id for cell in plan.grid.expand()]


@pytest.mark.clock
def test_a_cell_says_how_fast_the_machine_was_against_the_fastest_it_was_seen_at(
    measure: Callable[..., pd.DataFrame], nets: str, own_cache: Path
) -> None:
    (first,) = measure(models=[f"{nets}:net"]).to_dict("records")
    assert 0 < first["machine_speed"] <= 1
    (file,) = own_cache.glob("control/*/cpu-1-active-pinned.json")
    before = file.read_text()
    fastest_s = json.loads(before)["fastest_tenth_s"] / 10  # as if it had once been so fast
    file.write_text(json.dumps({**json.loads(before), "fastest_tenth_s": fastest_s}))
    (second,) = measure(models=[f"{nets}:net"]).to_dict("records")
    file.write_text(before)
    assert second["machine_speed"] == pytest.approx(fastest_s / second["control_latency_s"])
    assert second["machine_speed"] < 0.5  # a tenth, but for what the machine's speed did meanwhile
