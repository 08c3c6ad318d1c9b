"""What was timed is on disk a second later, is read as far as it goes, and is gone on from."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import replace
from itertools import count
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from harness.errors import UserError
from harness.known import WITHIN
from harness.measure.disturbance import Disturbance
from harness.measure.timing import Block
from harness.sweep.heat import INTERRUPTION, Member, Stop, TimedBlock, run_heat
from harness.sweep.journal import Journal
from harness.sweep.recover import note_seats

PLACE = "digits/cpu/0/1/8"
VARIANTS = {name: f"variant of {name}" for name in "abcd"}
STOP = Stop(relative_ci=0.0, max_seconds_per_cell=1e9, least_rounds=10, most_rounds=40)


class Clock:
    """A clock that goes on by what the blocks take."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def make_members(clock: Clock, names: Sequence[str] = "abc", seed: int = 0) -> list[Member]:
    """Members whose blocks take 0.1 s and hold random samples, some disturbed."""
    generator = np.random.default_rng(seed)

    def time_block() -> Block:
        clock.now += 0.1
        disturbance = Disturbance(
            str(generator.choice(["", "loaded", "throttled"])), wall_s=0.1, lost_s=0.01, switches=3,
            others=1, others_s=0.02, stolen_s=0.003,
            frequency_hz=float(generator.choice([3e9, np.nan])),
            throttled_by=("thermal",) if generator.random() < 0.3 else (),
        )  # fmt: skip
        seconds = generator.random(int(generator.integers(1, 50)))
        return Block(
            seconds, int(generator.integers(1, 9)), disturbance, int(generator.integers(9))
        )

    return [Member(name, time_block, family="f") for name in names]


def equal(first: list[TimedBlock], second: list[TimedBlock]) -> bool:
    def plain(block: TimedBlock) -> tuple[object, ...]:
        samples = block.samples
        return (
            block.round, block.block, block.position, block.at_s, samples.seconds.tolist(),
            samples.loops, samples.process, repr(samples.disturbance),
        )  # fmt: skip

    return [plain(block) for block in first] == [plain(block) for block in second]


def take_up(
    folder: Path, clock: Clock, rounds: int, names: Sequence[str] = "abc", seed: int = 0
) -> list[Member]:
    """Run a heat for so many more rounds, then interrupt it."""
    members = make_members(clock, names, seed)
    with Journal(folder, PLACE, "the heat", members, VARIANTS, clock) as journal:
        left = count(rounds - 1, -1)

        def after_round() -> bool:
            journal.keep()
            return next(left) <= 0

        run_heat(members, STOP, 1, journal.left, clock, after_round)
    return members


def test_a_heat_that_is_taken_up_has_its_blocks_and_none_twice(tmp_path: Path) -> None:
    clock = Clock()
    first = take_up(tmp_path, clock, 3)
    assert {member.stopped_by for member in first} == {INTERRUPTION}
    clock.now += 1000  # the night between
    second = take_up(tmp_path, clock, 4, seed=1)
    for before, after in zip(first, second, strict=True):
        assert equal(after.blocks[: len(before.blocks)], before.blocks)
        assert list(after.rounds()) == [0, 1, 2, 3, 4, 5, 6]
        assert after.spent_s == pytest.approx(0.1 * len(after.blocks))
    blocks = sorted((block.block, block.at_s) for member in second for block in member.blocks)
    assert [number for number, _ in blocks] == list(range(len(blocks)))
    assert [at_s for _, at_s in blocks] == sorted(at_s for _, at_s in blocks)
    assert blocks[-1][1] < 100, "the night is no part of the heat"
    third = take_up(tmp_path, clock, 10**6, seed=2)
    assert {member.stopped_by for member in third} == {"rounds"}
    assert all(len(member.rounds()) == 40 for member in third)


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    rounds=st.lists(st.integers(1, 30), min_size=1, max_size=4),
    cut=st.floats(0, 1), seed=st.integers(0, 99),
)  # fmt: skip
def test_a_journal_that_breaks_off_anywhere_is_read_as_far_as_it_goes(
    tmp_path_factory: pytest.TempPathFactory, rounds: list[int], cut: float, seed: int
) -> None:
    """As after a kill or a full disk: whole seconds are kept, and what comes later is added."""
    folder = tmp_path_factory.mktemp("journal")
    clock = Clock()
    whole: list[Member] = []
    for number in rounds:
        whole = take_up(folder, clock, number, seed=seed + number)
    last = max(folder.iterdir(), key=lambda path: int(path.name.split(".")[1]))
    content = last.read_bytes()
    last.write_bytes(content[: int(cut * len(content))])
    again = take_up(folder, clock, 2, seed=seed)
    before = sum(rounds[:-1])
    for known, member in zip(whole, again, strict=True):
        fresh = member.blocks[-1].round - 1
        kept = [block for block in member.blocks if block.round < fresh]
        assert equal(kept, known.blocks[: len(kept)])
        assert len(kept) >= len(
            [block for block in known.blocks if block.round < min(before, fresh)]
        )
    numbers = [block.block for member in again for block in member.blocks]
    assert len(numbers) == len(set(numbers))


