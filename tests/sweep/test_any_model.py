"""A property over random models: a second run sees whatever matters, and counts are right or empty.

A file with a random model, random side effects and a random layout of its inputs is prepared,
counted and asked; then one thing in it is changed, and it is asked again.
"""

from __future__ import annotations

import dataclasses
import json
import math
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from harness.sweep.imports import Imports
from harness.sweep.launcher import Launcher

WIDTH, STEPS = 6, 5
FILE = """
import dataclasses, json, pathlib
import torch
import torch.nn.functional as F
from torch import nn
from torch.nn.utils import parametrizations, parametrize

SPEC = json.loads(pathlib.Path(__file__).with_name("spec.json").read_text())
if SPEC["precision"]:
    torch.set_float32_matmul_precision("medium")
if SPEC["denormals"]:
    torch.set_flush_denormal(True)
relu = F.relu
F.relu = lambda x, inplace=False: relu(x) * SPEC["patch"]

@dataclasses.dataclass
class Out:
    nothing: object
    scores: torch.Tensor

class Scaled(nn.Module):
    def __init__(self, by):
        super().__init__()
        self.by = by
    def forward(self, weight):
        return weight * self.by

class Recurrent(nn.Module):
    def __init__(self, kind, hidden):
        super().__init__()
        self.inner = kind(6, hidden, batch_first=True)
        self.back = nn.Linear(hidden, 6, bias=False)
    def forward(self, x):
        return self.back(self.inner(x)[0])

class Vector(nn.Module):
    def __init__(self, repeats):
        super().__init__()
        self.vector, self.repeats = nn.Parameter(torch.ones(6)), repeats
    def forward(self, x):
        for _ in range(self.repeats):
            x = x + (x @ self.vector)[..., None]
        return x

class Conv(nn.Module):
    def __init__(self, kernel):
        super().__init__()
        self.inner = nn.Conv1d(6, 6, 2 * kernel + 1, padding=kernel, bias=False)
    def forward(self, x):
        return self.inner(x.mT).mT

class Bilinear(nn.Module):
    def __init__(self, _):
        super().__init__()
        self.inner = nn.Bilinear(6, 6, 6, bias=False)
    def forward(self, x):
        return self.inner(x.contiguous(), x.contiguous())

class Fourier(nn.Module):
    def __init__(self, _):
        super().__init__()
    def forward(self, x):
        return torch.fft.fft(x).real

def linear(wide):
    return nn.Sequential(nn.Linear(6, wide, bias=False), nn.ReLU(), nn.Linear(wide, 6, bias=False))

MAKE = {
    "linear": linear, "conv": Conv, "vector": Vector, "bilinear": Bilinear, "fourier": Fourier,
    "lstm": lambda hidden: Recurrent(nn.LSTM, hidden),
    "gru": lambda hidden: Recurrent(nn.GRU, hidden),
}

class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.layers = nn.ModuleList(MAKE[kind](size) for kind, size in SPEC["layers"])
        self.head = nn.Linear(6, 6, bias=False)
        self.tail = nn.Linear(6, 6, bias=False)
        if SPEC["tied"]:
            self.tail.weight = self.head.weight
        if SPEC["parametrized"] == "norm":
            parametrizations.weight_norm(self.head)
        elif SPEC["parametrized"] == "scaled":
            parametrize.register_parametrization(self.head, "weight", Scaled(SPEC["scale"]))
        self.offset = {"nested": [SPEC["offset"]]}
    def forward(self, x):
        for layer in self.layers:
            x = layer(x)
        y = self.tail(F.relu(self.head(x))) + self.offset["nested"][0]
        outputs = {"tensor": y, "dict": {"y": y}, "tuple": (None, y), "class": Out(None, y)}
        return outputs[SPEC["out"]]

def net():
    torch.manual_seed(SPEC["weights"])
    x = torch.randn(2, 5, 6)
    if SPEC["transposed"]:
        x = x.mT.contiguous().mT
    module = Net()
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.abs_()
    return module, x
"""
FORMULAS = {
    "linear": lambda size: STEPS * 2 * WIDTH * size,
    "conv": lambda size: STEPS * WIDTH * WIDTH * (2 * size + 1),
    "vector": lambda size: size * STEPS * WIDTH,
    "bilinear": lambda size: STEPS * WIDTH**3,
    "fourier": lambda size: math.nan,
    "lstm": lambda size: STEPS * (4 * size * (WIDTH + size) + size * WIDTH),
    "gru": lambda size: STEPS * (3 * size * (WIDTH + size) + size * WIDTH),
}
PARAMETERS = {
    "linear": lambda size: 2 * WIDTH * size,
    "conv": lambda size: WIDTH * WIDTH * (2 * size + 1),
    "vector": lambda size: WIDTH,
    "bilinear": lambda size: WIDTH**3,
    "fourier": lambda size: 0,
    "lstm": lambda size: 4 * size * (WIDTH + size + 2) + size * WIDTH,
    "gru": lambda size: 3 * size * (WIDTH + size + 2) + size * WIDTH,
}


