"""The worker server stays fit to be forked."""

from pathlib import Path

import pytest

from harness.sweep.launcher import NOTHING, Imports, Launcher

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
    with launcher.worker() as worker:
        facts = worker.call(
            "prepare_base", 60, model="digits-mlp(width=5)", recipes=[], seed=0, token="a test",
            threads=1,
        )  # fmt: skip
        again = worker.call(
            "prepare_base", 60, model="digits-mlp(width=6)", recipes=[], seed=0, token="a test",
            threads=1,
        )  # fmt: skip
    assert facts["prepare_s"] < 2 * again["prepare_s"], "the first costs what the second does"
