"""What a trained model has learned is in every process that it is built in again."""

from __future__ import annotations

import copy
import warnings
from collections.abc import Iterator
from pathlib import Path
from threading import Lock

import pandas as pd
import pytest
import torch
from torch import Tensor, nn

from bench.subject import Subject
from bench.training import train
from harness.prepare import build, restore
from harness.prepare.build import Steps, build_base
from harness.prepare.content import digest_leniently
from harness.prepare.kept import STATE, variant_folder
from harness.prepare.make import prepare_base
from harness.prepare.restore import load_subject
from harness.prepare.save import save_prepared
from harness.prepare.seeding import seed_everything
from harness.prepare.state import find_lost, restore_state, save_state

LEARNS = """
import collections
from bench import Recipe, Subject
from bench.data import load_dataset
import torch
from torch import nn
from torch.nn.utils import parametrizations

class Memory:
    value = 0.0

class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.layer = {layer}
        self.learned = {first}
    def forward(self, x):
        seen = x.detach().mean()
        if self.training:
            {update}
        return self.layer(x.flatten(1)) {read}

def net():
    examples = load_dataset("digits")
    return Subject(Net(), (examples.train.inputs[:4],), examples, Recipe(epochs=1))
"""
WAYS = {
    "nothing": ("0.0", "pass", ""),
    "a number": ("0.0", "self.learned = 0.9 * self.learned + float(seen)", "+ self.learned"),
    "a tensor": ("torch.zeros(())", "self.learned = 0.9 * self.learned + seen", "+ self.learned"),
    "a list": ("[0.0]", "self.learned[0] += float(seen)", "+ self.learned[0]"),
    "one that is made later": (
        "None", "self.later = {'a': float(seen)}", "+ getattr(self, 'later', {'a': 0.0})['a']",
    ),
    "an object": ("Memory()", "self.learned.value += float(seen)", "+ self.learned.value"),
    "a counter": ("collections.Counter()", "self.learned['a'] += 1", "+ self.learned['a']"),
}  # fmt: skip
LAYERS = {
    "as it is": "nn.Linear(64, 10)",
    "built again": "parametrizations.weight_norm(nn.Linear(64, 10))",
}


@pytest.fixture
def fresh() -> Iterator[None]:
    """As in a process that has made nothing."""
    yield
    build.built.clear()
    restore._restored.clear()


@pytest.mark.parametrize("layer", LAYERS)
@pytest.mark.parametrize("name", WAYS)
def test_whatever_a_module_learns_is_there_when_it_is_restored(
    tmp_path: Path, name: str, layer: str, fresh: None
) -> None:
    parts = dict(zip(("first", "update", "read"), WAYS[name], strict=True))
    text = LEARNS
    for key, value in (parts | {"layer": LAYERS[layer]}).items():
        text = text.replace(f"{{{key}}}", value)
    (tmp_path / "net.py").write_text(text)
    model = f"{tmp_path}/net.py:net"
    facts = prepare_base(model, [], 0, "a test")
    assert facts["rebuilt"] == (layer == "built again"), facts["notes"]
    build.built.clear()
    found = copy.deepcopy(load_subject(facts["variant"]).module)  # as training does: hooks differ
    build.built.clear()
    untrained = build_base(Steps(model=model))
    seed_everything(0, "train")
    wanted = train(untrained).module
    assert digest_leniently(found) == digest_leniently(wanted)
    assert digest_leniently(found) != digest_leniently(untrained.module)
    again = facts["rebuilt"] and name in ("an object", "a counter")
    told = "trained again in each, as learned cannot be kept: register it as a buffer"
    assert any(told in note for note in facts["notes"]) == again
    kept = variant_folder(facts["variant"]) / STATE
    assert kept.is_file() == (facts["rebuilt"] and not again)


class Tied(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = nn.BatchNorm1d(4), nn.BatchNorm1d(4)
        self.b.running_mean = self.a.running_mean

    def forward(self, x: Tensor) -> Tensor:
        return self.b(self.a(x))


def test_buffers_that_are_shared_are_restored_in_each_place(tmp_path: Path) -> None:
    made, other = Tied(), Tied()
    made(torch.randn(8, 4))
    save_state(made, tmp_path / STATE)
    restore_state(other, tmp_path / STATE)
    assert other.a.running_mean is other.b.running_mean
    assert digest_leniently(made) == digest_leniently(other)


class Guarded(nn.Module):
    """Cannot be serialized."""

    def __init__(self) -> None:
        super().__init__()
        self.layers, self.lock = nn.Sequential(nn.Linear(4, 4), nn.BatchNorm1d(4)), Lock()

    def forward(self, x: Tensor) -> Tensor:
        return self.layers(x)


def test_quantized_layers_are_restored_where_they_are_built_again(tmp_path: Path) -> None:
    def make() -> nn.Module:
        made = Guarded().eval()
        with warnings.catch_warnings(action="ignore"):
            torch.ao.quantization.quantize_dynamic(made.layers, {nn.Linear}, inplace=True)
        return made

    made, other, rows = make(), make(), torch.randn(2, 4)
    save_state(made, tmp_path / STATE)
    restore_state(other, tmp_path / STATE)
    assert torch.equal(made(rows), other(rows))


class Scales(nn.Module):
    """Learns by an object of an installed library."""

    def __init__(self) -> None:
        super().__init__()
        self.layer, self.seen = nn.Linear(4, 4), pd.Series([0.0])

    def forward(self, x: Tensor) -> Tensor:
        if self.training:
            self.seen[0] += float(x.sum())
        return self.layer(x) + float(self.seen[0])


@pytest.mark.parametrize("learns", [False, True])
def test_what_a_librarys_object_learns_is_lost_where_a_model_is_built_again(
    learns: bool, tmp_path: Path
) -> None:
    untrained = Scales()
    made = copy.deepcopy(untrained)
    made.train(learns)(torch.ones(2, 4))
    made.eval()
    save_state(made, tmp_path / STATE)
    assert find_lost(made, untrained, tmp_path / STATE) == ("seen" if learns else "")


class Forgets(nn.Linear):
    scale = 1.0

    def __getstate__(self) -> dict[str, object]:
        return {name: value for name, value in vars(self).items() if name != "scale"}


def test_a_module_that_is_read_again_as_another_is_built_again(tmp_path: Path) -> None:
    module = Forgets(4, 4)
    subject = Subject(module, (torch.zeros(2, 4),))
    assert save_prepared(subject, tmp_path, "") == ""
    module.scale = 2.0
    assert save_prepared(subject, tmp_path, "") == "scale is another when it is read again"
    assert not (tmp_path / "subject.pt").exists()


class Counts(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layer, self.seen = nn.Linear(4, 4), 0.0

    def forward(self, x: Tensor) -> Tensor:
        self.seen += float(x.sum())
        return self.layer(x) * self.seen


@pytest.mark.parametrize("calls", [0, 1])
def test_what_a_script_learns_beside_its_weights_is_lost_and_seen_to_be(
    tmp_path: Path, calls: int
) -> None:
    untrained = torch.jit.script(Counts())
    made = copy.deepcopy(untrained).eval()
    with torch.no_grad():
        made.layer.weight.add_(1)
    for _ in range(calls):
        made(torch.ones(2, 4))
    save_state(made, tmp_path / STATE)
    assert bool(find_lost(made, untrained, tmp_path / STATE)) == bool(calls)
