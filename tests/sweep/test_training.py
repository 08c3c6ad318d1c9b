"""Training as what is measured: the step, the way to quality, and what may stand in such a grid."""

from collections.abc import Callable
from typing import Any

import pandas as pd
import pytest
import torch
from torch import nn

from bench import registry
from bench.subject import Recipe
from harness.errors import UserError
from harness.grid_file import parse_grid
from harness.measure.counts import count_macs
from harness.measure.runtimes import TrainingStep, make_labels
from harness.sweep.launcher import Launcher
from harness.sweep.plan import resolve

MLP = "digits-mlp(width=16)"


def make_step(recipe: Recipe, module: nn.Module | None = None) -> TrainingStep:
    torch.manual_seed(0)
    module = module or nn.Sequential(nn.Linear(64, 128), nn.ReLU(), nn.Linear(128, 10))
    return TrainingStep(module, recipe, make_labels(10, 8))


def test_a_step_computes_every_gradient_and_leaves_the_weights() -> None:
    step = make_step(Recipe(epochs=1))
    before = [parameter.detach().clone() for parameter in step.module.parameters()]
    inputs = torch.randn(8, 64)
    losses = [float(step(inputs)) for _ in range(3)]
    after = list(step.module.parameters())
    assert losses[0] == losses[1] == losses[2]
    assert all(torch.equal(old, new) for old, new in zip(before, after, strict=True))
    assert all(parameter.grad.abs().sum() > 0 for parameter in after)


@pytest.mark.parametrize(
    ("classes", "shape", "outputs"), [(10, (), 10), (0, (), 1), (0, (3,), 3), (2, (3,), 3)]
)
def test_a_step_has_labels_of_the_shape_that_the_data_s_have(
    classes: int, shape: tuple[int, ...], outputs: int
) -> None:
    labels = make_labels(classes, 8, shape)
    assert labels.shape == (8, *shape) and labels.is_floating_point() == (classes == 0)
    assert not classes or labels.max() == min(classes, labels.numel()) - 1
    step = TrainingStep(nn.Linear(16, outputs), Recipe(epochs=1), labels)
    assert torch.isfinite(step(torch.randn(8, 16)))


def test_a_step_multiplies_forward_and_twice_backward_but_for_the_inputs() -> None:
    step = make_step(Recipe(epochs=1))
    macs, _ = count_macs(step, (torch.randn(8, 64),))
    first, second = 64 * 128, 128 * 10
    assert macs == 2 * first + 3 * second


def test_dropout_and_penalties_are_part_of_the_step() -> None:
    inputs = torch.randn(8, 64)
    plain = make_step(Recipe(epochs=1))(inputs)
    assert make_step(Recipe(epochs=1, l2=1.0))(inputs) > plain + 1
    dropping = make_step(Recipe(epochs=1, dropout=0.9))
    assert dropping(inputs) != dropping(inputs)


def test_a_training_grid_measures_steps_and_the_way_to_quality(
    measure: Callable[..., pd.DataFrame],
) -> None:
    found = measure(
        models=[MLP], techniques=["optimizer('gd')", "l2(0.01)"], batch=[20, 100],
        task="training", training={"target": 0.8},
    ).set_index(["technique", "batch"])  # fmt: skip
    assert (found["status"] == "measured").all(), found["message"].tolist()
    assert (found["runtime"] == "training").all()
    base = found.loc["baseline", 100]
    assert len(base["tune_quality"]) == 40
    assert base["updates_per_epoch"] == 10
    assert found.loc["baseline", 20]["updates_per_epoch"] == 50
    epoch = int(base["epochs_to_target"])
    assert base["tune_quality"][epoch - 1] >= 0.8 > max(base["tune_quality"][: epoch - 1])
    assert base["time_to_target_s"] == pytest.approx(epoch * 10 * base["latency_s"])
    assert base["time_to_target_s_low"] < base["time_to_target_s"]
    assert base["throughput_per_s"] == pytest.approx(100 / base["latency_s"])
    descent = found.loc["optimizer('gd')", 100]
    assert descent["call_examples"] == 1000
    assert descent["updates_per_epoch"] == 1
    assert descent["throughput_per_s"] == pytest.approx(1000 / descent["latency_s"])
    assert base["accuracy"] > 0.9
    assert base["peak_memory_bytes"] > base["weight_memory_bytes"] > 0


@pytest.mark.clock
def test_an_example_of_a_large_batch_costs_less_than_one_of_a_small_batch(
    measure: Callable[..., pd.DataFrame],
) -> None:
    """The batches are in heats apart, between which the machine may change its speed."""
    found = measure(models=[MLP], batch=[20, 100], task="training").set_index("batch")
    assert found.loc[100, "throughput_per_s"] > found.loc[20, "throughput_per_s"]


def test_a_target_that_is_never_reached_stays_empty(
    measure: Callable[..., pd.DataFrame],
) -> None:
    training = {"target": 1.0}
    found = measure(models=["linear-classifier"], batch=[100], task="training", training=training)
    assert found["status"].tolist() == ["measured"]
    assert found["time_to_target_s"].isna().all()
    assert found["epochs_to_target"].isna().all()
    assert (found["accuracy"] > 0.2).all(), "twice as often as by chance"


SIGNS = """
import torch
from bench import Subject
from bench.data import Dataset, Split
from bench.subject import Recipe

def signs():
    x = torch.randn(60, 2, generator=torch.Generator().manual_seed(0))
    half = Split(x, (x[:, 0] > 0).long())
    module = torch.nn.Linear(2, 2)
    with torch.no_grad():
        module.weight.copy_(torch.tensor([[5.0, 0], [0, 0]]))  # all wrong before it learns
    recipe = Recipe(epochs=20, learning_rate=0.3)
    return Subject(module, (x[:2],), Dataset("signs", half, half, half, 2), recipe)

def normed():
    made = signs()
    module = torch.nn.Sequential(torch.nn.BatchNorm1d(2), made.module)
    return Subject(module, made.inputs, made.data, made.recipe)
"""


