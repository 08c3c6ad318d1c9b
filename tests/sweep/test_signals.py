"""When a run takes a signal, and when it lets it wait."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from harness.sweep.interruption import SIGNALS, Interruption

LOOK = """
import sys
import paretogrid
paretogrid.claim_names()
from harness.store import Run
def create(*_):
    sys.exit(0 if "scipy.stats" in sys.modules else 1)
Run.create = create  # from here on there is something to go on with
sys.argv = ["paretogrid", "run", "--model", "own.py:net", "--threads", "1"]
paretogrid.main()
"""


def send(number: signal.Signals) -> None:
    os.kill(os.getpid(), number)


@pytest.mark.parametrize("number", SIGNALS)
def test_a_signal_is_taken_at_once_unless_it_has_to_wait(number: signal.Signals) -> None:
    interruption = Interruption()
    with interruption.heard():
        with pytest.raises(KeyboardInterrupt):
            send(number)
        interruption.hold()
        send(number)
        send(number)
        with pytest.raises(KeyboardInterrupt):
            interruption.release()


@pytest.mark.parametrize("number", SIGNALS)
def test_the_first_in_a_heat_ends_the_round_and_results_are_made_before_anybody_leaves(
    number: signal.Signals,
) -> None:
    told: list[str] = []
    interruption = Interruption(told.append)
    with interruption.heard():
        with interruption.after_the_round():
            send(number)
            assert interruption.asked
        assert len(told) == 1
        send(number)  # results are being made
        with pytest.raises(KeyboardInterrupt):
            interruption.release()


def test_a_second_one_in_the_round_leaves_at_once() -> None:
    interruption = Interruption()
    with interruption.heard(), pytest.raises(KeyboardInterrupt), interruption.after_the_round():
        send(signal.SIGINT)
        send(signal.SIGINT)
    with interruption.heard(), pytest.raises(KeyboardInterrupt):
        send(signal.SIGINT)


def test_without_a_signal_nothing_waits_and_nothing_is_raised() -> None:
    interruption = Interruption()
    with interruption.heard():
        with interruption.after_the_round():
            pass
        interruption.release()
        with pytest.raises(KeyboardInterrupt):
            send(signal.SIGINT)


@pytest.mark.workers
def test_what_results_need_is_imported_before_a_signal_can_leave_half_of_it(tmp_path: Path) -> None:
    (tmp_path / "own.py").write_text(
        "import torch\ndef net():\n    return torch.nn.Linear(4, 4), torch.ones(1, 4)\n"
    )
    done = subprocess.run([sys.executable, "-P", "-c", LOOK], cwd=tmp_path, check=False)
    assert done.returncode == 0
