"""A worker runs what the user's file says: its settings, patches, operators, inputs and handles."""

from __future__ import annotations

import re
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import psutil
import pytest

from harness.sweep.imports import Imports
from harness.sweep.launcher import Launcher

Measure = Callable[..., pd.DataFrame]
BRIEF: dict[str, Any] = {
    "budget": {"max_seconds_per_cell": 0.05}, "instrument": {"processes": 1, "least_rounds": 6},
}  # fmt: skip
"""For what is told by counts: no figure of a time is looked at."""
PLAIN = """
import torch
from torch import nn

def net():
    return nn.Sequential(nn.Linear(64, 64), nn.GELU()), torch.randn(4, 64)
"""
# What benchmark scripts and kernels' libraries do when they are imported, and what shows it.
EFFECTS = {
    "matmul precision": 'torch.set_float32_matmul_precision("medium")',
    "denormals": "torch.set_flush_denormal(True)",
    "default type": "torch.set_default_dtype(torch.float64)",
    "a patched function": (
        "import torch.nn.functional as F; gelu = F.gelu\n"
        "F.gelu = lambda x, approximate='none': gelu(gelu(x) @ torch.ones(64, 64))"
    ),
    "a patched method": "nn.GELU.forward = lambda self, x: x @ torch.ones(64, 64)",
    "an environment variable": "import os; os.environ['SEEN_BY_MODEL'] = '1'",
}


def write(folder: Path, name: str, text: str) -> str:
    (folder / name).write_text(text)
    return str(folder / name)


def only(cells: pd.DataFrame) -> dict[str, Any]:
    (row,) = cells.to_dict("records")
    return row


def test_what_a_file_sets_or_patches_holds_where_its_models_are_timed_and_nowhere_else(
    measure: Measure, tmp_path: Path
) -> None:
    """The model in each file computes MACs that say which effects were in force."""
    probe = """
import os
import torch
from torch import nn
{effect}

class Probe(nn.Module):
    def __init__(self):
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(64, 64), nn.GELU())
    def forward(self, x):
        weight = torch.ones(8, 8)
        if torch.get_float32_matmul_precision() == "medium":
            weight @ torch.ones(8, 1)
        if (torch.full((1,), 1e-40, dtype=torch.float32) * 0.5).item() == 0:
            weight @ torch.ones(8, 2)
        if torch.get_default_dtype() == torch.float64:
            weight @ torch.ones(8, 4)
        if os.environ.get("SEEN_BY_MODEL"):
            weight @ torch.ones(8, 8)
        return self.layers(x)

def net():
    return Probe(), torch.randn(1, 64)
"""
    base, seen = 64 * 64, {}
    models = {name: f"{write(tmp_path, f'f{n}.py', probe.format(effect=effect))}:net"
              for n, (name, effect) in enumerate({"nothing": "", **EFFECTS}.items())}  # fmt: skip
    cells = measure(models=list(models.values()), **BRIEF).set_index("model")
    for name, model in models.items():
        assert cells.loc[model, "status"] == "measured", cells.loc[model, "message"]
        seen[name] = cells.loc[model, "macs"] - base
    assert seen == {
        "nothing": 0, "matmul precision": 64, "denormals": 128, "default type": 256,
        "a patched function": base, "a patched method": base, "an environment variable": 512,
    }  # fmt: skip
    assert cells.loc[models["matmul precision"], "matmul_precision_in_effect"] == "medium"
    assert cells.loc[models["denormals"], "denormals_in_effect"] == "flushed"
    assert cells.loc[models["nothing"], "denormals_in_effect"] == "kept"


