"""Heats in a sweep: packed by memory, beside the control, explained."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from harness.store import CONTROL_PREFIX, Run
from harness.sweep.pack import WORKER_BYTES

NET = """
import torch
from torch import nn

def net():
    return nn.Sequential(nn.Linear(64, 256), nn.ReLU(), nn.Linear(256, 8)), torch.ones(1, 64)

def tiny():
    return nn.Sequential(nn.Linear(8, 16), nn.ReLU(), nn.Linear(16, 4)), torch.ones(1, 8)
"""
SAME_TASK = """
from bench import Subject
from bench.data import load_dataset
from torch import nn

def make(width):
    examples = load_dataset("digits")
    layers = [nn.Flatten(), nn.Linear(64, width), nn.ReLU(), nn.Linear(width, 10)]
    return Subject(nn.Sequential(*layers), (examples.train.inputs[:64],), examples)

def narrow():
    return make(16)

def wide():
    return make(512)
"""
TECHNIQUES = ["int8-dynamic", "bf16", "prune-magnitude(0.5)"]


@pytest.fixture
def net(tmp_path: Path) -> str:
    file = tmp_path / "net.py"
    file.write_text(NET)
    return f"{file}:net"


@pytest.fixture
def models(tmp_path: Path) -> list[str]:
    """Two models of one task."""
    file = tmp_path / "nets.py"
    file.write_text(SAME_TASK)
    return [f"{file}:narrow", f"{file}:wide"]


def samples_of(tmp_path: Path) -> pd.DataFrame:
    (folder,) = (tmp_path / "results").iterdir()
    found: pd.DataFrame = Run(folder).read("samples").to_pandas()
    return found


def test_all_cells_of_a_place_share_a_heat_with_the_control(
    measure: Callable[..., pd.DataFrame], net: str, tmp_path: Path
) -> None:
    cells = measure(models=[net], techniques=TECHNIQUES)
    assert cells["heat"].nunique() == 1
    assert cells["together"].all()
    assert (cells["processes"] == 2).all()
    samples = samples_of(tmp_path)
    control = samples[samples["cell_id"].str.startswith(CONTROL_PREFIX)]
    assert control["heat"].unique().tolist() == cells["heat"].unique().tolist()
    assert set(control["round"]) == set(samples["round"])
    assert (cells["control_latency_s"] > 0).all()
    assert cells["control_latency_s"].nunique() == 1
    medians = control.groupby("block")["seconds"].median()
    assert medians.min() <= cells["control_latency_s"].iloc[0] <= medians.max()


def test_blocks_of_a_heat_follow_each_other_in_time(
    measure: Callable[..., pd.DataFrame], net: str, tmp_path: Path
) -> None:
    measure(models=[net], techniques=TECHNIQUES)
    blocks = samples_of(tmp_path).drop_duplicates("block").sort_values("block")
    assert blocks["at_s"].is_monotonic_increasing
    assert (blocks["disturbed"] == (blocks["cause"] != "")).all()
    first = blocks[blocks["round"] == 0]
    assert len(first[first["position"] < 5]) == 5, "four cells and the control"


def test_cells_that_do_not_fit_together_are_split_and_compared_with_the_baseline_in_each(
    measure: Callable[..., pd.DataFrame], net: str
) -> None:
    room = int(3.5 * WORKER_BYTES)  # baseline, control, and one more
    cells = measure(models=[net], techniques=TECHNIQUES, budget={"max_heat_memory_bytes": room})
    assert len(cells) == 4
    assert cells["heat"].nunique() == 3
    assert cells["together"].all()
    assert (cells["processes"] == 1).all(), "one process is better than none that stays"
    assert cells["latency_ratio"].notna().all()
    assert np.isfinite(cells["latency_ratio_low"]).all()


def test_cells_too_big_to_be_alive_together_are_measured_in_turns_and_say_so(
    measure: Callable[..., pd.DataFrame], net: str, tmp_path: Path
) -> None:
    budget = {"max_heat_memory_bytes": 10**6, "max_seconds_per_cell": 3.0}
    cells = measure(models=[net], techniques=["bf16"], budget=budget)
    assert not cells["together"].any()
    assert (cells["status"] == "measured").all()
    (pruned,) = cells[cells["technique"] == "bf16"].to_dict("records")
    samples = samples_of(tmp_path)
    shared = samples[samples["heat"] == pruned["heat"]].groupby("round")["cell_id"].nunique()
    assert pruned["processes"] >= pruned["rounds"], "each block is of a process of its own"
    assert (shared == 3).sum() >= 6, "both cells and the control in each of several rounds"
    assert pruned["latency_ratio_low"] <= pruned["latency_ratio"] <= pruned["latency_ratio_high"]


def test_what_was_warmed_up_and_what_disturbed_is_recorded(
    measure: Callable[..., pd.DataFrame], net: str
) -> None:
    (cell,) = measure(models=[net]).to_dict("records")
    assert cell["warm_up_calls"] >= 3
    assert cell["headline_blocks"] in ("clean", "loaded", "all")
    assert 0 <= cell["disturbed_share"] <= 1
    assert cell["stopped_by"] in ("interval", "budget")
    assert cell["settled"] in (True, False)
    assert cell["cold_start_s"] > cell["latency_s"]
    assert cell["load_memory_bytes"] >= cell["weight_memory_bytes"] - 2**20, "within the bounds"
    assert cell["dtype_in_effect"] == "float32"
    assert cell["autocast_in_effect"] == "off"
    assert cell["denormals_in_effect"] == "kept"
    assert cell["allocator_in_effect"]
    assert cell["processors_used"] > 0
    assert cell["energy_source"] == "rapl" or cell["energy_source"].startswith("none: ")


def test_a_tiny_model_at_batch_1_is_bound_by_overhead(
    measure: Callable[..., pd.DataFrame], net: str
) -> None:
    (cell,) = measure(models=[net.replace(":net", ":tiny")]).to_dict("records")
    assert cell["bound"] == "overhead"
    assert cell["arithmetic_intensity"] > 0
    assert 0 < cell["fraction_of_roof"] < 0.5
    moved = 4 * (8 + 16 + 8 * 16 + 16) + 4 * (16 + 16) + 4 * (16 + 4 + 16 * 4 + 4)
    assert cell["bytes_moved"] == moved


def test_p_values_are_corrected_over_the_grid(
    measure: Callable[..., pd.DataFrame], net: str
) -> None:
    cells = measure(models=[net], techniques=TECHNIQUES)
    compared = cells[cells["technique"] != "baseline"]
    assert (compared["latency_ratio_q_value"] >= compared["latency_ratio_p_value"]).all()
    assert compared["latency_ratio_q_value"].max() == compared["latency_ratio_p_value"].max()
    (baseline,) = cells[cells["technique"] == "baseline"].to_dict("records")
    assert np.isnan(baseline["latency_ratio_q_value"])


def test_models_of_one_task_are_timed_in_one_heat_each_against_its_own_baseline(
    measure: Callable[..., pd.DataFrame], models: list[str], tmp_path: Path
) -> None:
    cells = measure(models=models, techniques=["bf16"])
    assert cells["heat"].nunique() == 1
    assert cells["task"].unique().tolist() == ["digits"]
    samples = samples_of(tmp_path)
    medians = samples.groupby(["cell_id", "round"])["seconds"].median().unstack(0)
    for model in models:
        mine = cells[cells["model"] == model].set_index("technique")
        ratios = medians[mine.loc["bf16", "cell_id"]] / medians[mine.loc["baseline", "cell_id"]]
        assert ratios.min() <= mine.loc["bf16", "latency_ratio"] <= ratios.max()
        assert mine.loc["baseline", "latency_ratio"] == 1
    assert medians.shape[1] == 5, "four cells and the control"


def test_a_split_task_has_each_model_s_baseline_beside_its_cells(
    measure: Callable[..., pd.DataFrame], models: list[str]
) -> None:
    room = int(3.5 * WORKER_BYTES)  # control, baseline, and one more
    cells = measure(models=models, techniques=["bf16"], budget={"max_heat_memory_bytes": room})
    assert cells["latency_ratio"].notna().all()
    assert cells.groupby("model")["heat"].nunique().tolist() == [1, 1]
    assert cells["heat"].nunique() == 2
