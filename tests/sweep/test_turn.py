"""Runs take turns on a machine and on each card, and nobody waits for the dead."""

from __future__ import annotations

import itertools
import os
import platform
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from harness.errors import UserError
from harness.sweep.turn import take_turn
from tests.start import start_command

pytestmark = pytest.mark.workers

HOLD = (
    "import sys, time; from pathlib import Path; from harness.sweep.turn import take_turn\n"
    "with take_turn(sys.argv[2:], Path(sys.argv[1]), print):\n"
    "    print('holding', flush=True); time.sleep(600)\n"
)
PLACES = [{"cpu"}, {"GPU-1"}, {"GPU-2"}, {"cpu", "GPU-1"}, {"GPU-1", "GPU-2"}]


@contextmanager
def held(folder: Path, *places: str) -> Iterator[subprocess.Popen[str]]:
    """Another process that has the turn on some places."""
    with subprocess.Popen(
        [sys.executable, "-c", HOLD, str(folder), *places], stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "holding\n"
        yield process
        process.kill()


def is_free(folder: Path, places: set[str]) -> bool:
    try:
        with take_turn(places, folder, pytest.fail, wait=False):
            return True
    except UserError:
        return False


@pytest.mark.parametrize("first", PLACES, ids=sorted)
def test_runs_exclude_each_other_where_they_share_a_card_or_one_times_the_processors(
    tmp_path: Path, first: set[str]
) -> None:
    with held(tmp_path, *first):
        for second in PLACES:
            apart = not first & second and "cpu" not in first | second
            assert is_free(tmp_path, second) == apart, second
    assert all(is_free(tmp_path, places) for places in PLACES), "the turn ends with its holder"


def test_one_waits_for_the_other_says_for_whom_and_goes_on_when_that_is_killed(
    tmp_path: Path,
) -> None:
    said: list[str] = []
    with held(tmp_path, "cpu") as holder:
        killer = subprocess.Popen(
            [sys.executable, "-c", f"import time, os; time.sleep(1); os.kill({holder.pid}, 9)"]
        )
        began = time.monotonic()
        with take_turn({"cpu"}, tmp_path, said.append):
            assert time.monotonic() - began > 0.5
        killer.wait()
    (line,) = said
    assert f"process {holder.pid}, `paretogrid" in line
    assert f"in {Path.cwd()}, since " in line
    assert "--no-wait" in line


@pytest.mark.parametrize("text", ["", "[]", "{", '{"pid": 1}', "null"])
def test_a_holder_that_nobody_knows_is_waited_for_all_the_same(tmp_path: Path, text: str) -> None:
    with held(tmp_path, "cpu"):
        (tmp_path / f"{platform.node()}.lock").write_text(text)
        with (
            pytest.raises(UserError, match=r"^Another run is timing on this machine\. Wait"),
            take_turn({"cpu"}, tmp_path, pytest.fail, wait=False),
        ):
            pass


def test_a_run_that_may_not_wait_ends_before_it_makes_anything(
    tmp_path: Path, own_cache: Path, command: Callable[..., subprocess.CompletedProcess[str]]
) -> None:
    with held(own_cache / "turns", "cpu") as holder:
        done = command("run", "--model", "digits-mlp(width=4)", "--threads", "1", "--no-wait")
        assert done.returncode == 2
        assert f"process {holder.pid}" in done.stderr
        assert "Traceback" not in done.stderr
    assert not (tmp_path / "results").exists()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_who_waits_can_be_interrupted(
    tmp_path: Path, own_cache: Path, number: signal.Signals
) -> None:
    with held(own_cache / "turns", "cpu"):
        waiting = start_command(
            tmp_path, "run", "--model", "digits-mlp(width=4)", stdout=subprocess.DEVNULL
        )
        assert waiting.stderr is not None
        assert "Waiting for it" in next(itertools.dropwhile(
            lambda line: "Waiting" not in line, waiting.stderr
        ))  # fmt: skip
        os.kill(waiting.pid, number)
        assert waiting.wait(30) == 130