FUNCTIONS = """
import torch, sys, pathlib
import torch.nn.functional as F
from torch import nn

class Net(nn.Module):
    scale = 1
    def __init__(self):
        super().__init__()
        self.last = nn.Identity()
    def forward(self, x):
        for _ in range(self.scale):
            x = x @ torch.ones(64, 64)
        return self.last(F.relu(x).sigmoid())

def sets():
    torch.set_flush_denormal(True)
    return Net(), torch.ones(1, 64)
def patches_its_class():
    Net.scale = 3
    return Net(), torch.ones(1, 64)
def patches_pytorch():
    relu = F.relu
    F.relu = lambda x: relu(x) @ torch.ones(64, 64)
    return Net(), torch.ones(1, 64)
def extends_the_path():
    sys.path.insert(0, str(pathlib.Path(__file__).parent / "inner"))
    from only_inside import Inside
    return Inside(), torch.ones(1, 64)
def patches_an_inherited_method():
    torch.Tensor.sigmoid = lambda self: self @ torch.ones(64, 64)
    return Net(), torch.ones(1, 64)
def gives_a_class_a_method():
    nn.Identity.__call__ = lambda self, x: x @ torch.ones(64, 64)
    return Net(), torch.ones(1, 64)
def patches_an_installed_package():
    old = torch.fft.rfft
    torch.fft.rfft = lambda x: x @ torch.ones(64, 64)
    class Transformed(Net):
        def forward(self, x):
            return torch.fft.rfft(super().forward(x))
    return Transformed(), torch.ones(1, 64)
def hooks_all_modules():
    nn.modules.module.register_module_forward_hook(
        lambda module, given, out: out @ torch.ones(64, 64) if type(module) is nn.Identity else out)
    return Net(), torch.ones(1, 64)
def sets_a_neighbour_imported_late():
    import late
    late.TIMES = 3
    return late.Late(), torch.ones(1, 64)
def sets_nothing_in_a_neighbour_imported_late():
    import late
    return late.Late(), torch.ones(1, 64)
def enters_a_mode():
    class Twice(torch.overrides.TorchFunctionMode):
        def __torch_function__(self, func, types, args=(), kwargs=None):
            made = func(*args, **(kwargs or {}))
            return made @ torch.ones(64, 64) if func is torch.Tensor.sigmoid else made
    Twice().__enter__()
    return Net(), torch.ones(1, 64)
def changes_the_folder():
    import os
    os.chdir(pathlib.Path(__file__).parent / "inner")
    class Reading(Net):
        def forward(self, x):
            return x @ torch.ones(64, len(pathlib.Path("only_inside.py").read_text().split()))
    return Reading(), torch.ones(1, 64)
def traces_calls():
    sys.setprofile(traced)
    return Net(), torch.ones(1, 64)
def traced(frame, event, argument):
    pass
def nothing():
    return Net(), torch.ones(1, 64)
"""
LATE = """
import torch
from torch import nn
TIMES = 1
class Late(nn.Module):
    def forward(self, x):
        for _ in range(TIMES):
            x = x @ torch.ones(64, 64)
        return x
"""


INSIDE = """
from torch import nn

class Inside(nn.Module):
    def forward(self, x):
        return x @ x.mT
"""


def test_what_a_models_function_sets_or_patches_holds_where_the_model_is_timed(
    measure: Measure, tmp_path: Path
) -> None:
    expected = {
        "sets": 4096, "patches_its_class": 3 * 4096, "patches_pytorch": 2 * 4096,
        "extends_the_path": 64, "patches_an_inherited_method": 2 * 4096,
        "gives_a_class_a_method": 2 * 4096, "patches_an_installed_package": 2 * 4096,
        "hooks_all_modules": 2 * 4096, "sets_a_neighbour_imported_late": 3 * 4096,
        "sets_nothing_in_a_neighbour_imported_late": 4096, "nothing": 4096,
        "enters_a_mode": 2 * 4096, "changes_the_folder": 64 * len(INSIDE.split()),
        "traces_calls": 4096,
    }  # fmt: skip
    names = tuple(expected)
    write(tmp_path, "late.py", LATE)
    (tmp_path / "inner").mkdir()
    write(tmp_path / "inner", "only_inside.py", INSIDE)
    for name in names:  # a file each: what one function does is not the other's
        write(tmp_path, f"{name}.py", FUNCTIONS)
    models = {name: f"{tmp_path / name}.py:{name}" for name in names}
    cells = measure(models=[*models.values()], **BRIEF).set_index("model")
    rows = {name: cells.loc[model] for name, model in models.items()}
    assert {name: row["status"] for name, row in rows.items()} == dict.fromkeys(names, "measured")
    assert {name: rows[name]["macs"] for name in names} == expected
    assert rows["sets"]["denormals_in_effect"] == "flushed"
    assert rows["nothing"]["denormals_in_effect"] == "kept"
    for name in names:
        again = any("its function changes" in note for note in rows[name]["notes"])
        assert again == ("nothing" not in name), (name, rows[name]["notes"])
    assert all(
        len(row["warnings"]) == 0 or "oversub" in row["warnings"][0] for row in rows.values()
    )