def test_what_was_timed_is_durable_a_second_later(tmp_path: Path) -> None:
    """Looked at after every round by another reader, as a kill then would leave it."""
    clock = Clock()
    members = make_members(clock)
    seen: list[tuple[float, float]] = []
    with Journal(tmp_path, PLACE, "the heat", members, VARIANTS, clock) as journal:

        def after_round() -> bool:
            journal.keep()
            others = make_members(clock)
            copy = tmp_path / f"copy-{len(seen)}"
            copy.mkdir()
            for file in tmp_path.glob("*.arrows"):
                (copy / file.name).write_bytes(file.read_bytes())
            with Journal(copy, PLACE, "", others, VARIANTS, clock):
                pass
            kept = max((b.at_s for m in others for b in m.blocks), default=0.0)
            seen.append((clock.now, kept))
            return False

        run_heat(members, replace(STOP, most_rounds=30), 1, journal.left, clock, after_round)
    assert all(now - kept <= 1.0 + 3 * 0.1 + 0.11 for now, kept in seen)


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    takes=st.lists(
        st.tuples(st.sets(st.sampled_from("abcd"), min_size=1), st.integers(1, 7)),
        min_size=1, max_size=5,
    ),
    seed=st.integers(0, 99),
)  # fmt: skip
def test_whoever_left_the_others_go_on_in_the_same_heat(
    tmp_path_factory: pytest.TempPathFactory, takes: list[tuple[set[str], int]], seed: int
) -> None:
    """As after a failure, which has its row and is not measured again, or with --retry failed."""
    folder = tmp_path_factory.mktemp("journal")
    clock = Clock()
    known: dict[str, list[TimedBlock]] = {}
    for names, rounds in takes:
        mixed = ["control", *sorted(names)]
        random.Random(seed).shuffle(mixed)
        members = {member.name: member for member in take_up(folder, clock, rounds, mixed, seed)}
        beside = bool(names & known.keys())  # else the control's blocks are beside nobody's here
        for name, member in members.items():
            before = known.get(name, [])
            kept = before if beside else []
            assert equal(member.blocks[: len(kept)], kept)
            assert len(member.blocks) >= len(kept) + rounds
            known[name] = [*before, *member.blocks[len(kept) :]]
    numbers = [block.block for blocks in known.values() for block in blocks]
    assert len(numbers) == len(set(numbers)), "a number is one block's"


def test_a_model_that_has_changed_starts_anew_beside_those_that_have_not(tmp_path: Path) -> None:
    clock = Clock()
    first = take_up(tmp_path, clock, 3)
    members = make_members(clock)
    changed = VARIANTS | {"b": "another"}
    with Journal(tmp_path, PLACE, "the heat", members, changed, clock) as journal:
        assert [len(member.rounds()) for member in members] == [3, 0, 3]
        assert equal(journal.left, first[1].blocks)
    everything = dict.fromkeys("abc", "another")
    members = make_members(clock)
    with Journal(tmp_path, PLACE, "the heat", members, everything, clock) as journal:
        assert not any(member.blocks for member in members)
        run_heat(members, replace(STOP, most_rounds=4), 1, journal.left, clock)
        assert all(list(member.rounds()) == [3] for member in members), "its rounds are others"


def test_another_place_has_a_journal_of_its_own(tmp_path: Path) -> None:
    clock = Clock()
    take_up(tmp_path, clock, 3)
    members = make_members(clock)
    with Journal(tmp_path, "elsewhere", "a heat", members, VARIANTS, clock) as journal:
        assert journal.name == "a heat"
    assert not any(member.blocks for member in members)
    journal.remove()
    assert all(len(member.rounds()) == 4 for member in take_up(tmp_path, clock, 1))


