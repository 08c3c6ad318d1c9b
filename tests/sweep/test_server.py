"""The worker server stays fit to be forked."""

from pathlib import Path

import pytest

from harness.sweep.imports import NOTHING, Imports
from harness.sweep.launcher import Launcher
from harness.sweep.remote import Worker
from harness.worker.server import holds_card

pytestmark = pytest.mark.workers


def count_threads(pid: int) -> int:
    return len(list(Path(f"/proc/{pid}/task").iterdir()))


def test_the_server_has_one_thread_even_after_its_workers_have_trained(
    cold_servers: None,
) -> None:
    with Launcher() as launcher:
        launcher.preload_training()
        with launcher.worker() as worker:
            parent = int(Path(f"/proc/{worker.pid}/stat").read_text().split()[3])
            worker.call(
                "prepare_base", 60, model="digits-mlp(width=4)", recipes=[], seed=0, token="a test",
                threads=2,
            )  # fmt: skip
            assert count_threads(parent) == 1


HOLDING = """
import torch

HELD = torch.ones(2**28)
"""


def test_a_worker_that_was_given_up_is_gone_before_the_next_is_there(
    launcher: Launcher, tmp_path: Path
) -> None:
    """Also one of another server: a gigabyte is not given back in no time."""
    (tmp_path / "holding.py").write_text(HOLDING)
    for imports in (NOTHING, Imports(files=(str(tmp_path / "holding.py"),))):
        given_up = launcher.start_worker(imports)
        given_up.call("bring_in", 60, folders=[], plugins=[], files=[str(tmp_path / "holding.py")])
        given_up.kill()
        with launcher.worker():
            assert not Path(f"/proc/{given_up.pid}").exists()


@pytest.mark.clock
def test_a_worker_imports_nothing_late_when_it_trains(launcher: Launcher) -> None:
    def train(worker: Worker, width: int) -> float:
        facts = worker.call(
            "prepare_base", 60, model=f"digits-mlp(width={width})", recipes=[], seed=0,
            token="a test", threads=1,
        )  # fmt: skip
        return float(facts["prepare_s"])

    with launcher.worker() as worker:
        train(worker, 4)  # the data are in the cache from now on
    with launcher.worker() as worker:
        assert train(worker, 5) < 2 * train(worker, 6), "the first costs what the second does"


ASKS = """
import os
import torch
from torch import nn

THERE = torch.cuda.is_available()
CHECK = os.environ.get("PYTORCH_NVML_BASED_CUDA_CHECK")

def net():
    assert CHECK == "1", "CUDA is started by the question whether there is a card"
    assert "PYTORCH_NVML_BASED_CUDA_CHECK" not in os.environ, "it is ours alone"
    if THERE:
        torch.ones(1, device="cuda")
    return nn.Linear(2, 2), torch.randn(1, 2)
"""


def test_a_file_that_asks_for_a_card_when_it_is_imported_does_not_start_cuda(
    launcher: Launcher, tmp_path: Path
) -> None:
    (tmp_path / "asks.py").write_text(ASKS)
    imports = Imports(folders=(str(tmp_path),), files=(str(tmp_path / "asks.py"),))
    with launcher.worker(imports) as worker:
        worker.call("prepare_base", 60, model=f"{tmp_path}/asks.py:net", recipes=[], seed=0,
                    token="a test", threads=1)  # fmt: skip


@pytest.mark.parametrize(
    ("opened", "holds"),
    [
        ([], False),
        (["/dev/null", "socket:[17]"], False),
        (["/dev/nvidiactl", "/dev/nvidia0"], False),  # NVML's
        (["/dev/nvidiactl", "/dev/nvidia-uvm", "/dev/nvidia0"], True),
    ],
)
def test_a_process_in_which_cuda_was_started_is_not_forked(
    tmp_path: Path, opened: list[str], holds: bool
) -> None:
    for number, path in enumerate(opened):
        (tmp_path / str(number)).symlink_to(path)
    assert holds_card(tmp_path) is holds