# What PyTorch changes in itself when something is first trained or compiled is not the user's.
LEARNS = """
import torch
from torch import nn

def net():
    model, x = nn.Linear(8, 8), torch.randn(2, 8)
    optimizer = torch.optim.OPTIMIZER(model.parameters(), lr=0.01)
    torch.optim.lr_scheduler.StepLR(optimizer, 1)
    def closure():
        loss = model(x).square().mean()
        loss.backward()
        return loss
    optimizer.step(closure)
    return model, x
"""


def test_a_function_that_trains_its_model_is_not_called_again_in_each_worker(
    tmp_path: Path, cold_servers: None
) -> None:
    with Launcher() as launcher:  # one that has not imported the compiler yet
        for optimizer in ("SGD", "AdamW", "LBFGS"):
            file = write(tmp_path, f"{optimizer}.py", LEARNS.replace("OPTIMIZER", optimizer))
            with launcher.worker(Imports(folders=(str(tmp_path),), files=(file,))) as worker:
                facts = worker.call("prepare_base", 60, model=f"{file}:net", recipes=[], seed=0,
                                    token="a test", threads=1)  # fmt: skip
            assert facts["changed"] == "", optimizer
            assert facts["rebuilt"] is False


# What a model holds that a second run has to see.
CHANGES = {
    "a plain attribute": "Repeat(VALUE)",
    "a nested attribute": "Repeat({'n': [VALUE]})",
    "an object that is held": "Repeat(Config(VALUE))",
    "a buffer that is not saved": "Repeat(None, buffer=VALUE)",
    "an enclosed variable": "Repeat(lambda: VALUE)",
    "a class attribute": "Repeat('class', of_all=VALUE)",
    "a global instance": "Repeat('instance')",
    "a default argument": "Repeat('default')",
    "a neighbour that is imported late": "Repeat('late')",
    "a global that forward reads": "Repeat('global')",
    "a neighbour that forward calls": "Repeat('neighbour')",
}
CHANGING = """
import json, pathlib
import torch
from bench import Recipe, Subject
from bench.data import load_dataset
from torch import nn
import beside

VALUE = json.loads(pathlib.Path(__file__).with_name("config.json").read_text())

class Config:
    def __init__(self, n):
        self.n = n

INSTANCE = Config(VALUE)

def by_default(times=VALUE):
    return times

class Repeat(nn.Module):
    def __init__(self, times, buffer=0, of_all=None):
        super().__init__()
        if of_all:
            Repeat.times_of_all = of_all
        self.same, self.layer = nn.Linear(64, 64, bias=False), nn.Linear(64, 10)
        self.same.requires_grad_(False).weight.copy_(torch.eye(64))
        self.times = times
        self.register_buffer("count", torch.tensor(buffer), persistent=False)
    def forward(self, x):
        times = self.times
        if times == "global":
            times = VALUE
        elif times == "neighbour":
            times = beside.TIMES
        elif times == "late":
            import later
            times = later.TIMES
        elif times == "instance":
            times = INSTANCE.n
        elif times == "default":
            times = by_default()
        elif times == "class":
            times = self.times_of_all
        elif isinstance(times, dict):
            times = times["n"][0]
        elif isinstance(times, Config):
            times = times.n
        elif callable(times):
            times = times()
        elif times is None:
            times = int(self.count)
        x = x.flatten(1)
        for _ in range(times):
            x = self.same(x)
        return self.layer(x) * (-1) ** times

def net():
    examples = load_dataset("digits")
    return Subject({made}, (examples.train.inputs[:4],), examples, Recipe(epochs=5))
def inputs():
    return nn.Conv1d(1, 1, 3, bias=False), torch.randn(1, 1, VALUE)
"""
ZEROED = "prune-magnitude(0.25)"


