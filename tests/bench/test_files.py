"""Users' files are found by the paths that they are written as."""

from pathlib import Path

import pytest

from bench.files import find_path
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
    assert find_path(text) == read_path(text) == wanted


def test_a_folder_that_is_nobodys_home_is_left_as_it_is_written() -> None:
    assert find_path("~nobody-of-this-name/net.py") == Path("~nobody-of-this-name/net.py")
