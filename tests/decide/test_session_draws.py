"""Cells drawn for a repeat: off together where their work is alike, apart where it is not."""

import json

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import t as student_t

from harness.decide.noise import DRAWS, Noise
from harness.decide.sessions import find_doubt
from harness.record import METRICS

LATENCY = METRICS[0]
ROUNDS, RUNS = 30, 0.004
DENSE, OTHER = json.dumps({"mm float32": 1.0}), json.dumps({"mm bfloat16": 1.0})


def make_cells(operators: tuple[str | None, ...], **known: float) -> pd.DataFrame:
    facts = {"work_spread": 0.02, "speed_spread": 0.05, "known_sessions": 1e6,
             "run_spread": RUNS, "known_runs": 1e6, **known}  # fmt: skip
    return pd.DataFrame([
        {"cell_id": f"c{number}", "latency_s": 1.0, "operators": text, "runtime": "eager",
         "technique": f"t{number}" if number else "baseline",
         "processes": 1e9, "process_spread": 0.0, **facts}
        for number, text in enumerate(operators)
    ])  # fmt: skip


def make_rounds(
    generator: np.random.Generator, cells: int, sessions: int, apart: float = 0.0,
    noise: float = 1e-5,
) -> pd.DataFrame:  # fmt: skip
    """Rounds whose sessions are off by so much, each cell's and each session's by its own."""
    off = apart * generator.standard_normal((cells + 1, sessions))
    return pd.concat([
        pd.DataFrame({
            "cell_id": name, "heat": "h", "session": session,
            "round": session * ROUNDS + np.arange(ROUNDS),
            "log_s": off[cell, session] + noise * generator.standard_normal(ROUNDS),
        })
        for cell, name in enumerate([*(f"c{n}" for n in range(cells)), "control-0"])
        for session in range(sessions)
    ], ignore_index=True)  # fmt: skip


def spreads(cells: pd.DataFrame, rounds: pd.DataFrame) -> tuple[float, float]:
    """Return the deviation of the first two cells' ratio over draws, and of the first's latency."""
    drawn = np.log(Noise(rounds).draw(cells, LATENCY, draws=4 * DRAWS))
    return float((drawn[0] - drawn[1]).std()), float(drawn[0].std())


@pytest.mark.parametrize("sessions", [1, 2, 4])
def test_unlike_cells_are_drawn_apart_as_sessions_are(sessions: int) -> None:
    generator = np.random.default_rng(1)
    rounds = make_rounds(generator, 2, sessions)
    ratio, latency = spreads(make_cells((DENSE, OTHER)), rounds)
    apart = np.hypot(0.02 / np.sqrt(sessions), RUNS)
    assert ratio == pytest.approx(apart, rel=0.1)
    assert latency == pytest.approx(np.hypot(0.05, apart / np.sqrt(2)), rel=0.1)


def test_cells_with_the_same_work_are_drawn_together() -> None:
    rounds = make_rounds(np.random.default_rng(2), 2, 2)
    ratio, latency = spreads(make_cells((DENSE, DENSE)), rounds)
    assert ratio < 0.0001
    assert latency > 0.03
    unknown, _ = spreads(make_cells((None, None)), rounds)
    assert unknown == pytest.approx(0.02 / np.sqrt(2), rel=0.1)


@pytest.mark.parametrize("share", [0.05, 0.5, 0.9])
@pytest.mark.parametrize("left_out", [False, True])
def test_cells_that_are_no_baselines_differ_by_what_is_not_the_baselines_doing(
    share: float, left_out: bool
) -> None:
    """A cell with the baseline's work moves with it as far, whether that is there or not."""
    half = json.dumps({"mm float32": 2 / 3, "mm int4": 1 / 3})  # has half in common
    works = (DENSE, OTHER, json.dumps({"mm int8": 1.0}), DENSE, half)
    cells = make_cells(works, reference_share=share, run_spread=0.0, speed_spread=1e-9)
    cells["reference_likeness"] = [np.nan, 0.0, 0.0, 1.0, 0.5]
    rounds = make_rounds(np.random.default_rng(2), 5, 1)
    drawn = np.full((5, 4 * DRAWS), np.nan)
    there = cells[1:] if left_out else cells
    drawn[there.index] = np.log(Noise(rounds).draw(there, LATENCY, draws=4 * DRAWS))
    pairs = ((2, 1), (2, 3), (3, 4), (1, 0), (3, 0), (4, 0))[: 3 if left_out else None]
    off = [(drawn[one] - drawn[other]).std() for one, other in pairs]
    ratios = np.sqrt([2 * (1 - share), 1, 0.5, 1, 0, 0.5])
    assert off == pytest.approx(list(0.02 * ratios[: len(off)]), rel=0.1, abs=1e-4)


