"""Which files are read while something is made, and whether they hold the same now."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from bench.cache import cache_folder
from harness.prepare.reads import has_changed, watch_reads

READERS: dict[str, Callable[[Path], object]] = {
    "text": lambda path: path.read_text(errors="ignore"),
    "bytes": lambda path: path.open("rb").close(),
    "NumPy": np.load,
    "PyTorch": lambda path: torch.load(path, weights_only=False),
    "a data base": lambda path: sqlite3.connect(path).close(),
}


def write(path: Path, number: int) -> None:
    """Write what the reader of that name can read."""
    path.unlink(missing_ok=True)
    if path.name == "NumPy":
        with path.open("wb") as file:
            np.save(file, np.full(3, number))
    elif path.name == "PyTorch":
        torch.save(torch.full((3,), number), path)
    elif path.name == "a data base":
        with sqlite3.connect(path) as base:
            base.execute(f"CREATE TABLE t{number} (a)")
    else:
        path.write_text(str(number))


@pytest.mark.parametrize("name", READERS)
def test_a_file_that_was_read_and_has_changed_is_seen(name: str, tmp_path: Path) -> None:
    path = tmp_path / name
    write(path, 1)
    with watch_reads() as reads:
        READERS[name](path)
    assert list(reads) == [str(path)]
    assert not has_changed(reads)
    write(path, 2)
    assert has_changed(reads)
    path.unlink()
    assert has_changed(reads)


def test_what_is_written_installed_or_in_the_cache_is_nobodys_input(tmp_path: Path) -> None:
    kept = cache_folder() / "kept"
    kept.parent.mkdir(parents=True, exist_ok=True)
    kept.write_text("1")
    with watch_reads() as outer:
        (tmp_path / "log").open("a").close()
        kept.read_text()
        Path(torch.__file__).read_text()
        Path("/proc/self/stat").read_text()
        (tmp_path / "gone").write_text("1")
        (tmp_path / "gone").read_text()
        (tmp_path / "gone").unlink()
    assert outer == {}
    kept.read_text()
    assert outer == {}, "nobody watches any more"
