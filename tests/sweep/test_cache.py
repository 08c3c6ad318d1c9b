"""The cache holds whole variants or none, on a full disk and after a kill, and knows their use."""

from __future__ import annotations

import ast
import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from bench import techniques
from bench.cache import cache_folder
from bench.data import Dataset, Split
from harness.prepare.evict import SPARED_S
from harness.prepare.kept import (
    is_kept,
    load_dataset,
    read_facts,
    store_dataset,
    variant_folder,
)
from harness.prepare.make import LIBRARIES
from harness.prepare.sources import find_version
from harness.sweep.imports import Imports
from harness.sweep.launcher import Launcher

pytestmark = pytest.mark.workers

FULL_DISK = """
import resource, signal, sys
import torch
from pathlib import Path
from torch import nn
import paretogrid
paretogrid.claim_names()
from bench.subject import Subject
from harness.prepare.save import save_prepared

class Odd(nn.Linear):
    def __reduce__(self):
        raise TypeError("not to be serialized")

signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (200_000, 200_000))
kind = {"plain": nn.Linear, "odd": Odd}[sys.argv[2]]
subject = Subject(kind(1000, 1000), (torch.zeros(2, 1000),))
try:
    print("kept", save_prepared(subject, Path(sys.argv[1]), ""))
except OSError as error:
    print("full", error.errno)
"""


def prepare(launcher: Launcher, model: str = "digits-mlp(width=4)") -> str:
    with launcher.worker() as worker:
        facts = worker.call(
            "prepare_base", 60, model=model, recipes=[], seed=0, token="a test", threads=1
        )
    return str(facts["variant"])


@pytest.mark.parametrize("kind", ["plain", "odd"])
def test_a_disk_that_is_full_is_not_a_model_that_cannot_be_serialized(
    tmp_path: Path, kind: str
) -> None:
    command = [sys.executable, "-c", FULL_DISK, str(tmp_path), kind]
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=120)
    assert done.stdout.startswith("full"), done.stdout + done.stderr


@pytest.mark.parametrize("recipes", [[], ["l2(0.001)"]])
@pytest.mark.parametrize("steps", [[], ["prune-magnitude(0.5)", "bf16"]])
def test_a_key_is_found_without_making_the_variant(
    launcher: Launcher, recipes: list[str], steps: list[str]
) -> None:
    known = {"seed": 0, "token": "a test", "threads": 1}
    width = 30 + len(recipes) + 2 * len(steps)  # another model in each test
    model = {"model": f"digits-mlp(width={width})", "recipes": recipes, **known}
    with launcher.worker() as worker:
        key = worker.call("find_key", 60, steps=steps, **model)
        assert not variant_folder(key).exists()
        facts = worker.call("prepare_base", 120, **model)
        for step in steps:
            facts = worker.call("prepare_step", 60, base=facts["variant"], step=step, **known)
        assert facts["variant"] == key


STUDENT = """
from bench import Recipe, Subject, model
from bench.data import load_dataset
from torch import nn

@model("tiny-student")
def tiny(width=%d):
    examples = load_dataset("digits")
    layers = nn.Sequential(nn.Flatten(), nn.Linear(64, width), nn.ReLU(), nn.Linear(width, 10))
    return Subject(layers, (examples.train.inputs[:4],), examples, Recipe(epochs=1))
"""


@pytest.mark.parametrize("token", ["one run", "another run"])
def test_a_student_that_a_plugin_brings_is_no_other_when_the_plugin_has_changed(
    tmp_path: Path, token: str
) -> None:
    plugin, found = tmp_path / "plugin.py", []
    for width in (4, 5):
        plugin.write_text(STUDENT % width)
        with Launcher() as launcher, launcher.worker(Imports(plugins=(str(plugin),))) as worker:
            known = {"seed": 0, "token": token, "threads": 1}
            base = worker.call("prepare_base", 60, model="digits-mlp(width=7)", recipes=[], **known)
            made = worker.call("prepare_step", 60, base=base["variant"],
                               step="distill('tiny-student')", **known)  # fmt: skip
            counted = worker.call("count", 60, variant=made["variant"], runtime="eager")
            found.append(counted["metrics"]["params"])
    assert found == [64 * width + width + width * 10 + 10 for width in (4, 5)]


