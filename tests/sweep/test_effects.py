"""Which files do something when they are imported, beside defining what may be called."""

from __future__ import annotations

import ast
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.prepare.effects import only_defines

HEAD = """
from __future__ import annotations
import dataclasses, torch
import torch.nn as nn
from functools import lru_cache
from typing import TYPE_CHECKING, TypeVar
from bench.registry import technique
"""
DEFINING = """
if TYPE_CHECKING:
    from bench import Subject
    torch.set_flush_denormal(True)
---
if __name__ == "__main__":
    torch.set_flush_denormal(True)
---
try:
    import torchao
except ImportError:
    torchao = None
---
LOW, HIGH = -1, 2 * 3
---
NAMES: dict[str, int] = {"a": len("b")}
---
T = TypeVar("T")
---
@dataclasses.dataclass(frozen=True)
class Half:
    share: float = 0.5
    names: list = dataclasses.field(default_factory=list)
    @property
    def rest(self): return patch(self)
    @staticmethod
    def make(): return patch()
---
@technique("half")
def half(subject, share=0.5): torch.relu = share
---
@lru_cache
def kept(): return patch()
---
@torch.no_grad()
def quietly(): return patch()
---
class Net(nn.Module):
    def forward(self, x): return patch(x)
---
relu = torch.relu
"""
DOING = """
torch.relu = relu
---
torch.set_flush_denormal(True)
---
before = torch.set_flush_denormal(True)
---
def f(x=patch()): pass
---
@patch
def f(): pass
---
@torch.library.impl("aten::relu", "CPU")
def f(x): return x
---
class Patched(nn.Module):
    torch.relu = 1
---
class Registered(nn.Module, metaclass=Kind): pass
---
with torch.no_grad():
    pass
---
for name in ("a", "b"):
    setattr(torch, name, 1)
---
if torch.relu:
    torch.relu = 1
---
try:
    torch.relu = 1
except AttributeError:
    pass
---
del torch.relu
---
NAMES += ("a",)
---
kept["relu"] = 1
---
x = [patch(one) for one in range(2)]
---
if __name__ != "__main__":
    torch.relu = 1
---
if TYPE_CHECKING:
    pass
else:
    torch.relu = 1
---
import functools; functools.reduce(patch, [1, 2])
"""
DEFINES, DOES = DEFINING.split("---\n"), DOING.split("---\n")


@given(st.lists(st.sampled_from(DEFINES)), st.lists(st.sampled_from(DOES)), st.randoms())
def test_a_file_only_defines_if_none_of_its_statements_does_anything_else(
    quiet: list[str], loud: list[str], order: random.Random
) -> None:
    statements = [*quiet, *loud]
    order.shuffle(statements)
    assert only_defines(ast.parse("\n".join([HEAD, *statements]))) == (not loud)


@pytest.mark.parametrize("statement", DOES)
def test_each_statement_that_does_something_is_seen(statement: str) -> None:
    assert not only_defines(ast.parse(HEAD + statement))


def test_what_a_name_stands_for_is_told_by_its_import() -> None:
    used = "@dataclass\nclass Half: pass"
    assert only_defines(ast.parse(f"from dataclasses import dataclass\n{used}"))
    assert not only_defines(ast.parse(f"from beside import dataclass\n{used}"))
    assert not only_defines(ast.parse(f"from beside import *\n{used}"))
