"""The worker server stays fit to be forked."""

from pathlib import Path

from harness.sweep.launcher import Launcher


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
