"""Heats with scripted members: order, pairs, stopping, failures."""

from collections.abc import Callable
from dataclasses import replace
from itertools import count, pairwise

import numpy as np
import pytest
from scripted import Samples

from harness.errors import WorkerFailure
from harness.measure.disturbance import Disturbance
from harness.rounds import choose_rounds
from harness.stats import LEAST_FOR_INTERVAL
from harness.sweep.compare import compare, pair_sessions
from harness.sweep.heat import Member, Stop, latencies, run_heat

TICK_S = 1 / 128  # exact in binary, so that budgets are spent to the tick


class Clock:
    """Time that passes only when a member takes it."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def scripted(
    clock: Clock, name: str, noise: float, follows: bool = False, cost_s: float = TICK_S
) -> Member:
    """Return a member of 1 ms with a relative noise; each block costs so much time."""
    rng = np.random.default_rng(sum(map(ord, name)))

    def take() -> Samples:
        clock.now += cost_s
        return Samples(1e-3 * np.exp(noise * rng.standard_normal(3)))

    return Member(name, take, follows=follows)


def test_a_family_is_timed_without_a_gap_in_every_round_and_in_every_order() -> None:
    clock = Clock()
    members = [scripted(clock, name, 0.5) for name in "abcxyz"]
    for member in members:
        member.family = "first" if member.name in "abc" else "second"
    run_heat(members, replace(STOP, most_rounds=40), seed=0, clock=clock)
    orders = set()
    for number in range(40):
        blocks = {b.position: m.name for m in members for b in m.blocks if b.round == number}
        orders.add("".join(blocks[position] for position in range(6)))
    halves = {frozenset(order[:3]) for order in orders}
    assert halves == {frozenset("abc"), frozenset("xyz")}, "families stay whole, either is first"
    assert len({order[:3] for order in orders}) == 12, "and each is shuffled"


def failing_after(blocks: int, take: Callable[[], Samples]) -> Callable[[], Samples]:
    taken = count()

    def maybe() -> Samples:
        if next(taken) >= blocks:
            raise WorkerFailure("killed", "somebody ended the worker")
        return take()

    return maybe


STOP = Stop(relative_ci=0.01, max_seconds_per_cell=1.0, least_rounds=10)


def test_every_round_visits_every_member_once_in_a_shuffled_order() -> None:
    clock = Clock()
    members = [scripted(clock, name, 0.2, follows=name == "a") for name in "abcde"]
    run_heat(members, STOP, seed=1, clock=clock)
    rounds = len(members[0].blocks)
    orders = set()
    for number in range(rounds):
        placed = {m.name: m.blocks[number].position for m in members}
        assert sorted(placed.values()) == [0, 1, 2, 3, 4]
        orders.add(tuple(placed.values()))
    assert len(orders) > rounds / 2


def test_the_same_seed_gives_the_same_order_and_another_seed_another() -> None:
    def order(seed: int) -> list[int]:
        clock = Clock()
        members = [scripted(clock, name, 0.2, follows=name == "a") for name in "abcd"]
        run_heat(members, STOP, seed, clock=clock)
        return [block.position for block in members[0].blocks]

    assert order(3) == order(3)
    assert order(3) != order(4)


def test_blocks_are_numbered_through_the_heat() -> None:
    clock = Clock()
    members = [scripted(clock, name, 0.2, follows=name == "a") for name in "abc"]
    run_heat(members, STOP, seed=1, clock=clock)
    numbers = sorted(block.block for m in members for block in m.blocks)
    assert all(after - before == 1 for before, after in pairwise(numbers))


def test_a_quiet_cell_stops_at_its_interval_and_a_noisy_one_at_its_budget() -> None:
    clock = Clock()
    quiet = [scripted(clock, name, 1e-4, follows=name == "a") for name in "ab"]
    run_heat(quiet, STOP, seed=1, clock=clock)
    assert {m.stopped_by for m in quiet} == {"interval"}
    assert {len(m.blocks) for m in quiet} == {10}

    noisy = [scripted(clock, name, 1.0, follows=name == "a") for name in "ab"]
    run_heat(noisy, STOP, seed=1, clock=clock)
    assert {m.stopped_by for m in noisy} == {"budget"}
    assert {len(m.blocks) for m in noisy} == {128}


def test_a_cell_that_is_narrow_stays_until_the_others_are() -> None:
    clock = Clock()
    quiet, noisy = scripted(clock, "a", 1e-4, follows=True), scripted(clock, "b", 0.5)
    run_heat([quiet, noisy], STOP, seed=1, clock=clock)
    assert set(quiet.rounds()) == set(noisy.rounds())


def test_the_baseline_stays_beyond_its_own_budget_so_that_every_round_has_its_pair() -> None:
    clock = Clock()
    slow = scripted(clock, "a", 1.0, follows=True, cost_s=8 * TICK_S)
    fast = scripted(clock, "b", 1.0)
    run_heat([slow, fast], STOP, seed=1, clock=clock)
    assert len(fast.blocks) == 128
    assert set(fast.rounds()) <= set(slow.rounds())
    assert slow.stopped_by == "budget"


def test_a_slow_cell_leaves_and_does_not_keep_the_others_waiting() -> None:
    clock = Clock()
    members = [
        scripted(clock, "a", 1.0, follows=True),
        scripted(clock, "slow", 1.0, cost_s=0.5),
        scripted(clock, "b", 1.0),
    ]
    run_heat(members, STOP, seed=1, clock=clock)
    assert [len(m.blocks) for m in members] == [128, LEAST_FOR_INTERVAL, 128]


def test_a_stall_does_not_leave_a_cell_without_an_interval() -> None:
    clock = Clock()
    members = [scripted(clock, name, 0.1, follows=name == "a") for name in "ab"]
    take, stalls = members[1].time_block, iter([2.0, 0.5])

    def stalling() -> Samples:
        clock.now += next(stalls, 0.0)
        return take()

    members[1].time_block = stalling
    run_heat(members, STOP, seed=1, clock=clock)
    assert len(members[1].blocks) == LEAST_FOR_INTERVAL
    assert np.isfinite(latencies(members)[members[1].name].low)
    assert members[1].stopped_by == "budget"


def test_a_cell_that_spends_three_budgets_leaves_with_what_it_has() -> None:
    clock = Clock()
    members = [scripted(clock, "a", 0.1, follows=True), scripted(clock, "b", 0.1, cost_s=2.0)]
    run_heat(members, STOP, seed=1, clock=clock)
    assert len(members[1].blocks) == 2


@pytest.mark.parametrize("victim", [0, 1])
def test_a_member_that_dies_leaves_and_the_others_go_on(victim: int) -> None:
    clock = Clock()
    members = [scripted(clock, name, 0.3, follows=name == "a") for name in "abc"]
    members[victim].time_block = failing_after(4, members[victim].time_block)
    run_heat(members, STOP, seed=1, clock=clock)
    assert members[victim].problem is not None
    assert members[victim].stopped_by == "failure"
    assert len(members[victim].blocks) == 4
    others = [m for number, m in enumerate(members) if number != victim]
    assert all(m.problem is None and len(m.blocks) > 10 for m in others)


def disturbing(member: Member, causes: dict[int, str], slower: float = 3.0) -> Member:
    """Let the member's visits with these numbers be disturbed: slower, and marked."""
    take, number = member.time_block, count()

    def maybe() -> Samples:
        samples, cause = take(), causes.get(next(number), "")
        factor = slower if cause else 1.0
        return replace(samples, seconds=factor * samples.seconds, disturbance=Disturbance(cause))

    member.time_block = maybe
    return member