@given(st.floats(0.05, 0.95), st.lists(st.floats(0, 1), min_size=6, max_size=6))
def test_cells_of_any_likeness_are_drawn(share: float, alike: list[float]) -> None:
    cells = make_cells((DENSE, OTHER, DENSE, None, OTHER, None), reference_share=share)
    cells["reference_likeness"] = alike
    cells["model"] = [*"aabbcc"]
    drawn = Noise(make_rounds(np.random.default_rng(2), 6, 2)).draw(cells, LATENCY, draws=20)
    assert np.isfinite(drawn).all()


def test_what_sessions_show_counts_beside_what_was_known() -> None:
    """Four cells in eight sessions outweigh what as much as four sessions had told."""
    generator = np.random.default_rng(3)
    works = tuple(json.dumps({f"mm {number}": 1.0}) for number in range(8))
    found = []
    for _ in range(20):
        rounds = make_rounds(generator, 8, 8, apart=0.1)
        cells = make_cells(works, known_sessions=4.0)
        found.append(spreads(cells, rounds)[0])
    assert np.mean(found) == pytest.approx(0.1 * np.sqrt(2) / np.sqrt(8), rel=0.2)


@given(st.data())
def test_whoever_was_there_in_whichever_session_is_drawn(data: st.DataObject) -> None:
    """Sessions of the control alone, cells of one round, cells that were never together."""
    places = [(name, session) for name in ("c0", "c1", "c2", "control-0") for session in range(3)]
    there = data.draw(st.dictionaries(st.sampled_from(places), st.integers(1, ROUNDS), min_size=1))
    rounds = make_rounds(np.random.default_rng(6), 3, 3, noise=0.01)
    kept = [
        rounds[(rounds["cell_id"] == name) & (rounds["session"] == session)].head(count)
        for (name, session), count in there.items()
    ]
    cells = make_cells((DENSE, OTHER, None))
    found = pd.concat(kept, ignore_index=True)
    timed = [name in {cell for cell, _ in there} for name in cells["cell_id"]]
    with np.errstate(all="raise"):
        drawn = Noise(found).draw(cells, LATENCY, draws=20)
    known = np.isfinite(drawn).all(1)
    assert known[~np.array(timed)].all(), "who was not timed has its interval"
    # Without a second round of two cells nothing tells how far rounds are apart.
    tells = Noise(found).heats
    assert known.all() or not any(heat.free for heat in tells)


@pytest.mark.parametrize(("other", "threads"), [("bf16", 1), ("int8", 1), ("bf16", 2)])
def test_seeds_of_the_same_variants_are_off_together(other: str, threads: int) -> None:
    """They are timed by the same servers; other variants, and places, stand for themselves."""
    generator = np.random.default_rng(7)
    heats = [make_rounds(generator, 2, 3).assign(heat=name) for name in ("h", "i")]
    heats[1]["cell_id"] = heats[1]["cell_id"].replace({"c0": "d1", "c1": "d0"})
    tables = [
        make_cells((DENSE, OTHER)).assign(model="m", technique=["baseline", name], threads=count)
        for name, count in (("bf16", 1), (other, threads))
    ]
    tables[1]["cell_id"] = ["d1", "d0"]  # as each seed has ids of its own, in another order
    cells = pd.concat(tables, ignore_index=True)
    drawn = np.log(Noise(pd.concat(heats)).draw(cells, LATENCY, draws=4 * DRAWS))
    alike = np.corrcoef(drawn[1] - drawn[0], drawn[3] - drawn[2])[0, 1]
    assert alike == pytest.approx(float((other, threads) == ("bf16", 1)), abs=0.1)