def test_a_batch_of_one_trains_as_any_other(
    measure: Callable[..., pd.DataFrame], tmp_path: Any
) -> None:
    """It is what a grid has that names no batch."""
    file = tmp_path / "own.py"
    file.write_text(SIGNS)
    models = [f"{file}:signs", f"{file}:normed"]
    found = measure(models=models, task="training").set_index("model")
    learnt, refused = (found.loc[model] for model in models)
    assert learnt["status"] == "measured"
    assert learnt["updates_per_epoch"] == 60
    assert learnt["accuracy"] > 0.9
    assert refused["status"] == "skipped"
    assert "cannot train on a single example: train with a batch of 2" in refused["message"]


def test_a_model_that_is_not_trained_is_skipped_with_the_reason(
    measure: Callable[..., pd.DataFrame], tmp_path: Any
) -> None:
    file = tmp_path / "own.py"
    file.write_text(
        "import torch\ndef net():\n    return torch.nn.Linear(2, 2), torch.ones(1, 2)\n"
    )
    found = measure(models=[f"{file}:net"], task="training")
    assert found["status"].tolist() == ["skipped"]
    assert "needs data and a recipe" in found["message"].iloc[0]


def test_compressions_are_refused_where_training_is_measured(launcher: Launcher) -> None:
    grid = parse_grid(
        {"task": "training", "grid": {"models": [MLP], "techniques": ["l1(0.1) + affine(4)"]}},
        "mine.toml",
    )
    with pytest.raises(UserError) as raised:
        resolve(grid, launcher, "mine.toml")
    assert "techniques[0] in mine.toml: affine(4) changes a trained model" in str(raised.value)


def test_an_unknown_task_is_explained() -> None:
    with pytest.raises(UserError) as raised:
        parse_grid({"task": "trainig", "grid": {"models": [MLP]}}, "mine.toml")
    message = str(raised.value)
    assert "task in mine.toml must be 'inference' or 'training', got 'trainig'." in message
    assert "Did you mean 'training'?" in message


def test_a_technique_that_is_a_mistake_for_every_model_is_refused_before_training(
    launcher: Launcher,
) -> None:
    registry.load_built_ins()
    for technique, words in (
        ("finetune('6')", "no layer '6'"),
        ("prune-magnitude(0.5, steps=3)", "needs finetune_epochs=3 or more"),
        ("shrink(1.0)", "nothing shrinks"),
    ):
        grid = parse_grid({"grid": {"models": [MLP], "techniques": [technique]}}, "mine.toml")
        with pytest.raises(UserError, match=r"techniques\[0\] in mine.toml") as raised:
            resolve(grid, launcher, "mine.toml")
        assert words in str(raised.value)


def test_a_student_larger_than_its_teacher_is_skipped_without_training(
    measure: Callable[..., pd.DataFrame],
) -> None:
    found = measure(models=[MLP], techniques=["distill('digits-mlp')"]).set_index("technique")
    assert found.loc["baseline", "status"] == "measured"
    student = found.loc["distill('digits-mlp')"]
    assert student["status"] == "skipped"
    assert "more than its teacher" in student["message"]


MANY = """
import dataclasses
import torch
from torch import nn
from bench import Recipe, Subject
from bench.data.splits import Dataset, Split

@dataclasses.dataclass
class Out:
    logits: torch.Tensor
    hidden: torch.Tensor

class Net(nn.Module):
    def __init__(self, pack, outputs=4):
        super().__init__()
        self.first, self.last, self.pack = nn.Linear(8, 16), nn.Linear(16, outputs), pack
    def forward(self, x):
        hidden = self.first(x).relu()
        return self.pack(self.last(hidden), hidden)

def made(module, labels, classes):
    torch.manual_seed(0)
    split = Split(torch.randn(200, 8), labels)
    data = Dataset("made", split, split, split, classes)
    return Subject(module, (split.inputs[:4],), data, Recipe(epochs=1))

def as_tuple(*outputs): return outputs
def as_dict(*outputs): return {"logits": outputs[0], "rest": list(outputs[1:])}
def in_tuple(): return made(Net(as_tuple), torch.arange(200) % 4, 4)
def in_dict(): return made(Net(as_dict), torch.arange(200) % 4, 4)
def in_dataclass(): return made(Net(Out), torch.arange(200) % 4, 4)
def several_targets(): return made(Net(Out, 3), torch.randn(200, 3), 0)
"""


def test_a_model_of_several_outputs_or_targets_is_trained_fine_tuned_and_timed_training(
    measure: Callable[..., pd.DataFrame], tmp_path: Any
) -> None:
    file = tmp_path / "many.py"
    file.write_text(MANY)
    models = [f"{file}:{name}" for name in ("in_tuple", "in_dict", "in_dataclass")]
    techniques = ["prune-channels(0.5, finetune_epochs=1)", "bf16", "prune-gradient(0.5)"]
    distilled = "distill('shrink(0.5)', loss='mse')"
    cells = measure(models=models, techniques=[*techniques, distilled])
    assert list(cells["message"].unique()) == [""]
    params = cells.set_index(["technique"])["params"]
    assert set(params[techniques[0]]) == {8 * 8 + 8 + 8 * 4 + 4}
    steps = measure(models=[*models, f"{file}:several_targets"], task="training")
    assert list(steps["status"]) == ["measured"] * 4