def test_a_preempted_block_is_repeated_in_its_round_and_both_are_kept() -> None:
    clock = Clock()
    members = [scripted(clock, name, 1e-4, follows=name == "a") for name in "ab"]
    disturbing(members[1], {2: "preempted"})
    run_heat(members, STOP, seed=1, clock=clock)
    again = [block for block in members[1].blocks if block.round == 2]
    assert [block.samples.disturbance.cause for block in again] == ["preempted", ""]
    assert len(members[1].blocks) == len(members[0].blocks) + 1
    assert members[1].rounds()[2] is again[1]


def test_a_loaded_block_is_not_repeated_because_the_load_stays() -> None:
    clock = Clock()
    members = [scripted(clock, name, 1e-4, follows=name == "a") for name in "ab"]
    disturbing(members[1], dict.fromkeys(range(1000), "loaded"))
    run_heat(members, STOP, seed=1, clock=clock)
    assert len(members[1].blocks) == len(members[0].blocks)
    assert members[1].headline_level() == 1


def test_a_block_is_not_repeated_for_ever_nor_beyond_the_budget() -> None:
    clock = Clock()
    members = [scripted(clock, name, 1e-4, follows=name == "a") for name in "ab"]
    disturbing(members[1], dict.fromkeys(range(1000), "preempted"))
    run_heat(members, STOP, seed=1, clock=clock)
    blocks = [block.round for block in members[1].blocks]
    assert max(blocks.count(number) for number in blocks) == 2
    assert len(blocks) <= 129