def test_the_name_of_a_heat_is_the_one_it_was_begun_under_and_it_can_be_removed(
    tmp_path: Path,
) -> None:
    clock = Clock()
    take_up(tmp_path, clock, 3)
    with Journal(tmp_path, PLACE, "its rest", make_members(clock), VARIANTS, clock) as journal:
        assert journal.name == "the heat"
    journal.remove()
    assert not list(tmp_path.iterdir())
    with Journal(tmp_path, PLACE, "its rest", make_members(clock), VARIANTS, clock) as journal:
        assert journal.name == "its rest"


@settings(max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(share=st.floats(0, 1), rounds=st.integers(1, 20))
def test_a_tail_of_zeros_as_after_a_power_cut_costs_what_it_covers(
    tmp_path_factory: pytest.TempPathFactory, share: float, rounds: int
) -> None:
    folder = tmp_path_factory.mktemp("journal")
    clock = Clock()
    whole = take_up(folder, clock, rounds)
    (file,) = folder.iterdir()
    content = file.read_bytes()
    cut = int(share * len(content)) // 512 * 512
    file.write_bytes(content[:cut] + bytes(len(content) - cut))
    for before, after in zip(whole, take_up(folder, clock, 1), strict=True):
        kept = after.blocks[: len(after.rounds()) - 1]
        assert equal(kept, before.blocks[: len(kept)])


@pytest.mark.parametrize("content", [b"", b"nonsense", bytes(10_000)])
def test_a_file_that_is_no_journal_costs_nothing(tmp_path: Path, content: bytes) -> None:
    clock = Clock()
    take_up(tmp_path, clock, 3)
    (file,) = tmp_path.iterdir()
    file.write_bytes(content)
    assert all(len(member.rounds()) == 2 for member in take_up(tmp_path, clock, 2))


def test_a_heat_without_members_has_a_journal_too(tmp_path: Path) -> None:
    with Journal(tmp_path, PLACE, "empty", [], {}) as journal:
        journal.keep(now=True)


def test_who_is_interrupted_while_blocks_are_kept_has_them_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Before they are written, or after; what is written when the heat ends is all there was."""
    for moment in ("before", "after"):
        folder, clock = tmp_path / moment, Clock()
        members = make_members(clock)
        journal = Journal(folder, PLACE, "the heat", members, VARIANTS, clock)
        stream = journal._stream

        class Interrupted:
            def __init__(self, stream: Any, moment: str) -> None:
                self._stream, self._moment = stream, moment

            def write_batch(self, batch: Any) -> None:
                if self._moment == "after":
                    self._stream.write_batch(batch)
                raise KeyboardInterrupt

        with pytest.raises(KeyboardInterrupt), journal:
            run_heat(members, STOP, 1, (), clock, lambda: True)
            with monkeypatch.context() as patched:
                patched.setattr(journal, "_stream", Interrupted(stream, moment))
                journal.keep(now=True)
        again = make_members(clock)
        with Journal(folder, PLACE, "the heat", again, VARIANTS, clock):
            pass
        for before, after in zip(members, again, strict=True):
            assert equal(after.blocks, before.blocks), moment


def test_after_half_a_batch_nothing_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A disk that is full for a moment: what came after could not be read."""
    clock = Clock()
    members = make_members(clock)

    def break_off(_: object) -> None:
        raise OSError(28, "No space left on device")

    with (
        pytest.raises(UserError, match="No space left"),
        Journal(tmp_path, PLACE, "the heat", members, VARIANTS, clock) as journal,
    ):
        run_heat(members, STOP, 1, (), clock, lambda: True)
        with monkeypatch.context() as patched:
            patched.setattr(journal._stream, "write_batch", break_off, raising=False)
            journal.keep(now=True)
    again = make_members(clock)
    with Journal(tmp_path, PLACE, "the heat", again, VARIANTS, clock):
        assert not any(member.blocks for member in again)


def test_a_note_that_cannot_be_written_ends_the_run_as_the_journal_does(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("harness.sweep.recover.write_durably", refuse)
    with (
        Journal(tmp_path, PLACE, "the heat", [], {}) as journal,
        pytest.raises(UserError, match=r"Cannot write .*No space left.*resume"),
    ):
        note_seats(journal, PLACE, [], 2, 2, WITHIN)


def test_a_folder_that_cannot_be_written_is_a_message(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match=r"Cannot write .*resume"):
        Journal(tmp_path / "file", PLACE, "the heat", [], {})