@pytest.mark.longest
def test_a_second_run_sees_whatever_has_changed(measure: Measure, tmp_path: Path) -> None:
    """A layer for each of so many times, and scores whose sign an odd number turns.

    MACs tell which number was in force where it was counted, accuracy whether it was so in training
    too: with weights of the other sign no answer is right.
    """
    models = {name: f"{write(tmp_path, f'c{n}.py', CHANGING.replace('{made}', made))}:net"
              for n, (name, made) in enumerate(CHANGES.items())}  # fmt: skip
    inputs = f"{tmp_path / 'c0.py'}:inputs"
    for value in (4, 7):
        write(tmp_path, "config.json", str(value))
        write(tmp_path, "beside.py", f"TIMES = {value}")
        write(tmp_path, "later.py", f"TIMES = {value}")
        cells = measure(models=[*models.values(), inputs], techniques=[ZEROED], **BRIEF)
        rows = cells.set_index(["model", "technique"])
        assert rows.loc[(inputs, "baseline"), "macs"] == 3 * (value - 2)
        for name, model in models.items():
            for technique in ("baseline", ZEROED):
                row = rows.loc[(model, technique)]
                assert row["macs"] == value * 64 * 64 + 64 * 10, (name, technique)
                assert row["accuracy"] > 0.7, (name, technique)
        for results in (tmp_path / "results").iterdir():
            results.rename(tmp_path / f"{value} {results.name}")