def test_the_headline_leaves_disturbed_rounds_out_where_a_third_is_clean() -> None:
    clock = Clock()
    member = disturbing(
        scripted(clock, "a", 1e-3), {n: "loaded" for n in range(1000) if n % 3}, slower=5.0
    )
    run_heat([member], replace(STOP, relative_ci=1e-9, most_rounds=30), seed=1, clock=clock)
    assert member.headline_level() == 0
    assert latencies([member])[member.name].value == pytest.approx(1e-3, rel=0.01)


def test_the_ratio_is_of_rounds_that_were_clean_for_both() -> None:
    clock = Clock()
    one = disturbing(scripted(clock, "a", 1e-3), dict.fromkeys(range(0, 99, 3), "loaded"), 5.0)
    other = disturbing(scripted(clock, "b", 1e-3), dict.fromkeys(range(1, 99, 3), "loaded"), 5.0)
    run_heat([one, other], replace(STOP, relative_ci=1e-9, most_rounds=30), seed=1, clock=clock)
    ratio = compare(one, other)
    assert sum(map(len, pair_sessions(one, other)[0].values())) == 10
    assert ratio.estimate.value == pytest.approx(1.0, rel=0.01)


def test_with_too_few_clean_rounds_the_least_disturbed_are_taken() -> None:
    levels = dict.fromkeys(range(20), 1) | {20: 0, 21: 2}
    assert choose_rounds(levels) == (list(range(21)), 1)
    assert choose_rounds(dict.fromkeys(range(9), 2)) == (list(range(9)), 2)
    assert choose_rounds({0: 0, 1: 3}) == ([0, 1], 3)
    assert choose_rounds({}) == ([], 0)


def test_a_heat_ends_after_as_many_rounds_as_asked() -> None:
    clock = Clock()
    members = [scripted(clock, name, 0.5) for name in "ab"]
    run_heat(members, replace(STOP, relative_ci=1e-9, most_rounds=17), seed=1, clock=clock)
    assert {len(member.rounds()) for member in members} == {17}
    assert {member.stopped_by for member in members} == {"rounds"}


def test_a_follower_that_is_no_cell_stays_while_any_cell_does() -> None:
    clock = Clock()
    control = scripted(clock, "control", 0.5, follows=True)
    control.stopped_by = "the others"
    cell = scripted(clock, "a", 0.5, follows=True)
    run_heat([cell, control], STOP, seed=1, clock=clock)
    assert set(control.rounds()) == set(cell.rounds())


def test_an_empty_heat_ends_at_once() -> None:
    run_heat([], STOP, seed=1)
