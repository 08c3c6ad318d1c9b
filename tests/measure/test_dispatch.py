"""Operators are counted without PyTorch's compiler, and beside it."""

import subprocess
import sys
import textwrap

import pytest

COUNT = """
import sys
import torch
from torch import nn
from harness.measure.counts import count_macs
from harness.measure.runtimes import Program
from harness.measure.traffic import count_traffic

class Compiles(nn.Module):
    def __init__(self):
        super().__init__()
        self.linear = nn.Linear(8, 8)
    def forward(self, x):
        return torch.compile(self.linear, backend="eager")(x)
"""


def run(program: str) -> str:
    done = subprocess.run(
        [sys.executable, "-c", COUNT + textwrap.dedent(program)],
        capture_output=True, text=True, timeout=120, check=True,
    )  # fmt: skip
    return done.stdout


def test_counting_does_not_import_the_compiler() -> None:
    said = run("""
        linear = nn.Linear(8, 8)
        print(count_macs(linear, (torch.ones(2, 8),)))
        with torch.no_grad():
            print(count_traffic(linear, (torch.ones(2, 8),)).operators)
        print("torch._dynamo" in sys.modules)
    """)
    assert said.split("\n")[:3] == ["(64.0, [])", "1", "False"]


@pytest.mark.parametrize("first", ["pass", "import torch._dynamo"])
def test_a_forward_that_compiles_is_counted(first: str) -> None:
    said = run(f"""
        {first}
        model = Compiles()
        for _ in range(2):
            print(count_macs(model, (torch.ones(2, 8),)))
    """)
    assert said.split("\n")[:2] == ["(64.0, [])"] * 2


def test_a_compiled_model_is_counted_by_a_counter_that_was_there_before() -> None:
    said = run("""
        linear = nn.Linear(8, 8)
        print(count_macs(linear, (torch.ones(2, 8),)))
        compiled = torch.compile(linear, backend="eager")
        print(count_macs(compiled, (torch.ones(2, 8),)))
    """)
    assert said.split("\n")[:2] == ["(64.0, [])"] * 2