HANDLES = """
import dataclasses, threading
import torch
from torch import nn
from torch.nn.utils import parametrizations, parametrize, prune

def weight_norm():
    return nn.Sequential(parametrizations.weight_norm(nn.Linear(8, 8)), nn.ReLU()), X
def orthogonal():
    return parametrizations.orthogonal(nn.Linear(8, 8)), X
class Double(nn.Module):
    def forward(self, w): return w * 2
def own_parametrization():
    layer = nn.Linear(8, 8)
    parametrize.register_parametrization(layer, "weight", Double())
    return layer, X
def scripted():
    return torch.jit.script(nn.Sequential(nn.Linear(8, 8), nn.ReLU())), X
def traced():
    return torch.jit.trace(nn.Linear(8, 8), X), X
def scripted_and_frozen():
    return torch.jit.freeze(torch.jit.script(nn.Linear(8, 8).eval())), X
class Wraps(nn.Module):
    def __init__(self, inner):
        super().__init__()
        self.inner = inner
    def forward(self, x):
        return self.inner(x)
def with_a_frozen_part():
    return Wraps(torch.jit.optimize_for_inference(torch.jit.trace(nn.Linear(8, 8).eval(), X))), X
class Jagged(nn.Module):
    def forward(self, x):
        return torch.nested.nested_tensor([x[0], x[0, :4]], layout=torch.jagged).sin().unbind()[0]
def nested_inside():
    return Jagged(), X
class Unseen(nn.Module):
    def forward(self, x):
        if torch._C._len_torch_dispatch_stack():
            raise RuntimeError("as a compiler that sees a mode")
        return x + 1
def that_fails_where_its_operators_are_seen():
    return Unseen(), X
class Locked(nn.Module):
    def __init__(self):
        super().__init__()
        self.layer, self.lock = nn.Linear(8, 8), threading.Lock()
    def forward(self, x):
        with self.lock:
            return self.layer(x)
def with_a_lock():
    return Locked(), X
class Counting(Locked):
    def __init__(self):
        super().__init__()
        self.register_buffer("count", torch.zeros(()))
        self.register_buffer("wide", torch.zeros(1).expand(8), persistent=False)
        self.register_buffer("last", None)
    def forward(self, x):
        self.count = self.count + 1
        self.last = x
        return super().forward(x) + self.wide
def with_a_lock_and_buffers_that_change():
    return Counting(), X
class Opened(nn.Module):
    def __init__(self):
        super().__init__()
        self.layer, self.file = nn.Linear(8, 8), open(__file__)
    def forward(self, x):
        self.file.seek(0)
        return self.layer(x) * len(self.file.read(1))
def with_an_open_file():
    return Opened(), X
def with_a_generator():
    module = nn.Linear(8, 8)
    module.steps = (n for n in range(3))
    return module, X
def of_a_local_class():
    class Local(nn.Module):
        def __init__(self):
            super().__init__()
            self.layer = nn.Linear(8, 8)
        def forward(self, x):
            return torch.ops.aten.mul(self.layer(x), 2.0)
    return Local(), X
def exported():
    batch = torch.export.Dim("batch", min=1, max=64)
    return torch.export.export(nn.Linear(8, 8), (X,), dynamic_shapes=({0: batch},)).module(), X
def with_an_exported_part():
    return nn.Sequential(exported()[0], nn.Dropout()), X
def with_a_lambda():
    module = nn.Linear(8, 8)
    module.register_forward_hook(lambda m, i, o: torch.ops.aten.mul(o, 2.0))
    return module, X
@torch.library.custom_op("paretogrid_user::twice", mutates_args=())
def twice(x: torch.Tensor) -> torch.Tensor:
    return x * 2
@twice.register_fake
def _(x):
    return torch.empty_like(x)
class Custom(nn.Module):
    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(8, 8)
    def forward(self, x):
        return torch.ops.paretogrid_user.twice(self.layer(x))
def with_an_operator_of_its_own():
    return Custom(), X
library = torch.library.Library("paretogrid_old", "DEF")
library.define("thrice(Tensor x) -> Tensor")
library.impl("thrice", lambda x: x * 3, "CompositeExplicitAutograd")
class Older(Custom):
    def forward(self, x):
        return torch.ops.paretogrid_old.thrice(self.layer(x))
def with_an_operator_of_a_library():
    return Older(), X
def int8_weights():
    from torchao.quantization import Int8WeightOnlyConfig, quantize_
    module = nn.Sequential(nn.Linear(64, 64), nn.ReLU()).eval()
    quantize_(module, Int8WeightOnlyConfig())
    return module, torch.randn(4, 64)
def lazy():
    return nn.Sequential(nn.LazyLinear(8), nn.ReLU()), X
class Forces(nn.Module):
    def __init__(self):
        super().__init__()
        self.energy = nn.Sequential(nn.Linear(8, 4), nn.Tanh(), nn.Linear(4, 1))
    def forward(self, x):
        with torch.enable_grad():
            x = x.detach().requires_grad_(True)
            return -torch.autograd.grad(self.energy(x).sum(), x)[0]
def gradients_inside():
    return Forces(), X
class Frozen(nn.Module):
    def __init__(self):
        super().__init__()
        self.layer, self.norm = nn.Linear(8, 8), nn.BatchNorm1d(8)
    def train(self, mode=True):
        super().train(mode)
        self.norm.eval()
    def forward(self, x):
        return self.norm(self.layer(x))
def train_without_return():
    return Frozen(), X
@dataclasses.dataclass
class Out:
    loss: object
    logits: torch.Tensor
class Returning(nn.Module):
    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(8, 8)
    def forward(self, x):
        return Out(None, self.layer(x))
def a_dataclass():
    return Returning(), X
def inputs_with_gradients():
    return nn.Linear(8, 8), torch.randn(2, 8, requires_grad=True)
X = torch.randn(2, 8)
"""
NAMES = re.findall(r"^def ([a-z]\w+)\(\):", HANDLES, re.MULTILINE)


BESIDE = """
import functools

@functools.cache
def kept():
    return SCALE
"""
TRAINED = """
import enum, json, pathlib, threading
import beside
import torch.nn.functional as F
from bench import Recipe, Subject
from bench.data import load_dataset
import torch
from torch import nn

def read():
    return json.loads(pathlib.Path(__file__).with_name("config.json").read_text())

class Config:
    def __init__(self):
        self.scale = read()

class Locked(Config):
    def __init__(self):
        self.lock = threading.Lock()
        super().__init__()

SCALES = enum.Enum("SCALES", {"one": read()})
LOCKED = Locked()

class Net(nn.Module):
    scale = read()
    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(64, 10)
    def forward(self, x):
        return self.layer(x.flatten(1)) * {expression}

def by_default(scale=read()):
    return scale

CONFIG = Config()

def net():
    scale, hardtanh = read(), F.hardtanh
    if scale != 1:
        F.hardtanh = lambda x: x * scale
    examples = load_dataset("digits")
    return Subject(Net(), (examples.train.inputs[:4],), examples, Recipe(epochs=1))
"""