@dataclass(frozen=True)
class Spec:
    """A random model."""

    layers: tuple[tuple[str, int], ...]
    tied: bool
    parametrized: str
    out: str
    transposed: bool
    precision: bool
    denormals: bool
    weights: int
    scale: float = 1.5
    offset: float = 0.25
    patch: float = 1.0

    @property
    def macs(self) -> float:
        """The closed form; NaN where an operator cannot be counted."""
        return sum(FORMULAS[kind](size) for kind, size in self.layers) + 2 * STEPS * WIDTH**2

    @property
    def params(self) -> int:
        """The numbers of distinct memory; what is parametrized stays tied."""
        ends = WIDTH**2 * (1 if self.tied else 2) + WIDTH * (self.parametrized == "norm")
        return sum(PARAMETERS[kind](size) for kind, size in self.layers) + ends


LAYERS = st.lists(st.tuples(st.sampled_from(sorted(FORMULAS)), st.integers(1, 3)), max_size=3)
SPECS = st.builds(
    Spec,
    layers=LAYERS.map(tuple), tied=st.booleans(), transposed=st.booleans(),
    parametrized=st.sampled_from(["none", "norm", "scaled"]),
    out=st.sampled_from(["tensor", "dict", "tuple", "class"]),
    precision=st.booleans(), denormals=st.booleans(), weights=st.integers(0, 9),
)  # fmt: skip
CHANGES = {
    "a layer more": lambda s: replace(s, layers=(*s.layers, ("vector", 2))),
    "the size of a layer": lambda s: replace(
        s, layers=(("linear", 4 if s.layers[:1] != (("linear", 4),) else 5), *s.layers[1:])
    ),
    "the weights": lambda s: replace(s, weights=s.weights + 10),
    "an attribute that is nested": lambda s: replace(s, offset=s.offset + 1),
    "a patch": lambda s: replace(s, patch=s.patch * 2),
    "matmul precision": lambda s: replace(s, precision=not s.precision),
    "denormals": lambda s: replace(s, denormals=not s.denormals),
    "the layout of the inputs": lambda s: replace(s, transposed=not s.transposed),
}


@dataclass(frozen=True)
class Seen:
    """What a run sees of a model."""

    variant: str
    macs: float
    params: float
    settings: tuple[str, str]
    outputs: Any
    warnings: tuple[str, ...]


def ask(launcher: Launcher, file: Path) -> Seen:
    """Prepare, count, load and ask the model of a file as a run does, in fresh workers."""
    imports = Imports(folders=(str(file.parent),), files=(str(file),))
    try:
        with launcher.worker(imports) as worker:
            variant = worker.call("prepare_base", 60, model=f"{file}:net", recipes=[], seed=0,
                                  token="a test", threads=1)["variant"]  # fmt: skip
            counted = worker.call("count", 60, variant=variant, runtime="eager")
        with launcher.worker(imports) as worker:
            found = worker.call("load", 60, variant=variant, device="cpu", runtime="eager",
                                threads=1, batch=2, pin=False, wait_policy="active",
                                flush_cache=False, cold=True)["conditions"]  # fmt: skip
            outputs = worker.call("answers", 60, variant=variant, batch=2)["outputs"]
    finally:
        launcher.close_templates()
    effects = (found["matmul_precision_in_effect"], found["denormals_in_effect"])
    macs, params = counted["work"].for_one(2), counted["metrics"]["params"]
    return Seen(variant, macs, params, effects, outputs, tuple(found["warnings"]))


def look_at(launcher: Launcher, folder: Path, spec: Spec) -> Seen:
    """Write a model's specification and ask its file; check what must hold of any."""
    (folder / "spec.json").write_text(json.dumps(dataclasses.asdict(spec)))
    seen = ask(launcher, folder / "any.py")
    assert np.isnan(seen.macs) if math.isnan(spec.macs) else seen.macs == spec.macs
    assert seen.params == spec.params
    assert seen.settings == (
        "medium" if spec.precision else "highest", "flushed" if spec.denormals else "kept",
    )  # fmt: skip
    assert seen.warnings == ()
    return seen


@pytest.mark.longest
@settings(
    max_examples=30, derandomize=True,
    phases=(Phase.explicit, Phase.generate),  # shrinking would take minutes
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)  # fmt: skip
@given(spec=SPECS, change=st.sampled_from(sorted(CHANGES)))
def test_a_second_run_sees_any_change_and_counts_are_closed_forms_or_empty(
    launcher: Launcher, tmp_path: Path, spec: Spec, change: str
) -> None:
    (tmp_path / "any.py").write_text(FILE)
    first = look_at(launcher, tmp_path, spec)
    again = look_at(launcher, tmp_path, spec)
    assert again.variant == first.variant, "what has not changed is not prepared again"
    np.testing.assert_array_equal(again.outputs, first.outputs)
    changed = CHANGES[change](spec)
    second = look_at(launcher, tmp_path, changed)
    assert second.variant != first.variant
    if change in ("a layer more", "the weights", "an attribute that is nested", "a patch"):
        assert not np.array_equal(second.outputs, first.outputs)


@pytest.mark.parametrize("change", sorted(CHANGES))
def test_each_change_is_seen_in_a_usual_model(
    launcher: Launcher, tmp_path: Path, change: str
) -> None:
    (tmp_path / "any.py").write_text(FILE)
    usual = Spec((("linear", 3), ("lstm", 2)), True, "scaled", "class", False, False, False, 1)
    first = look_at(launcher, tmp_path, usual)
    second = look_at(launcher, tmp_path, CHANGES[change](usual))
    assert second.variant != first.variant
