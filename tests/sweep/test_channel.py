"""Messages of any size, to workers in any state: answered in time, or a failure with its name."""

import os
import pickle
import signal
import socket
import threading
import time
from collections.abc import Iterator

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from harness.errors import WorkerFailure
from harness.sweep.launcher import Launcher
from harness.worker.channel import HEADER, Channel

Pair = tuple[Channel, Channel, socket.socket, socket.socket]


@pytest.fixture
def pair() -> Iterator[Pair]:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        yield Channel(ours), Channel(theirs), ours, theirs


@settings(max_examples=60)
@given(sizes=st.lists(st.sampled_from([0, 1, 1_000, 212_992, 5_000_000]), min_size=1, max_size=4))
def test_messages_of_any_size_arrive_whole_and_in_order(sizes: list[int]) -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        sent = [np.arange(size, dtype=np.uint8) for size in sizes]
        sender = threading.Thread(target=lambda: [Channel(ours).send(one, 30) for one in sent])
        sender.start()
        for one in sent:
            assert np.array_equal(Channel(theirs).receive(30), one)
        sender.join()


@pytest.mark.parametrize("size", [10_000_000, 100_000_000])
def test_what_nobody_takes_is_given_up_in_time(pair: Pair, size: int) -> None:
    begin = time.monotonic()
    with pytest.raises(TimeoutError):
        pair[0].send(bytes(size), 0.2)
    assert time.monotonic() - begin < 5


@pytest.mark.parametrize("sent", [0, 3, HEADER.size, HEADER.size + 4])
def test_half_a_message_is_waited_for_no_longer_than_a_whole_one(pair: Pair, sent: int) -> None:
    content = pickle.dumps(bytes(100))
    pair[2].send((HEADER.pack(len(content)) + content)[:sent])
    with pytest.raises(TimeoutError):
        pair[1].receive(0.2)


@pytest.mark.parametrize("sent", [0, 3, HEADER.size, HEADER.size + 4])
def test_an_end_in_the_middle_of_a_message_is_an_end(pair: Pair, sent: int) -> None:
    pair[2].send((HEADER.pack(50) + bytes(50))[:sent])
    pair[0].close()
    with pytest.raises((EOFError, ConnectionError)):
        pair[1].receive(5)


def test_one_that_trickles_in_is_bounded_as_a_whole(pair: Pair) -> None:
    stop = threading.Event()

    def trickle() -> None:
        pair[2].send(HEADER.pack(1_000_000))
        while not stop.wait(0.05):
            pair[2].send(b"x")

    thread = threading.Thread(target=trickle)
    thread.start()
    with pytest.raises(TimeoutError):
        pair[1].receive(0.5)
    stop.set()
    thread.join()


@pytest.mark.parametrize("size", [0, 1, 1_000_000, 100_000_000])
@pytest.mark.parametrize("paused", [False, True])
def test_a_worker_takes_a_question_of_any_size_paused_or_not(
    launcher: Launcher, size: int, paused: bool
) -> None:
    with launcher.worker() as worker:
        if paused:
            worker.pause()
        worker.call("bring_in", 60, folders=["x" * size], plugins=[], files=[])
        assert worker.call("probe_device", 60, device="cpu")


@pytest.mark.parametrize("size", [0, 100_000_000])
def test_a_worker_that_somebody_stopped_is_a_timeout_and_not_the_end_of_the_run(
    launcher: Launcher, size: int
) -> None:
    with launcher.worker() as worker:
        worker.call("probe_device", 60, device="cpu")
        os.kill(worker.pid, signal.SIGSTOP)
        with pytest.raises(WorkerFailure, match="bring_in took longer than 1 s"):
            worker.call("bring_in", 1.0, folders=["x" * size], plugins=[], files=[])
    with launcher.worker() as worker:
        assert worker.call("probe_device", 60, device="cpu")