@pytest.mark.parametrize(
    "expression",
    ["self.scale", "CONFIG.scale", "by_default()", "LOCKED.scale", "beside.kept()",
     "F.hardtanh(torch.ones(()))", "SCALES.one.value", "read()"],
)  # fmt: skip
def test_training_is_repeated_when_what_it_depends_on_has_changed_and_only_then(
    launcher: Launcher, tmp_path: Path, expression: str
) -> None:
    """Scores that are scaled give other weights, whatever holds the scale."""
    file = write(tmp_path, "trained.py", TRAINED.replace("{expression}", expression))
    imports = Imports(folders=(str(tmp_path),), files=(file,))
    found = []
    for scale in (1, 1, 30):
        write(tmp_path, "config.json", str(scale))
        write(
            tmp_path,
            "beside.py",
            f"import functools\n@functools.cache\ndef kept():\n    return {scale}\n",
        )
        with launcher.worker(imports) as worker:
            asked = {"model": f"{file}:net", "recipes": [], "seed": 0, "token": "a test",
                     "threads": 1}  # fmt: skip
            facts = worker.call("prepare_base", 60, **asked)
        with launcher.worker(imports) as worker:
            assert worker.call("find_key", 60, steps=[], **asked) == facts["variant"]
        launcher.close_templates()
        found.append(facts["variant"])
    assert found[0] == found[1] != found[2]


def test_recipes_that_call_a_function_twice_are_refused_where_it_patches_something(
    measure: Measure, tmp_path: Path
) -> None:
    text = """
import torch.nn.functional as F
from bench import Recipe, Subject
from bench.data import load_dataset
from torch import nn

def net(width=16):
    relu = F.relu
    F.relu = lambda x, inplace=False: relu(x) * 2
    examples = load_dataset("digits")
    layers = nn.Sequential(nn.Flatten(), nn.Linear(64, width), nn.ReLU(), nn.Linear(width, 10))
    return Subject(layers, (examples.train.inputs[:4],), examples, Recipe(epochs=1))
"""
    model = f"{write(tmp_path, 'twice.py', text)}:net"
    cells = measure(models=[model], techniques=["width(2.0)", "l2(0.01)"]).set_index("technique")
    assert list(cells.loc[["baseline", "l2(0.01)"], "status"]) == ["measured"] * 2
    assert cells.loc["width(2.0)", "status"] == "skipped"
    assert "width(2.0) calls the model's function twice" in cells.loc["width(2.0)", "message"]
    assert "torch.nn.functional.relu" in cells.loc["width(2.0)", "message"]


def test_a_users_technique_is_applied_anew_in_every_run(measure: Measure, tmp_path: Path) -> None:
    model = f"{write(tmp_path, 'own.py', PLAIN)}:net"
    technique = f"{write(tmp_path, 'tech.py', TECHNIQUE)}:zero"
    found = []
    for share in ("0.25", "0.75"):
        write(tmp_path, "share.txt", share)
        cells = measure(models=[model], techniques=[technique]).set_index("technique")
        found.append(cells.loc[technique, "nonzero_params"])
    assert found == [64 + 48 * 64, 64 + 16 * 64]


TECHNIQUE = """
import copy, dataclasses, pathlib
import torch

def zero(subject):
    share = float(pathlib.Path(__file__).with_name("share.txt").read_text())
    module = copy.deepcopy(subject.module)
    with torch.no_grad():
        module[0].weight[: int(64 * share)] = 0
    return dataclasses.replace(subject, module=module)
"""


def test_whatever_a_model_is_made_of_is_measured(measure: Measure, tmp_path: Path) -> None:
    file = write(tmp_path, "handles.py", HANDLES)
    cells = measure(models=[f"{file}:{name}" for name in NAMES], **BRIEF).set_index("model")
    failed = {name: cells.loc[f"{file}:{name}", "message"] for name in NAMES
              if cells.loc[f"{file}:{name}", "status"] != "measured"}  # fmt: skip
    assert failed == {}
    assert (cells["fidelity"] == 1).all(), "every process has the same weights"
    notes = cells.loc[f"{file}:with_a_lock", "notes"]
    assert any("built again in each process" in note for note in notes)
    unseen = cells.loc[f"{file}:that_fails_where_its_operators_are_seen"]
    assert np.isnan(unseen["macs"]) and "as a compiler that sees" in unseen["uncounted_ops"][0]
    warnings = cells.loc[f"{file}:gradients_inside", "warnings"]
    assert any("takes gradients inside" in one for one in warnings)