@pytest.mark.parametrize("counts", [(1, 2, 3), (3, 3, 3), (1, 1, 3)])
def test_seeds_that_had_other_numbers_of_sessions_share_those_that_they_had(
    counts: tuple[int, ...],
) -> None:
    """Each session has one server for all seeds: their mean is as doubtful as what it shares."""
    generator = np.random.default_rng(9)
    rounds, tables = [], []
    for seed, sessions in enumerate(counts):
        names = {f"c{n}": f"s{seed}c{n}" for n in range(2)}
        heat = make_rounds(generator, 2, sessions).assign(heat=f"h{seed}")
        rounds.append(heat.assign(cell_id=heat["cell_id"].replace(names)))
        cells = make_cells((DENSE, OTHER)).assign(technique=["baseline", "bf16"], seed=seed)
        tables.append(cells.assign(cell_id=[*names.values()]))
    drawn = np.log(
        Noise(pd.concat(rounds)).draw(
            pd.concat(tables, ignore_index=True), LATENCY, draws=4 * DRAWS
        )
    )
    mean = np.mean([drawn[2 * one] - drawn[2 * one + 1] for one in range(len(counts))], axis=0)
    shares = [np.mean([(k < n) / n for n in counts]) for k in range(max(counts))]
    truth = np.hypot(0.02 * np.sqrt(np.square(shares).sum()), RUNS)
    assert mean.std() == pytest.approx(truth, rel=0.1)


def test_what_is_known_of_variances_is_drawn_as_it_is_known() -> None:
    """In few sessions the deviation is one of many, in the mean over draws a Student's t."""
    rounds = make_rounds(np.random.default_rng(3), 2, 1)
    drawn = np.log(Noise(rounds).draw(
        make_cells((DENSE, OTHER), known_sessions=4.0, run_spread=0.0), LATENCY, draws=20_000
    ))  # fmt: skip
    off = (drawn[0] - drawn[1] - np.log(1.0)) / 0.02
    off -= np.median(off)
    wanted = student_t(4).ppf([0.025, 0.25, 0.75, 0.975])
    assert np.quantile(off, [0.025, 0.25, 0.75, 0.975]) == pytest.approx(wanted, rel=0.08)


def test_a_noisy_cell_is_not_as_sure_as_its_quiet_neighbours() -> None:
    """In few rounds, too, of which nothing is resampled."""
    generator = np.random.default_rng(8)
    rounds = make_rounds(generator, 9, 1, noise=0.001)
    noisy = rounds["cell_id"] == "c0"
    rounds.loc[noisy, "log_s"] += 0.1 * generator.standard_normal(noisy.sum())
    rounds = rounds[rounds["round"] < 10]
    cells = make_cells((DENSE,) * 9, work_spread=1e-9, speed_spread=1e-9, run_spread=0.0)
    drawn = np.log(Noise(rounds).draw(cells, LATENCY, draws=4 * DRAWS))
    assert (drawn[0] - drawn[1]).std() == pytest.approx(0.1 * np.sqrt(np.pi / 2 / 10), rel=0.6)
    assert (drawn[2] - drawn[1]).std() < 0.02


def test_tables_of_before_sessions_are_drawn_by_their_rounds_alone() -> None:
    cells = make_cells((DENSE, OTHER)).drop(columns=["work_spread", "operators"])
    assert find_doubt(cells) is None
    assert find_doubt(make_cells((DENSE,)).drop(columns=["run_spread", "known_runs"])) is not None
    ratio, latency = spreads(cells, make_rounds(np.random.default_rng(4), 2, 1))
    assert max(ratio, latency) < 0.001


def test_a_cell_that_has_left_is_as_doubtful_as_its_sessions_are_few() -> None:
    rounds = make_rounds(np.random.default_rng(5), 3, 4)
    rounds = rounds[(rounds["cell_id"] != "c0") | (rounds["session"] == 0)]
    cells = make_cells((DENSE, OTHER, json.dumps({"mm float64": 1.0})), speed_spread=1e-6)
    drawn = np.log(Noise(rounds).draw(cells, LATENCY, draws=4 * DRAWS))
    assert drawn[0].std() == pytest.approx(0.02 / np.sqrt(2), rel=0.1)
    assert drawn[1].std() == pytest.approx(0.02 / np.sqrt(2) / 2, rel=0.1)
