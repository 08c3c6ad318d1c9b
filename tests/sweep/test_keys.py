"""What training depends on has a part in the key, whoever brings it in; what it does not, has not.

Told by the trained weights: whether training was repeated, and under what.
"""

from __future__ import annotations

import itertools
import os
import py_compile
import random
import sys
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest

from harness.prepare.environment import Variables
from harness.sweep.imports import Imports
from harness.sweep.launcher import Launcher

pytestmark = pytest.mark.workers

NET = """
import os, sys
import torch
import torch.nn.functional as F
from bench import Recipe, Subject
from bench.data import load_dataset
from torch import nn

class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(64, 10)
    def forward(self, x):
        {forward}

def net():
    {function}
    examples = load_dataset("digits")
    return Subject(Net(), (examples.train.inputs[:4],), examples, Recipe(epochs=1))
"""


def write(folder: Path, name: str, text: str) -> str:
    """Write a file, unless it is so already: Python compiles anew what was touched."""
    path = folder / name
    if not path.exists() or path.read_text() != text:
        path.write_text(text)
    return str(path)


def write_net(
    folder: Path, forward: str, function: str = "pass", top: str = "", note: int = 0
) -> str:
    text = NET.replace("{forward}", forward).replace("{function}", function)
    return write(folder, "net.py", f"{text}\n{top}\n# {note}\n".replace("{folder}", str(folder)))


class Preparer:
    """Prepares the model of a file in a worker, as a run of its own does, and reads its weights."""

    def __init__(self, launcher: Launcher, folder: Path) -> None:
        self.launcher, self.folder = launcher, folder
        self.token = f"a test {folder}"

    def train(self, *plugins: str, files: tuple[str, ...] = ()) -> str:
        """Return the key of `net.py:net`."""
        file = str(self.folder / "net.py")
        imports = Imports((str(self.folder),), plugins, (file, *files))
        asked: dict[str, Any] = {"model": f"{file}:net", "recipes": [], "seed": 0,
                                 "token": self.token, "threads": 1}  # fmt: skip
        try:
            with self.launcher.worker(imports) as worker:
                variant = str(worker.call("prepare_base", 60, **asked)["variant"])
            with self.launcher.worker(imports) as worker:
                assert worker.call("find_key", 60, steps=[], **asked) == variant
        finally:
            self.launcher.close_templates()
        return variant


@pytest.fixture
def prepare(launcher: Launcher, tmp_path: Path) -> Preparer:
    return Preparer(launcher, tmp_path)


EFFECTS = {
    "a patched function": "import torch.nn.functional as F\n"
    "F.relu = lambda x, inplace=False: x.clamp(0, 1)\n",
    "a patch that a neighbour makes": "import patches\n",
    "a setting": "import torch\ntorch.set_flush_denormal(True)\n",
    "an engine": "import torch\ntorch.backends.quantized.engine = 'onednn'\n",
    "what is done if something holds": "import torch.nn.functional as F\nif True:\n"
    "    F.relu = lambda x, inplace=False: x.clamp(0, 1)\n",
}


@pytest.mark.parametrize("kind", ["plugin", "file"])
@pytest.mark.parametrize("name", EFFECTS)
def test_what_another_file_patches_or_sets_at_its_top_trains_another_variant(
    prepare: Preparer, tmp_path: Path, name: str, kind: str
) -> None:
    write_net(tmp_path, "return F.relu(self.layer(x.flatten(1)))")
    write(tmp_path, "patches.py", EFFECTS["a patched function"])
    other = write(tmp_path, "other.py", EFFECTS[name])
    given = {"files": (other,)} if kind == "file" else {}
    plugins = (other,) if kind == "plugin" else ()
    plain = prepare.train()
    patched = prepare.train(*plugins, **given)
    assert plain != patched
    assert prepare.train() == plain
    assert prepare.train(*plugins, **given) == patched
    if name != "a patch that a neighbour makes":
        return
    write(tmp_path, "patches.py", EFFECTS["a patched function"].replace("0, 1", "0, 2"))
    assert prepare.train(*plugins, **given) not in (plain, patched)


