"""The worker server stays fit to be forked."""

from pathlib import Path

import pytest

from harness.sweep.launcher import NOTHING, Imports, Launcher
from harness.sweep.remote import Worker

pytestmark = pytest.mark.workers


def count_threads(pid: int) -> int:
    return len(list(Path(f"/proc/{pid}/task").iterdir()))


def test_the_server_has_one_thread_even_after_its_workers_have_trained() -> None:
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