def test_libraries_that_techniques_are_made_with_are_in_their_keys() -> None:
    """Whatever they import beside PyTorch, and what is in its base's key, is a part of a key."""
    imported: set[str] = set()
    for file in Path(techniques.__file__).parent.glob("*.py"):
        for node in ast.walk(ast.parse(file.read_text())):
            if isinstance(node, ast.ImportFrom) and not node.level:
                imported.add(str(node.module).partition(".")[0])
            elif isinstance(node, ast.Import):
                imported |= {name.name.partition(".")[0] for name in node.names}
    others = imported - sys.stdlib_module_names - {"bench", "torch"}
    assert {name.replace("_", "-") for name in others} == set(LIBRARIES)
    assert all(map(find_version, LIBRARIES))


def test_a_variant_that_somebody_began_to_delete_is_prepared_again(launcher: Launcher) -> None:
    variant = prepare(launcher, "digits-mlp(width=5)")
    (variant_folder(variant) / "facts.json").unlink()
    assert prepare(launcher, "digits-mlp(width=5)") == variant
    assert read_facts(variant)["trained"]


def test_a_variant_whose_data_set_is_gone_is_prepared_again(launcher: Launcher) -> None:
    """One that a technique made: the model's is there again whenever that is built."""
    known = {"seed": 0, "token": "a test", "threads": 1}

    def prepare_both() -> str:
        with launcher.worker() as worker:
            base = worker.call("prepare_base", 60, model="digits-mlp(width=6)", recipes=[], **known)
            step = worker.call(
                "prepare_step", 60, base=base["variant"], step="prune-inputs(0.5)", **known
            )
        assert read_facts(base["variant"])["data"] != read_facts(step["variant"])["data"]
        return str(step["variant"])

    variant = prepare_both()
    data = cache_folder() / "datasets" / f"{read_facts(variant)['data']}.pt"
    data.unlink()
    assert not is_kept(variant)
    assert prepare_both() == variant
    assert is_kept(variant)
    with launcher.worker() as worker:
        worker.call("load", 60, variant=variant, device="cpu", runtime="eager", threads=1, batch=8,
                    pin=False, wait_policy="active", flush_cache=False, cold=False)  # fmt: skip
        assert len(worker.call("answers", 60, variant=variant, batch=8)["labels"]) > 0


@settings(max_examples=20)
@given(
    begin=st.integers(0, 900), size=st.integers(1, 50), step=st.sampled_from([1, 2]),
    columns=st.booleans(),
)  # fmt: skip
def test_a_data_set_takes_no_more_room_than_its_examples(
    begin: int, size: int, step: int, columns: bool
) -> None:
    whole = torch.arange(1000 * 2000.0).reshape(1000, 2000)
    inputs = whole[begin : begin + size * step : step]
    inputs = inputs[:, ::4] if columns else inputs
    split = Split(inputs, torch.zeros(len(inputs)))
    key = store_dataset(Dataset("rows", split, split, split, classes=0))
    file = cache_folder() / "datasets" / f"{key}.pt"
    assert file.stat().st_size < 3 * inputs.numel() * inputs.element_size() + 20_000
    assert torch.equal(load_dataset(key).test.inputs, inputs)


def test_what_was_counted_is_known_to_later_runs_for_the_same_batches(launcher: Launcher) -> None:
    variant = prepare(launcher, "digits-mlp(width=9)")

    def count(*batches: int) -> dict[str, Any]:
        with launcher.worker() as worker:
            found: dict[str, Any] = worker.call(
                "count", 60, variant=variant, runtime="eager", batches=batches
            )
        return found

    first = count(8, 1)
    (file,) = variant_folder(variant).glob("counts-*.json")
    assert count(1, 8) == first
    told = json.loads(file.read_text())
    told["metrics"]["params"] = 7.0
    file.write_text(json.dumps(told))
    assert count(8, 1)["metrics"]["params"] == 7, "it is not counted again"
    assert count(64)["metrics"] == first["metrics"], "in another batch it is"
    for broken in ("", "{}", '{"work": {}}', "[1]"):
        file.write_text(broken)
        assert count(8, 1) == first


def test_a_variant_that_is_loaded_is_used(launcher: Launcher) -> None:
    """A run of days loads what it has prepared at its start: another's trimming must spare it."""
    variant = prepare(launcher)
    facts = variant_folder(variant) / "facts.json"
    long_ago = time.time() - 2 * SPARED_S
    os.utime(facts, (long_ago, long_ago))
    with launcher.worker() as worker:
        worker.call("inspect", 60, variant=variant)
    assert facts.stat().st_mtime > time.time() - SPARED_S