DEFINES = '''
"""A technique of the user's."""
from __future__ import annotations

import copy
import dataclasses
from typing import TYPE_CHECKING

import torch
from torch import nn
from bench.registry import technique

if TYPE_CHECKING:
    from bench import Subject

SHARE = 0.5
NAMES: tuple[str, ...] = ("a", "b")
LIMITS = {"low": -1, "high": SHARE * 2}

@dataclasses.dataclass(frozen=True)
class Half:
    """What it makes."""
    share: float = 0.5
    @property
    def rest(self) -> float:
        return 1 - self.share

@technique("test-halve", needs=("training data",))
def halve(subject: Subject, share: float = SHARE) -> Subject:
    return dataclasses.replace(subject, module=copy.deepcopy(subject.module))

@torch.no_grad()
def helper(x=None):
    torch.nn.functional.relu = x  # when it is called

if __name__ == "__main__":
    print(helper())
'''


@pytest.mark.parametrize("kind", ["plugin", "file"])
def test_a_file_that_only_defines_what_may_be_called_costs_no_training(
    prepare: Preparer, tmp_path: Path, kind: str
) -> None:
    """Somebody who writes a technique edits its file all day."""
    write_net(tmp_path, "return F.relu(self.layer(x.flatten(1)))")
    plain = prepare.train()
    for number in range(2):
        other = write(tmp_path, "other.py", DEFINES.replace("0.5", f"0.{number + 3}"))
        if kind == "plugin":
            assert prepare.train(other) == plain
        else:
            assert prepare.train(files=(other,)) == plain


SCALED = "return self.layer(x.flatten(1))"
READ = "open('{folder}/scale.txt').read()"
HELD: dict[str, dict[str, str]] = {
    "a neighbour that forward imports": {"forward": f"import later; {SCALED} * later.scale()"},
    "one that it imports by its name": {
        "forward": f"from importlib import import_module; {SCALED} * import_module('later').scale()"
    },
    "one of a package": {"forward": f"from inner.later import scale; {SCALED} * scale()"},
    "one that the function imports": {
        "forward": f"from later import READ; {SCALED} * READ",
        "function": "import later",
    },
    "a variable that the function sets": {
        "forward": f"{SCALED} * float(os.environ['TEST_SCALE'])",
        "function": f"os.environ['TEST_SCALE'] = {READ}",
    },
    "a variable that the file sets": {
        "forward": f"{SCALED} * float(os.environ['TEST_SCALE'])",
        "top": f"os.environ['TEST_SCALE'] = {READ}",
    },
}
LATER = """
from pathlib import Path

READ = float(Path({scale!r}).read_text())
def scale():
    return {value}
"""


@pytest.mark.parametrize("name", HELD)
def test_training_is_repeated_if_anything_that_it_needs_is_as_it_never_was(
    prepare: Preparer, tmp_path: Path, name: str
) -> None:
    """After any edits in any order: a key for each state of the files, and none for two."""
    states = [*itertools.product((1, 30), repeat=3)]
    random.Random(name).shuffle(states)
    (tmp_path / "inner").mkdir()
    keys: dict[tuple[int, ...], str] = {}
    for note, value, scale in [*states, *states[:3]]:
        write_net(tmp_path, **HELD[name], note=note)
        write(tmp_path, "scale.txt", str(scale))
        for folder in (tmp_path, tmp_path / "inner"):
            later = LATER.format(scale=str(tmp_path / "scale.txt"), value=value)
            py_compile.compile(
                write(folder, "later.py", later)
            )  # as Python does, which then opens only that
        key = prepare.train()
        state = (note, scale) if "variable" in name else (note, value, scale)  # what is read
        assert keys.setdefault(state, key) == key, state
    assert len(set(keys.values())) == len(keys)


def test_a_variable_that_an_installed_package_sets_when_it_is_imported_is_nobodys(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is set in the first import of a process only, which may have been before."""
    for folder, name in (("site-packages", "test_installed"), ("own", "test_users_own")):
        (tmp_path / folder).mkdir()
        write(tmp_path / folder, f"{name}.py", f"import os; os.environ['{name}'] = '1'")
        monkeypatch.syspath_prepend(str(tmp_path / folder))
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("TEST_KEPT", "1")
    monkeypatch.setenv("TEST_GONE", "1")
    finders = list(sys.meta_path)
    with Variables() as variables:
        import_module("test_installed")
        import_module("test_users_own")
        del os.environ["TEST_GONE"]
        os.environ["TEST_KEPT"] = "1"
    assert variables.compare() == {"TEST_GONE": None, "test_users_own": "1"}
    assert sys.meta_path == finders
    for name in ("test_installed", "test_users_own"):
        del sys.modules[name], os.environ[name]
