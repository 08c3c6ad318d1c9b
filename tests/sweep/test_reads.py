"""Which files are read while something is made, and whether they hold the same now."""

from __future__ import annotations

import os
import sqlite3
import subprocess
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest
import torch

from bench.cache import cache_folder
from harness.prepare.reads import Reads, has_changed, watch_reads

READERS: dict[str, Callable[[Path], object]] = {
    "text": lambda path: path.read_text(errors="ignore"),
    "bytes": lambda path: path.open("rb").close(),
    "NumPy": np.load,
    "PyTorch": lambda path: torch.load(path, weights_only=False),
    "a data base": lambda path: sqlite3.connect(path).close(),
    "a data base by address": lambda path: sqlite3.connect(
        f"file:{path}?mode=ro", uri=True
    ).close(),
    "for both": lambda path: path.open("r+b").close(),
    "a file descriptor": lambda path: os.close(os.open(path, os.O_RDONLY)),
}


def write(path: Path, number: int) -> None:
    """Write what the reader of that name can read."""
    path.unlink(missing_ok=True)
    if path.name == "NumPy":
        with path.open("wb") as file:
            np.save(file, np.full(3, number))
    elif path.name == "PyTorch":
        torch.save(torch.full((3,), number), path)
    elif path.name.startswith("a data base"):
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
    assert list(reads.files) == [str(path)]
    assert reads.tell() == ""
    assert not has_changed(reads.files)
    write(path, 2)
    assert has_changed(reads.files)
    path.unlink()
    assert has_changed(reads.files)


def test_a_file_that_was_not_there_yet_is_seen_when_it_is(tmp_path: Path) -> None:
    with watch_reads() as reads, suppress(OSError):
        (tmp_path / "scale").read_text()
    assert reads.files == {str(tmp_path / "scale"): ""}
    assert not has_changed(reads.files)
    (tmp_path / "scale").write_text("2")
    assert has_changed(reads.files)


MEMORIES = ("text", "text first", "both", "descriptor", "data base", "renamed", "in C", "removed",
            "by another process")  # fmt: skip


@pytest.mark.parametrize("way", MEMORIES)
def test_a_memory_of_the_models_own_is_no_input_and_is_told(way: str, tmp_path: Path) -> None:
    path = tmp_path / "memory"
    if way != "text first":
        path.touch()
    with watch_reads() as reads:
        with suppress(OSError):
            path.read_text()
        if way == "data base":
            with sqlite3.connect(path) as base:
                base.execute("CREATE TABLE t (a)")
        elif way == "descriptor":
            file = os.open(path, os.O_WRONLY | os.O_APPEND)
            os.write(file, b"1")
            os.close(file)
        elif way == "renamed":
            path.with_name("new").write_text("1")
            path.with_name("new").replace(path)
        elif way == "both":
            with path.open("r+") as file:
                file.write("1")
        elif way == "in C":
            torch.save(torch.ones(3), path)
            torch.load(path)
        elif way == "removed":
            path.unlink()
        elif way == "by another process":
            subprocess.run(["cp", "/etc/passwd", "memory"], cwd=tmp_path, check=True)
        else:
            path.write_text("1")
    assert reads.files == {}
    assert reads.changed == [str(path)]
    assert str(path) in reads.tell()


def test_a_memory_that_only_its_own_forward_writes_is_told_once(tmp_path: Path) -> None:
    with watch_reads() as reads:
        (tmp_path / "log").write_text("1")
        with (tmp_path / "log").open("a") as file:
            file.write("2")
    assert reads.files == {}
    assert reads.tell() == ""


@pytest.mark.parametrize("path", ["/dev/null", "pipe", "."])
def test_what_is_no_file_is_left_alone(path: str, tmp_path: Path) -> None:
    """To read a pipe would wait for ever."""
    os.mkfifo(tmp_path / "pipe")
    with watch_reads() as reads:
        os.close(os.open(tmp_path / path, os.O_RDONLY | os.O_NONBLOCK))
    assert reads == Reads()


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
    assert outer.files == {}
    kept.read_text()
    assert outer.files == {}, "nobody watches any more"
