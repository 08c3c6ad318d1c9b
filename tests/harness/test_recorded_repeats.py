"""What intervals of one run hold of the others, on recorded repeats of cells that are not alike.

The files were written by `tests/benchmarks/record_repeats.py` on two cores of a shared machine. A
run is of sessions that followed each other, each of another server; what it knows of how far
sessions are apart it has learnt from the runs before it, as on any machine.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import combinations
from math import ceil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from harness.commands.carry_out import decide_look
from harness.decide.early import decide_cells
from harness.decide.noise import Noise
from harness.grid import BASELINE, Cell
from harness.measure.disturbance import Disturbance
from harness.record import METRICS, Record
from harness.sweep.between import name_company, note_between, read_between
from harness.sweep.heat import CONTROL, Member, TimedBlock, find_rounds_sessions, never
from harness.sweep.look import GROWTH, look_at
from harness.sweep.seat import Seat, TimedHeat

FOLDER = Path(__file__).parents[1] / "data"
FILES = sorted(FOLDER.glob("repeats_*.parquet"))
SESSIONS = (1, 3)


@dataclass(frozen=True)
class Recorded:
    """A block of which the median was kept."""

    seconds: np.ndarray
    disturbance: Disturbance
    process: int
    loops: int = 1


def read_members(heats: Sequence[pd.DataFrame]) -> list[Member]:
    """Return the members of a run whose sessions are these heats."""
    members: dict[str, Member] = {}
    begun = 0
    for session, heat in enumerate(heats):
        for number, row in enumerate(heat.itertuples()):
            member = members.setdefault(row.member, Member(row.member, never))
            samples = Recorded(np.array([row.median_s]), Disturbance(row.cause), row.process)
            place = (begun + row.round, number, 0, row.begun_s)
            member.blocks.append(TimedBlock(*place, samples, session))
        begun += int(heat["round"].max()) + 1
    return list(members.values())


def make_seat(member: Member, workload: str, operators: str) -> Seat:
    """Return the seat of a recorded member."""
    cell = Cell(workload, member.name, "cpu", 1, 8, "eager", 0)
    record = Record("recorded", cell, "measured").under(operators=operators)
    return Seat(cell, member.name, record, member=member)


def read_runs(blocks: pd.DataFrame, sessions: int, kept: Path) -> Iterator[TimedHeat]:
    """Yield runs of so many sessions that followed each other, in their order.

    kept: the file of what earlier ones have shown.
    """
    workload = str(blocks["workload"].iloc[0])
    operators = dict(zip(blocks["member"], blocks["operators"], strict=True))
    heats = [heat for _, heat in blocks.groupby("begun_s")]
    for start in range(0, len(heats) - sessions + 1, sessions):
        members = read_members(heats[start : start + sessions])
        seats = [make_seat(member, workload, operators[member.name])
                 for member in members if member.name != CONTROL]  # fmt: skip
        (control,) = (member for member in members if member.name == CONTROL)
        company = name_company(seats)
        between = read_between(kept, company)
        timed = TimedHeat(str(start), seats, control, 2, 0.0, float("nan"), between)
        yield timed
        note_between(kept, company, timed)


def tell(timed: TimedHeat) -> Iterator[dict[str, object]]:
    """Yield what a run tells of each cell: its latency, and its ratio to the baseline."""
    (baseline,) = (seat for seat in timed.seats if seat.cell.technique == BASELINE)
    for seat in timed.seats:
        assert seat.member is not None and baseline.member is not None
        latency = timed.latencies[seat.member.name]
        told = {"technique": seat.cell.technique, "run": int(timed.name),
                "sessions": len(seat.member.processes_by_session())}  # fmt: skip
        yield told | {"what": "latency", **vars(latency), "p_value": float("nan")}
        if seat is not baseline:
            found = timed.compare(seat, baseline)
            yield told | {"what": "ratio", **vars(found.estimate), "p_value": found.p_value}


def judge(told: pd.DataFrame) -> pd.DataFrame:
    """Return what runs tell, each with the truth: the median of what the others tell."""
    truths = [
        told[(told["technique"] == row.technique) & (told["what"] == row.what)
             & (told["run"] != row.run)]["value"].median()
        for row in told.itertuples()
    ]  # fmt: skip
    truth = np.array(truths)
    covered = (told["low"] <= truth) & (truth <= told["high"])
    off = np.log(told["value"] / truth)
    half = (np.log(told["high"]) - np.log(told["low"])) / 2
    return told.assign(covered=covered, off=off, half=half)


@pytest.fixture(scope="module")
def repeats(tmp_path_factory: pytest.TempPathFactory) -> pd.DataFrame:
    """What runs of one and of three sessions tell of all workloads, of a machine that was new."""
    found, folder = [], tmp_path_factory.mktemp("sessions")
    for path in FILES:
        blocks = pd.read_parquet(path)
        by_count = {
            count: pd.DataFrame(
                row
                for timed in read_runs(blocks, count, folder / str(count))
                for row in tell(timed)
            )
            for count in SESSIONS
        }
        found += [judge(told).assign(workload=path.stem) for told in by_count.values()]
    return pd.concat(found, ignore_index=True)


def test_there_are_at_least_300_heats_of_three_workloads() -> None:
    heats = [pd.read_parquet(path)[["begun_s", "loaded"]].drop_duplicates() for path in FILES]
    assert len(heats) == 3
    assert sum(map(len, heats)) >= 300
    assert all(one["loaded"].mean() == 0.5 for one in heats)


@pytest.mark.slow
@pytest.mark.parametrize("what", ["ratio", "latency"])
@pytest.mark.parametrize("sessions", SESSIONS)
def test_an_interval_holds_for_the_other_sessions_as_often_as_it_says(
    repeats: pd.DataFrame, what: str, sessions: int
) -> None:
    chosen = repeats[(repeats["what"] == what) & (repeats["sessions"] == sessions)]
    by_cell = chosen.groupby(["workload", "technique"]).agg(
        {"covered": "mean", "off": ["std", "size"], "half": "median"}
    )
    print(f"\n{by_cell.round(4).to_string()}\n{chosen['covered'].mean():.1%} of {len(chosen)}")
    assert chosen["covered"].mean() >= 0.93
    assert (chosen.groupby("workload")["covered"].mean() >= 0.88).all(), "nor of one of them"
    # Of runs of a single session nothing is learnt: what is usual is more than this machine's.
    assert sessions == 1 or chosen["covered"].mean() <= 0.97


@pytest.mark.slow
def test_the_order_that_is_told_of_two_cells_is_right_as_often_as_it_says(
    tmp_path: Path,
) -> None:
    """Cells are shifted against each other, as much as makes their order doubtful in a third."""
    generator, told = np.random.default_rng(8), []
    for path in FILES:
        runs = [*read_runs(pd.read_parquet(path), 3, tmp_path / "known")]
        looks = [look_at(timed) for timed in runs]
        latencies = np.log([look.cells["latency_s"].to_numpy() for look in looks])
        for number, look in enumerate(looks):
            others = np.delete(latencies, number, axis=0)
            drawn = np.log(Noise(look.rounds).draw(look.cells, METRICS[0]))
            for one, other in combinations(range(len(look.cells)), 2):
                truth = float(np.median(others[:, one] - others[:, other]))
                spread = float(np.std(others[:, one] - others[:, other]))
                for shift in 3 * spread * generator.standard_normal(10):
                    slower = (drawn[one] - drawn[other] - truth + shift > 0).mean()
                    told.append((slower, shift > 0))
    table = pd.DataFrame(told, columns=["told", "right"])
    table["bin"] = (table["told"] * 5).clip(upper=4.999).astype(int)
    bins = table.groupby("bin").agg({"told": "mean", "right": ["mean", "size"]})
    print(f"\n{bins.round(3).to_string()}")
    # Told a little too near to a half: these runs differ by less than is usual, and few tell it.
    assert (bins["told", "mean"] - bins["right", "mean"]).abs().max() < 0.08
    sure = table[(table["told"] > 0.95) | (table["told"] < 0.05)]
    assert ((sure["told"] > 0.5) == sure["right"]).mean() > 0.93


def cut(timed: TimedHeat, ends: Mapping[str, int]) -> TimedHeat:
    """Return a run as if each member had left after a round; the control with the last of them."""

    def end(member: Member, last: int) -> Member:
        blocks = [block for block in member.blocks if block.round < last]
        return Member(member.name, never, blocks=blocks)

    seats = [replace(seat, member=end(seat.member, ends[seat.member.name])) for seat in timed.seats
             if seat.member is not None]  # fmt: skip
    return replace(timed, seats=seats, control=end(timed.control, max(ends.values())))


def end_early(timed: TimedHeat) -> tuple[dict[str, int], dict[str, str]]:
    """Return after how many rounds each cell leaves, and what is known of it then."""
    sessions = find_rounds_sessions(timed.members)
    names = [seat.member.name for seat in timed.seats if seat.member]
    ends, answer, next_look = dict.fromkeys(names, 0), dict.fromkeys(names, "open"), 10
    for rounds in range(1, len(sessions) + 1):
        going = [name for name in names if name == BASELINE or answer[name] == "open"]
        ends |= dict.fromkeys(going, rounds)
        session_ends = sessions.get(rounds) != sessions[rounds - 1]
        if rounds < next_look and not session_ends:
            continue
        next_look = rounds + ceil(GROWTH * rounds)
        left = frozenset(seat.cell.id for seat in timed.seats if seat.member.name not in going)
        found = decide_look(replace(look_at(cut(timed, ends)), left=left), 0.01)
        by_name = {seat.cell.id: seat.cell.technique for seat in timed.seats}
        answer |= {by_name[cell]: one for cell, one in found.items() if by_name[cell] in going}
        if "open" not in answer.values():
            break
    return ends, answer


@pytest.mark.slow
@pytest.mark.longest
def test_a_run_that_ends_early_has_the_answer_of_the_whole_one(tmp_path: Path) -> None:
    """With accuracies that are drawn: a thousand examples, nine of ten answered right or so."""
    generator, shares, same, exactly, covered = np.random.default_rng(9), [], [], [], []
    for path in FILES:
        runs = [*read_runs(pd.read_parquet(path), 3, tmp_path / "known")]
        ratios = pd.DataFrame(row for timed in runs for row in tell(timed))
        truths = ratios[ratios["what"] == "ratio"].groupby("technique")["value"].median()
        for timed in runs[::3]:
            for seat, share in zip(timed.seats, generator.uniform(0.85, 0.95, 4), strict=True):
                seat.right = generator.random(1000) < share
                seat.record = seat.record.measured(accuracy=float(seat.right.mean()))
            ends, answer = end_early(timed)
            shares.append(sum(ends.values()) / 4 / len(find_rounds_sessions(timed.members)))
            whole = decide_cells_at_the_end(timed)
            opposite = {("member", "dominated"), ("dominated", "member")}
            exactly += [answer[name] == whole[name] for name in answer]
            same.append(not {(answer[name], whole[name]) for name in answer} & opposite)
            for row in tell(cut(timed, ends)):
                if row["what"] == "ratio":
                    covered.append(row["low"] <= truths[row["technique"]] <= row["high"])
    print(
        f"\nblocks: {np.median(shares):.0%} in the median, {np.mean(shares):.0%} in the mean; "
        f"never the opposite in {sum(same)} of {len(same)}, {np.mean(exactly):.0%} of cells in "
        f"the same word; {np.mean(covered):.1%} of {len(covered)} covered"
    )
    assert np.mean(same) >= 0.95
    assert np.median(shares) <= 1 / 3
    assert np.mean(covered) >= 0.93


def decide_cells_at_the_end(timed: TimedHeat) -> dict[str, str]:
    """Return what is known of each cell after all rounds, as at the end: in 95 % of the draws."""
    look = look_at(timed)
    found = decide_cells(look.cells, Noise(look.rounds, look.answers), 0.01, 0.05)
    return {seat.cell.technique: found[seat.cell.id] for seat in timed.seats}
