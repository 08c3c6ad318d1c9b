"""A heat that ends when its answer is known: what that saves, and that it changes no answer.

The cells are those of a real run (`results/techniques-...`): their latencies and accuracies are the
truth here, and sessions, processes, rounds and examples are drawn.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from math import ceil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy.special import ndtri
from simulated import make_frame

from harness.decide.early import OUTSIDE, Order, decide_cells
from harness.decide.frontier import mark_frontier
from harness.decide.noise import Noise
from harness.known import Known
from harness.repeats import Comparison, compare_sessions, pay_for_looks
from harness.rounds import ONE_PROCESS, find_latencies
from harness.stats import Floats
from harness.sweep.look import GROWTH

(RUN,) = (Path(__file__).parents[2] / "results").glob("techniques-*")
SESSIONS, ROUNDS = 3, 100
WHOLE = SESSIONS * ROUNDS
SPEED, KNOWN_SESSIONS = 0.05, 30.0
EXAMPLES = 1_000
OWN = 0.3
"""How much of an answer is chance, beside how difficult the example is for all cells."""
EFFECT = 0.01


@dataclass(frozen=True)
class Heat:
    """What a heat finds if all of its cells are timed to the end.

    logs: cells × rounds. right: cells × examples. truth: the cells' real log-latencies. kinds: of
    their work; who does the same wanders together. apart: by how much others do in a session.
    """

    logs: Floats
    right: NDArray[np.bool_]
    truth: Floats
    kinds: NDArray[np.int64]
    apart: float

    def decide(self, known: Floats, outside: float, left: Sequence[str] = ()) -> dict[int, str]:
        """Return what is known by some of its values; the others are NaN."""
        cells, numbers = np.nonzero(np.isfinite(known))
        rounds = pd.DataFrame({
            "cell_id": [f"c{cell}" for cell in cells], "heat": "h", "session": numbers // ROUNDS,
            "round": numbers, "log_s": known[cells, numbers],
        })  # fmt: skip
        medians = {
            f"c{cell}": dict(enumerate(np.exp(row[np.isfinite(row)])))
            for cell, row in enumerate(known)
        }
        latencies = find_latencies(medians, {number: number // ROUNDS for number in range(WHOLE)})
        frame = make_frame([
            {"latency_s": latencies[f"c{cell}"].value, "accuracy": self.right[cell].mean(),
             "processes": 2.0 * len(np.unique(numbers[cells == cell] // ROUNDS)),
             "process_spread": ONE_PROCESS, "work_spread": self.apart, "speed_spread": SPEED,
             "known_sessions": KNOWN_SESSIONS,
             "operators": json.dumps({f"mm {self.kinds[cell]}": 1.0})}
            for cell in range(len(known))
        ])  # fmt: skip
        answers = {f"c{cell}": right for cell, right in enumerate(self.right)}
        noise = Noise(rounds, answers)
        found = decide_cells(frame.cells, noise, EFFECT, outside, left)
        return {int(name[1:]): decision for name, decision in found.items()}

    def compare(self, known: Floats, cell: int) -> Comparison:
        """Return the ratio of a cell to the first, by what is known of both."""
        ratios = known[cell] - known[0]
        turns = np.arange(WHOLE) // ROUNDS
        sessions = [ratios[(turns == one) & np.isfinite(ratios)] for one in range(SESSIONS)]
        sessions = [one for one in sessions if one.size]
        alike = self.kinds[cell] == self.kinds[0]
        between = Known(0.0 if alike else self.apart**2, KNOWN_SESSIONS)
        return compare_sessions(sessions, [ONE_PROCESS] * len(sessions), between)


def read_cells() -> list[pd.DataFrame]:
    """Return the cells of each model, the baseline first."""
    cells = pd.read_parquet(RUN / "cells.parquet")
    usable = cells[(cells["status"] == "measured") & cells["accuracy"].notna()]
    usable = usable[(usable["seed"] == 0) & usable["task"].isin(["mnist1d", "digits"])]
    usable = usable[usable["model"].isin(["mnist1d-cnn", "digits-mlp"])]
    by_model = (rows for _, rows in usable.groupby("model"))
    return [rows.sort_values("technique", key=lambda name: name != "baseline") for rows in by_model]


def make_heat(
    generator: np.random.Generator, rows: pd.DataFrame, cells: int, noise: float, apart: float
) -> Heat:
    """Return a heat of a baseline and others, in sessions that move each against the others."""
    chosen = 1 + generator.choice(len(rows) - 1, cells - 1, replace=False)
    picked = rows.iloc[[0, *chosen]]
    alike = picked["realization"].isin(["simulated", ""]).to_numpy()
    kinds = np.where(alike, 0, np.arange(cells))
    truth = np.where(kinds == 0, 0.0, np.log(picked["latency_ratio"].fillna(1.0).to_numpy()))
    work = (apart / np.sqrt(2) * generator.standard_normal((cells, SESSIONS)))[kinds]
    speed = SPEED * generator.standard_normal(SESSIONS)
    process = ONE_PROCESS / np.sqrt(2) * generator.standard_normal((cells, SESSIONS))
    logs = truth[:, None] + np.repeat(work + speed + process, ROUNDS, axis=1)
    logs = logs + noise * generator.standard_normal((cells, WHOLE))
    ability = ndtri(picked["accuracy"].clip(0.01, 0.995).to_numpy()) * np.hypot(1, OWN)
    chance = OWN * generator.standard_normal((cells, EXAMPLES))
    right = ability[:, None] + chance > generator.standard_normal(EXAMPLES)
    return Heat(logs, right, truth, kinds, apart)


def time_until_known(heat: Heat) -> tuple[Floats, dict[int, str]]:
    """Return what is timed until the answer is known, and the answer; as `Looks` does it."""
    known, going = np.full_like(heat.logs, np.nan), np.ones(len(heat.logs), dtype=bool)
    answer: dict[int, str] = {}
    next_look = 10
    for rounds in range(1, WHOLE + 1):
        known[going, rounds - 1] = heat.logs[going, rounds - 1]
        if rounds < next_look and rounds % ROUNDS:
            continue
        next_look = rounds + ceil(GROWTH * rounds)
        found = heat.decide(known, OUTSIDE, [f"c{cell}" for cell in np.flatnonzero(~going)])
        answer |= {cell: found[cell] for cell in np.flatnonzero(going)}
        if "open" not in answer.values():
            break
        going &= [cell == 0 or answer[cell] == "open" for cell in range(len(going))]
    return known, answer


@dataclass
class Compared:
    """What heats that end early tell, beside what they tell when all of their time is spent.

    shares: of the blocks that were timed. same: heats in which no place is the opposite; words:
    cells that have the same word. covered, flagged: of ratios, and of those of the same work; and
    with all of the time.
    """

    shares: list[float] = field(default_factory=list)
    same: list[bool] = field(default_factory=list)
    words: list[bool] = field(default_factory=list)
    covered: list[tuple[bool, bool]] = field(default_factory=list)
    flagged: list[tuple[bool, bool]] = field(default_factory=list)

    def add(self, heat: Heat) -> None:
        """Add a heat."""
        known, answer = time_until_known(heat)
        self.shares.append(float(np.isfinite(known).mean()))
        whole = heat.decide(heat.logs, 0.05)
        opposite = {("member", "dominated"), ("dominated", "member")}
        self.same.append(not {(answer[cell], whole[cell]) for cell in answer} & opposite)
        self.words += [answer[cell] == whole[cell] for cell in answer]
        for cell in range(1, len(heat.logs)):
            truth = np.exp(heat.truth[cell] - heat.truth[0])
            found = [heat.compare(logs, cell) for logs in (known, heat.logs)]
            early, late = (one.estimate.low <= truth <= one.estimate.high for one in found)
            self.covered.append((early, late))
            if heat.kinds[cell] == heat.kinds[0]:
                rounds = int(np.isfinite(known[cell]).sum())
                p_value = found[0].p_value
                paid = pay_for_looks(p_value, rounds) if rounds < WHOLE else p_value
                self.flagged.append((paid < 0.01, found[1].p_value < 0.01))

    def __str__(self) -> str:
        covered, late = np.mean(self.covered, axis=0)
        flagged = np.sum(self.flagged, axis=0).tolist() if self.flagged else [0, 0]
        return (
            f"blocks: {np.median(self.shares):.0%} in the median, {np.mean(self.shares):.0%} in "
            f"the mean; never the opposite in {sum(self.same)} of {len(self.same)}, "
            f"{np.mean(self.words):.0%} of cells in the same word; {covered:.1%} of "
            f"{len(self.covered)} covered, {late:.1%} with all the time; {flagged[0]} of "
            f"{len(self.flagged)} of the same work flagged, and {flagged[1]}"
        )


def simulate_heats(heats: int, apart: float, sizes: Sequence[int]) -> Compared:
    """Return what heats of so many cells tell, in turn, whose sessions are apart by so much."""
    generator, models, found = np.random.default_rng(3), read_cells(), Compared()
    for number in range(heats):
        noise, cells = (0.02, 0.05)[number // len(sizes) % 2], sizes[number % len(sizes)]
        found.add(make_heat(generator, models[number % len(models)], cells, noise, apart))
    return found


@pytest.mark.slow
@pytest.mark.longest
@pytest.mark.parametrize("apart", [0.02, 0.005])
def test_an_early_end_saves_two_thirds_and_changes_no_answer(apart: float) -> None:
    """The figures of more heats, by early_heats.py, stand in docs/instrument.md."""
    found = simulate_heats(48, apart, (4, 4, 8))
    print(f"\n{found}")
    assert np.mean(found.same) >= 0.95
    assert np.median(found.shares) <= 1 / 3
    assert 0.91 <= np.mean(found.covered, axis=0)[0] <= 0.99
    assert sum(early for early, _ in found.flagged) <= 0.01 * len(found.flagged) + 2


draws = st.integers(2, 6).flatmap(
    lambda cells: st.tuples(
        st.lists(st.floats(-1, 1), min_size=cells, max_size=cells),
        st.lists(st.integers(0, 3), min_size=cells, max_size=cells),
    )
)


@settings(deadline=None)
@given(draws)
def test_what_is_without_doubt_is_the_frontier_itself(
    values: tuple[list[float], list[int]],
) -> None:
    latencies, qualities = (np.array(one, float)[:, None] for one in values)
    order = Order(np.repeat(latencies, 4, axis=1), qualities, EFFECT, OUTSIDE)
    found = [order.decide(number) == "member" for number in range(len(latencies))]
    marked = mark_frontier(np.hstack([latencies, qualities]), [False, True])
    equal = (np.abs(latencies - latencies.T) == 0) & (qualities != qualities.T)
    if not equal.any():  # latencies that are drawn are never equal
        assert found == marked.tolist()


def decide_two(
    generator: np.random.Generator, behind: float, noise: float, accuracies: tuple[float, float]
) -> list[str]:
    heat = Heat(
        np.array([[0.0], [behind]]) + noise * generator.standard_normal((2, WHOLE)),
        np.array([np.arange(EXAMPLES) < share * EXAMPLES for share in accuracies]),
        np.zeros(2), np.zeros(2, np.int64), 0.0,
    )  # fmt: skip
    return list(heat.decide(heat.logs, OUTSIDE).values())


def test_places_that_are_clear_are_known() -> None:
    generator = np.random.default_rng(0)
    assert decide_two(generator, 0.1, 0.02, (0.9, 0.8)) == ["member", "dominated"]
    assert decide_two(generator, -0.1, 0.02, (0.9, 0.8)) == ["member", "member"]


def test_a_difference_below_the_smallest_effect_is_a_tie() -> None:
    generator = np.random.default_rng(0)
    assert decide_two(generator, 0.0, 0.001, (0.9, 0.9)) == ["tie", "tie"]
    assert decide_two(generator, 0.0, 0.2, (0.9, 0.9)) == ["open", "open"]


def test_rounds_are_not_asked_what_only_more_examples_could_tell() -> None:
    """The slower one is on the frontier if it is really better, however often it is timed."""
    generator = np.random.default_rng(0)
    assert decide_two(generator, 0.1, 0.02, (0.9, 0.905))[1] in ("tie", "member")


def test_who_may_beat_an_open_cell_is_timed_with_it() -> None:
    """The better of two that are as fast is on the frontier whatever the latencies are."""
    generator = np.random.default_rng(0)
    assert decide_two(generator, 0.0, 0.2, (0.9, 0.8)) == ["open", "open"]


@pytest.mark.parametrize("accuracies", [(None, 0.9), (None, None)])
def test_where_qualities_are_unknown_all_stay_open(accuracies: tuple[float | None, ...]) -> None:
    frame = make_frame([{"latency_s": 1.0, "accuracy": accuracy} for accuracy in accuracies])
    noise = Noise(pd.DataFrame(columns=["cell_id", "heat", "session", "round", "log_s"]))
    assert set(decide_cells(frame.cells, noise, EFFECT).values()) == {"open"}


def test_who_has_left_holds_no_other() -> None:
    """Two cells are in doubt, one of which is timed no further; a third of unknown quality is."""
    generator = np.random.default_rng(0)
    rounds = pd.DataFrame([
        {"heat": "h", "cell_id": f"c{cell}", "session": 0, "round": number,
         "log_s": level + 0.1 * generator.standard_normal()}
        for cell, level in enumerate((0.0, 0.0, 2.0)) for number in range(30)
    ])  # fmt: skip
    frame = make_frame(
        [
            {
                "latency_s": level,
                "accuracy": accuracy,
                "processes": 2.0,
                "process_spread": ONE_PROCESS,
            }
            for level, accuracy in ((1.0, 0.9), (1.0, 0.8), (7.4, None))
        ]
    )
    found = [[*decide_cells(frame.cells, Noise(rounds), EFFECT, left=left).values()]
             for left in ((), ("c1",))]  # fmt: skip
    assert found == [["open", "open", "tie"], ["member", "open", "tie"]]


def test_of_no_cells_nothing_is_known() -> None:
    frame = make_frame([{"latency_s": 1.0, "accuracy": 0.5}])
    noise = Noise(pd.DataFrame(columns=["cell_id", "heat", "session", "round", "log_s"]))
    assert decide_cells(frame.cells.iloc[:0], noise, EFFECT) == {}
    assert decide_cells(frame.cells, noise, EFFECT) == {"c0": "open"}
