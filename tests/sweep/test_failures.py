"""Workers that fail in any way become failed cells of that kind; the rest is measured."""

from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pytest

FATES = """
import os, signal, time
import torch
from torch import nn

class Fated(nn.Module):
    def __init__(self, fate, calls):
        super().__init__()
        self.fate, self.calls = fate, calls
    def forward(self, x):
        self.calls -= 1
        if self.calls < 0:
            getattr(self, self.fate)()
        return x * 2
    def killed(self):
        os.kill(os.getpid(), signal.SIGKILL)
    def exit(self):
        os._exit(3)
    def exception(self):
        raise RuntimeError("no luck today")
    def mistake(self):
        from bench import SpecError
        raise SpecError("such inputs do not go")
    def timeout(self):
        time.sleep(600)
    def crash(self):
        os.kill(os.getpid(), signal.SIGSEGV)
    def memory(self):
        kept = []
        while True:
            kept.append(torch.empty(2**26))

def net(fate="fine", calls=10**9):
    return Fated(fate, calls), torch.ones(1, 4)
"""
KINDS = {
    "killed": "killed",
    "exit": "exit",
    "exception": "exception",
    "mistake": "usage",
    "timeout": "timeout",
    "crash": "crash",
    "memory": "out-of-memory",
}
# The first forward counts operators; a thousand calls later the worker is in its heat.
MOMENTS = {"at once": 0, "in the heat": 1_000}


@pytest.mark.parametrize("moment", MOMENTS)
def test_a_worker_that_dies_becomes_a_failed_cell_of_that_kind_and_the_rest_is_measured(
    measure: Callable[..., pd.DataFrame], tmp_path: Path, moment: str
) -> None:
    file = tmp_path / "fates.py"
    file.write_text(FATES)
    models = {fate: f"{file}:net('{fate}', {MOMENTS[moment]})" for fate in KINDS}
    cells = measure(
        budget={"timeout_s": 4.0, "max_memory_bytes": 3 * 10**9},
        models=[*models.values(), f"{file}:net"],
    )
    assert len(cells) == len(KINDS) + 1
    for fate, kind in KINDS.items():
        name = f"{file}:net({fate!r}, calls={MOMENTS[moment]})"
        (cell,) = cells[cells["model"] == name].to_dict("records")
        assert (cell["status"], cell["failure_kind"]) == ("failed", kind), cell["message"]
        assert cell["message"]
        assert pd.isna(cell["latency_s"])
    (fine,) = cells[cells["model"] == f"{file}:net"].to_dict("records")
    assert fine["status"] == "measured"


def test_a_baseline_that_dies_in_the_heat_leaves_the_others_measured_without_a_ratio(
    measure: Callable[..., pd.DataFrame], tmp_path: Path
) -> None:
    (tmp_path / "fates.py").write_text(FATES)
    plugin = tmp_path / "spare.py"
    plugin.write_text(
        "import copy, dataclasses\n"
        "from bench import technique\n"
        "@technique('spare')\n"
        "def spare(subject):\n"
        "    module = copy.deepcopy(subject.module)\n"
        "    module.calls = 10**9\n"
        "    return dataclasses.replace(subject, module=module)\n"
    )
    cells = measure(
        models=[f"{tmp_path}/fates.py:net('killed', 1000)"],
        techniques=["spare"],
        plugins=[str(plugin)],
    ).set_index("technique")
    assert cells.loc["baseline", "failure_kind"] == "killed"
    assert cells.loc["spare", "status"] == "measured"
    assert cells.loc["spare", "latency_s"] > 0


def test_an_exception_is_told_with_its_type_and_place(
    measure: Callable[..., pd.DataFrame], tmp_path: Path
) -> None:
    file = tmp_path / "fates.py"
    file.write_text(FATES)
    (cell,) = measure(models=[f"{file}:net('exception', 0)"]).to_dict("records")
    assert cell["message"].startswith("RuntimeError: no luck today (fates.py:")
