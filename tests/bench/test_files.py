"""Users' files are found by the paths that they are written as."""

import sys
from pathlib import Path

import pytest

from bench import SpecError, registry
from bench.files import exists, find_path, load_file
from harness.paths import read_path


@pytest.mark.parametrize(
    ("text", "found"),
    [("~/net.py", "HOME/net.py"), ("./~/net.py", "~/net.py"), ("./~tilde/net.py", "~tilde/net.py"),
     ("a/~b", "a/~b"), ("net.py", "net.py")],
)  # fmt: skip
def test_a_tilde_is_the_home_folder_at_the_beginning_only(
    text: str, found: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", "/home/of-one")
    wanted = Path(found.replace("HOME", "/home/of-one"))
    assert find_path(text) == wanted
    read = read_path(text)
    assert read.absolute() == wanted.absolute()
    assert read_path(str(read)) == read, "whoever reads it again reads the same"


def test_a_folder_that_is_nobodys_home_is_left_as_it_is_written() -> None:
    assert find_path("~nobody-of-this-name/net.py") == Path("~nobody-of-this-name/net.py")


@pytest.mark.parametrize("moves", ["os.chdir('inner')", "import inner_mover"])
def test_a_file_that_changes_the_working_folder_leaves_paths_as_they_were_meant(
    moves: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "inner" / "further").mkdir(parents=True)
    (tmp_path / "inner_mover.py").write_text("import os\nos.chdir('inner')\n")
    (tmp_path / "mover.py").write_text(f"import os\n{moves}\n")
    (tmp_path / "again.py").write_text("import os\nos.chdir('further')\n")
    (tmp_path / "third.py").write_text("VALUE = 3\n")
    load_file("mover.py")
    assert Path.cwd() == tmp_path / "inner", "what it reads by a relative path is there"
    load_file("again.py")
    assert Path.cwd() == tmp_path / "inner" / "further"
    assert load_file("third.py").VALUE == 3
    (tmp_path / "data").mkdir()
    assert find_path("data") == tmp_path / "data"
    (tmp_path / "inner" / "further" / "data").mkdir()
    assert find_path("data").absolute() == tmp_path / "inner" / "further" / "data", (
        "as open() has it"
    )
    sys.modules.pop("inner_mover", None)


def test_a_path_that_no_file_system_takes_is_no_file() -> None:
    assert not exists(Path("x" * 5_000))
    with pytest.raises(SpecError):
        registry.find("dataset", "folder:" + "x" * 5_000 + "(")
