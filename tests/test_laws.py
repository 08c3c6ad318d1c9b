"""The import laws of the design, each shown to catch a planted violation."""

import ast
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent


def imported_names(file: Path) -> Iterator[str]:
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def violations(root: Path, folders: tuple[str, ...], forbidden: tuple[str, ...]) -> list[str]:
    """Return "file: import" for each import of something forbidden, at any depth of a function."""
    return [
        f"{file.relative_to(root)}: {name}"
        for folder in folders
        for file in sorted((root / folder).rglob("*.py"))
        for name in imported_names(file)
        if any(name == ban or name.startswith(f"{ban}.") for ban in forbidden)
    ]


def torch_is_loaded_by(root: Path, modules: str) -> bool:
    code = f"import sys; sys.path.insert(0, {str(root)!r}); import {modules}; "
    code += "import harness; assert harness.__file__.startswith(sys.path[0]); "
    code += "print('torch' in sys.modules)"
    answer = subprocess.run(
        [sys.executable, "-P", "-c", code], capture_output=True, text=True, check=True
    )
    return answer.stdout.strip() == "True"


LAWS = {
    "bench never imports harness": (("bench",), ("harness",)),
    "decide and report import no torch, sweep or measure": (
        ("harness/decide", "harness/report"),
        ("torch", "harness.sweep", "harness.measure"),
    ),
}
FLOORS = ("measure", "prepare", "worker", "sweep", "decide", "published", "report", "console",
          "commands")  # fmt: skip
"""Folders of `harness`, the lowest first: each may import only what is below it."""
LAWS |= {
    f"{floor} imports no floor above it": (
        (f"harness/{floor}",),
        tuple(f"harness.{above}" for above in FLOORS[number + 1 :]),
    )
    for number, floor in enumerate(FLOORS)
}
PARENT = "harness.cli, harness.sweep.runner, harness.report.write"


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    for package in ("bench", "harness"):
        shutil.copytree(
            ROOT / package, tmp_path / package, ignore=shutil.ignore_patterns("__pycache__")
        )
    return tmp_path


@pytest.mark.parametrize("law", LAWS)
def test_the_import_laws_hold(law: str) -> None:
    folders, forbidden = LAWS[law]
    assert violations(ROOT, folders, forbidden) == []


@pytest.mark.parametrize(
    ("law", "file", "planted"),
    [
        ("bench never imports harness", "bench/training.py", "import harness.stats"),
        ("bench never imports harness", "bench/models/mlp.py", "from harness import stats"),
        (
            "decide and report import no torch, sweep or measure",
            "harness/report/text.py",
            "def late():\n    import torch",
        ),
        (
            "prepare imports no floor above it",
            "harness/prepare/kept.py",
            "from harness.sweep.plan import Plan",
        ),
        (
            "decide and report import no torch, sweep or measure",
            "harness/decide/frame.py",
            "from harness.measure import machine",
        ),
    ],
)
def test_a_planted_import_is_caught(copy: Path, law: str, file: str, planted: str) -> None:
    with (copy / file).open("a") as source:
        source.write(f"\n{planted}\n")
    found = violations(copy, *LAWS[law])
    assert len(found) == 1
    assert found[0].startswith(file)


def test_every_folder_has_a_floor() -> None:
    folders = {path.parent.name for path in (ROOT / "harness").glob("*/__init__.py")}
    assert folders == set(FLOORS)


def test_the_parent_process_never_imports_torch() -> None:
    assert not torch_is_loaded_by(ROOT, PARENT)


def test_a_planted_import_of_torch_in_the_parent_is_caught(copy: Path) -> None:
    with (copy / "harness/grid.py").open("a") as source:
        source.write("\nimport torch\n")
    assert torch_is_loaded_by(copy, PARENT)