def test_a_trained_model_that_cannot_be_serialized_keeps_its_weights_in_every_worker(
    measure: Measure, tmp_path: Path
) -> None:
    text = """
from bench import Recipe, Subject
from bench.data import load_dataset
from torch import nn
from torch.nn.utils import parametrizations

def net():
    examples = load_dataset("digits")
    layers = [nn.Flatten(), parametrizations.weight_norm(nn.Linear(64, 32)), nn.ReLU(),
              nn.Linear(32, 10)]
    return Subject(nn.Sequential(*layers), (examples.train.inputs[:64],), examples, Recipe(8))
"""
    model = f"{write(tmp_path, 'trained.py', text)}:net"
    cells = measure(models=[model], batch=[1, 16], techniques=["bf16"])
    assert (cells["status"] == "measured").all(), list(cells["message"])
    assert (cells["accuracy"] > 0.85).all()
    by_technique = cells.groupby("technique")["accuracy"].nunique()
    assert (by_technique == 1).all(), "both batches are of the same weights"


IN_PLACE = """
import torch
from torch import nn

class InPlace(nn.Module):
    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(64, 64)
    def forward(self, x):
        x.sub_(0.5).div_(0.25)
        y = self.layer(x)
        for _ in range(int((x > -1e9).all()) * 20):
            y = self.layer(x)
        return y
class Copying(InPlace):
    def forward(self, x):
        return super().forward(x.clone())
class ByNumPy(InPlace):
    def forward(self, x):
        x.numpy()[:] = (x.numpy() - 0.5) / 0.25
        y = self.layer(x)
        for _ in range(int((x > -1e9).all()) * 20):
            y = self.layer(x)
        return y
class Ids(nn.Module):
    def __init__(self):
        super().__init__()
        self.table = nn.Embedding(101, 8)
    def forward(self, i):
        i += 1
        return self.table(i)

def make(kind):
    torch.manual_seed(0)
    return kind(), torch.rand(64, 64)
def in_place(): return make(InPlace)
def copying(): return make(Copying)
def by_numpy(): return make(ByNumPy)
def ids(): return Ids(), torch.full((2, 5), 99)
def nan(): return InPlace(), torch.full((4, 64), float("nan"))
"""


@pytest.mark.clock
def test_a_model_that_writes_into_its_inputs_gets_fresh_ones_for_every_call(
    measure: Measure, tmp_path: Path
) -> None:
    file = write(tmp_path, "own.py", IN_PLACE)
    names = ("in_place", "copying", "by_numpy", "ids", "nan")
    cells = measure(models=[f"{file}:{name}" for name in names], batch=[64]).set_index("model")
    rows = {name: cells.loc[f"{file}:{name}"] for name in names}
    assert {name: row["status"] for name, row in rows.items()} == dict.fromkeys(names, "measured")
    for name in names:
        told = any("writes into its inputs" in one for one in rows[name]["warnings"])
        assert told == (name in ("in_place", "by_numpy", "ids")), name
    # Stale inputs skip the layer's twenty calls: an order of magnitude, not noise.
    for name in ("in_place", "by_numpy"):
        assert rows[name]["latency_s"] > 0.5 * rows["copying"]["latency_s"]


LAYOUTS = """
import torch
from torch import nn

class Reads(nn.Module):
    def __init__(self, strides):
        super().__init__()
        self.strides = strides
    def forward(self, x):
        assert x.stride()[1:] == self.strides[1:], x.stride()
        return x.square()

class Sums(nn.Module):
    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.randn(8, 3))
    def forward(self, x):
        assert x.layout == torch.sparse_coo
        return x @ self.weight

def sliced():
    x = torch.rand(1, 64, 2048)[:, :, ::16]
    return Reads(x.stride()), x
def dense():
    x = torch.rand(1, 64, 128)
    return Reads(x.stride()), x
def sparse(): return Sums(), torch.eye(4, 8).to_sparse()
def jagged(): return Sums(), torch.eye(4, 8).to_sparse_csr()
"""


