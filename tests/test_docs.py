"""What the documentation shows is what the code does."""

import re
import subprocess
import sys
import tomllib
from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pytest

from harness.grid_file import parse_grid, read_grid
from harness.record import IDENTITY, METRICS, schema
from harness.report.relations import write_relations

pytestmark = pytest.mark.workers

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")


def block(language: str, containing: str) -> str:
    """Return the README's code block that contains a text."""
    blocks = re.findall(rf"```{language}\n(.*?)```", README, re.DOTALL)
    (found,) = [text for text in blocks if containing in text]
    return found


def test_every_column_is_documented() -> None:
    named = set(re.findall(r"`(\w+)`", (ROOT / "docs/columns.md").read_text(encoding="utf-8")))
    wanted = {name for name in schema().names if not name.endswith(("_low", "_high"))}
    assert wanted - named == set()
    assert len(IDENTITY) + len(METRICS) > 30


def test_the_page_of_techniques_is_what_the_registry_says() -> None:
    command = [sys.executable, "-P", "-m", "bench.technique_table"]
    page = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    kept = (ROOT / "docs/techniques.md").read_text(encoding="utf-8")
    assert page == kept, "run `python -m bench.technique_table > docs/techniques.md`"
    for heading in re.findall(r"^## (.+)$", page, re.MULTILINE):
        assert f"(#{heading})" in page


def test_the_page_of_relations_is_what_its_runs_say() -> None:
    told = (ROOT / "docs/evidence.md").read_text(encoding="utf-8")
    runs = re.findall(r"results/(?:techniques|recipes)-\d+-\d+", told)
    cells = [pd.read_parquet(ROOT / run / "cells.parquet") for run in dict.fromkeys(runs)]
    kept = (ROOT / "docs/relations.md").read_text(encoding="utf-8")
    assert write_relations(*cells) == kept, "make docs/relations.md anew as it says"


@pytest.mark.parametrize("page", ["architecture", "CONTRIBUTING"])
def test_every_path_in_the_page_is_there_and_every_package_is_in_it(page: str) -> None:
    text = (ROOT / f"docs/{page}.md").read_text(encoding="utf-8")
    paths = re.findall(r"`((?:bench|harness|tests|docs)/[\w./-]*|[\w.]+\.md)`", text)
    paths += [f"docs/{name}" for name in re.findall(r"\]\(([\w.]+)\)", text)]
    assert [path for path in paths if not (ROOT / path).exists()] == []
    if page == "architecture":
        for folder in (ROOT / "harness").iterdir():
            if (folder / "__init__.py").is_file():
                assert f"harness/{folder.name}/" in text, folder.name
        for name in re.findall(r"`([A-Z]+)` in `(\S+)`", text):
            assert f"\n{name[0]}: " in (ROOT / name[1]).read_text(encoding="utf-8")


def test_the_readmes_grid_is_a_grid() -> None:
    parse_grid(tomllib.loads(block("toml", "[grid]")), "README.md")


def test_the_readme_counts_the_demos_cells() -> None:
    (told,) = re.findall(r"(\d+) cells, under 4 minutes", README)
    assert int(told) == len(read_grid("demo").expand())


def test_the_readmes_mistake_is_answered_as_it_says(
    tmp_path: Path, command: Callable[..., subprocess.CompletedProcess[str]]
) -> None:
    (tmp_path / "mine.toml").write_text(
        '[grid]\nmodels = ["digits-mlp"]\ntechniques = ["baseline", "int8-dynamc"]\n'
    )
    done = command("run", "mine.toml")
    assert done.returncode == 2
    assert done.stderr.strip() in block("console", "mine.toml\npareto")


def test_the_readmes_model_and_plugin_run_as_written(
    tmp_path: Path, command: Callable[..., subprocess.CompletedProcess[str]]
) -> None:
    (tmp_path / "my.py").write_text(block("python", "# my.py"))
    (tmp_path / "data.py").write_text(block("python", 'data="digits"'))
    (tmp_path / "my_plugin.py").write_text(block("python", "# my_plugin.py"))
    done = command(
        "run", "--plugin", "my_plugin.py", "--model", "my.py:net", "--model", "data.py:net",
        "--technique", "ternary(0.5)", "--technique", "int8-dynamic",
        "--max-seconds-per-cell", "0.2",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "6 cells: 6 measured" in done.stdout
