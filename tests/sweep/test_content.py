"""The digest by which what was prepared is known again: alike is alike, anything else is not."""

from __future__ import annotations

import enum
import random
import re
import subprocess
import sys
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import t as student_t
from torch import Tensor, nn

from harness.prepare.content import digest_content
from harness.prepare.sources import digest_sources


class Scaled(nn.Module):
    def __init__(self, scale: float, names: list[str], weights: int) -> None:
        super().__init__()
        torch.manual_seed(weights)
        self.layer, self.scale, self.names = nn.Linear(64, 64), scale, names

    def forward(self, x: Tensor) -> Tensor:
        return self.layer(x) * self.scale * len(self.names)


def script(scale: float, names: list[str], weights: int, frozen: bool) -> Any:
    module = torch.jit.script(Scaled(scale, names, weights).eval())
    return torch.jit.freeze(module) if frozen else module


scripts = st.tuples(st.floats(0, 9), st.lists(st.text("ab"), min_size=1, max_size=3),
                    st.integers(0, 9))  # fmt: skip


@given(one=scripts, other=scripts, frozen=st.booleans())
def test_scripts_have_one_digest_if_all_that_they_hold_is_alike(
    one: tuple[float, list[str], int], other: tuple[float, list[str], int], frozen: bool
) -> None:
    """Attributes that are no tensors, and constants that a printed graph leaves out, too."""
    digests = [digest_content(script(*held, frozen)) for held in (one, other)]
    if frozen:  # what is left of the names is how many there are
        one, other = ((*held[:1], len(held[1]), held[2]) for held in (one, other))  # type: ignore[assignment]
    assert (digests[0] == digests[1]) == (one == other)


def test_functions_that_are_traced_differ_by_the_numbers_that_they_enclose() -> None:
    def digest(last: float) -> str:
        numbers = torch.arange(100.0)
        numbers[-1] = last
        return digest_content(torch.jit.trace(lambda x: x + numbers, torch.ones(100)))

    assert digest(1.0) == digest(1.0) != digest(2.0)


IN_ANOTHER_PROCESS = """
import sys
import torch
import paretogrid
paretogrid.claim_names()
from harness.prepare.content import digest_content
from torch import nn
for _ in range(int(sys.argv[1])):
    torch.jit.trace(nn.Sequential(nn.Linear(8, 8), nn.ReLU()), torch.ones(2, 8))
torch.manual_seed(0)
layers = nn.Sequential(nn.Linear(8, 8), nn.Sequential(nn.Linear(8, 8), nn.Tanh()))
print(digest_content(torch.jit.trace(layers, torch.ones(2, 8))))
print(digest_content(torch.jit.freeze(torch.jit.script(layers.eval()))))
"""


def test_a_script_has_the_same_digest_in_every_process_whatever_was_scripted_before() -> None:
    told = [
        subprocess.run([sys.executable, "-c", IN_ANOTHER_PROCESS, times], capture_output=True,
                       text=True, check=True).stdout
        for times in ("0", "5", "50")
    ]  # fmt: skip
    assert len(told[0].split()) == 2
    assert told[0] == told[1] == told[2]


class Number(float):
    unit: str


class Items(list[int]):
    unit: str


def with_unit(one: Any, unit: str) -> Any:
    one.unit = unit
    return one


def many(middle: str) -> np.ndarray:
    """So many numbers that those in the middle are not written out."""
    numbers = np.zeros(2001, dtype=np.int64)
    numbers[1000] = ord(middle)
    return numbers


PAIRS: dict[str, Callable[[str], Any]] = {
    "a pattern": lambda end: re.compile("x" * 300 + end),
    "a record of many numbers": lambda end: np.array(
        [(many(end),)], dtype=[("numbers", np.int64, 2001)]
    )[0],
    "a slice": lambda end: slice(torch.from_numpy(many(end))),
    "a member of an enumeration": lambda end: enum.Enum("Kind", {"one": many(end)})["one"],
    "a number with an attribute": lambda end: with_unit(Number(1.0), end),
    "a list with an attribute": lambda end: with_unit(Items(), end),
    "a tensor": lambda end: torch.from_numpy(many(end)),
}


@pytest.mark.parametrize("name", PAIRS)
def test_what_differs_only_in_what_is_not_written_out_differs(name: str) -> None:
    make = PAIRS[name]
    assert digest_content([make("a")]) == digest_content([make("a")])
    assert digest_content([make("a")]) != digest_content([make("b")])


def test_another_version_of_a_library_that_tells_none_itself_is_another(
    tmp_path: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of `some_layers`, which is installed as "layers-of-somebody"."""
    place = tmp_path / "site-packages"
    place.mkdir()
    (place / "some_layers.py").write_text("")
    code = (
        "import sys\nimport paretogrid\nparetogrid.claim_names()\n"
        "from harness.prepare.sources import digest_sources\n"
        f"sys.path.append({str(place)!r})\nimport some_layers\n"
        "print(digest_sources(['some_layers']))"
    )

    def digest(version: str) -> str:
        for folder in place.glob("*.dist-info"):
            (folder / "METADATA").unlink()
            (folder / "top_level.txt").unlink()
            folder.rmdir()
        folder = place / f"layers_of_somebody-{version}.dist-info"
        folder.mkdir()
        (folder / "METADATA").write_text(f"Name: layers-of-somebody\nVersion: {version}\n")
        (folder / "top_level.txt").write_text("some_layers\n")
        return subprocess.run(
            [sys.executable, "-c", code], capture_output=True, text=True, check=True
        ).stdout

    assert digest("1.0") == digest("1.0") != digest("2.0")
    assert digest_sources(["torch"]) == digest_sources(["torch"])


@pytest.mark.parametrize(
    "make", [lambda: random._inst, lambda: np.random.mtrand._rand, lambda: torch.default_generator,
             lambda: student_t, lambda: [student_t, random.choice]],
)  # fmt: skip
def test_the_state_of_generators_that_all_share_is_no_content(make: Callable[[], Any]) -> None:
    """A distribution of SciPy's holds NumPy's: a file with one would change in each call."""
    before = digest_content(make())
    for draw in (random.random, np.random.random, lambda: torch.rand(1)):
        draw()
    assert digest_content(make()) == before
    own = np.random.RandomState(0)
    first = digest_content(own)
    own.random()
    assert digest_content(own) != first, "one of the user's own is"