def test_inputs_lie_in_memory_as_the_users_do_or_are_refused(
    measure: Measure, tmp_path: Path
) -> None:
    file = write(tmp_path, "layouts.py", LAYOUTS)
    names = ("sliced", "dense", "sparse", "jagged")
    cells = measure(models=[f"{file}:{name}" for name in names], batch=[4]).set_index("model")
    told = {name: cells.loc[f"{file}:{name}", "status"] for name in names}
    assert told == dict.fromkeys(names[:3], "measured") | {"jagged": "skipped"}
    assert "Give a dense one" in cells.loc[f"{file}:jagged", "message"]
    # A line of the cache for each number, where the dense input has one for sixteen.
    sliced, dense = (cells.loc[f"{file}:{name}", "latency_s"] for name in names[:2])
    assert sliced > 1.5 * dense


CHILD = """
import subprocess, sys
import torch
from torch import nn

class Child(nn.Module):
    def __init__(self, own_session):
        super().__init__()
        self.layer, self.own_session, self.started = nn.Linear(8, 8), own_session, False
    def forward(self, x):
        if not self.started:
            self.started = True
            code = "import subprocess, time; subprocess.Popen(['sleep', 'MARK']); time.sleep(MARK)"
            subprocess.Popen([sys.executable, "-c", code], start_new_session=self.own_session)
        return self.layer(x)

def grouped(): return Child(False), torch.randn(2, 8)
def in_a_session_of_its_own(): return Child(True), torch.randn(2, 8)
"""


@pytest.mark.parametrize("name", ["grouped", "in_a_session_of_its_own"])
def test_helpers_that_a_model_starts_end_with_its_worker(
    measure: Measure, tmp_path: Path, name: str
) -> None:
    mark = f"{61_000 + time.time_ns() % 1000}.5"
    file = write(tmp_path, "child.py", CHILD.replace("MARK", mark))
    assert only(measure(models=[f"{file}:{name}"]))["status"] == "measured"
    for _ in range(100):
        commands = [one.info["cmdline"] or [] for one in psutil.process_iter(["cmdline"])]
        left = [command for command in commands if any(mark in word for word in command)]
        if not left:
            return
        time.sleep(0.1)
    assert left == []


def test_a_file_that_starts_threads_when_it_is_imported_is_imported_in_each_worker(
    measure: Measure, tmp_path: Path
) -> None:
    text = "import threading, time\n"
    text += "threading.Thread(target=time.sleep, args=(600,), daemon=True).start()\n"
    text += PLAIN.replace("    return", "    assert threading.active_count() > 1\n    return")
    text += """
class Needs(nn.Module):
    def forward(self, x):
        assert threading.active_count() > 1
        return x
def needs():
    return Needs(), torch.randn(4, 64)
"""
    file = write(tmp_path, "threads.py", text)
    cells = measure(models=[f"{file}:net", f"{file}:needs"])
    assert list(cells["status"]) == ["measured"] * 2, list(cells["message"])


def test_a_file_reads_no_arguments_of_ours_and_what_is_random_in_it_is_the_same_everywhere(
    measure: Measure, tmp_path: Path
) -> None:
    text = (
        PLAIN
        + """
import argparse
parser = argparse.ArgumentParser()
parser.add_argument("--width", type=int, default=8)
ARGUMENTS = parser.parse_args()
NOISE = torch.randn(8)
class Noisy(nn.Module):
    def forward(self, x):
        return x + NOISE
def noisy():
    return Noisy(), torch.zeros(2, ARGUMENTS.width)
"""
    )
    file = write(tmp_path, "arguments.py", text)
    row = measure(models=[f"{file}:noisy"], batch=[1, 2], techniques=["bf16"])
    baseline = row[row["technique"] == "baseline"]
    assert list(baseline["status"]) == ["measured"] * 2, list(row["message"])
    assert (baseline["fidelity"] == 1).all()
