"""Rounds taken apart: what each cell takes on one machine, whichever rounds it was clean in."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.rounds import ONE_PROCESS, find_latencies, find_process_spread, polish
from harness.stats import Estimate, Floats

ROUNDS = 120
FAST, SLOW = 1.0, 1.5
"""A machine that is faster in the first half of a heat than in the second."""


def test_a_table_of_sums_is_taken_apart_though_values_are_unknown() -> None:
    generator = np.random.default_rng(0)
    rows, columns = generator.standard_normal(5), generator.standard_normal(40)
    columns -= np.median(columns)
    table = rows[:, None] + columns
    table[generator.random(table.shape) < 0.4] = np.nan
    table[0, 10:] = np.nan  # one has the first quarter only
    table[4] = rows[4] + columns  # and one has all
    own, shared = polish(table)
    assert own == pytest.approx(rows, abs=1e-3)
    assert shared == pytest.approx(columns, abs=1e-3)


@pytest.mark.parametrize("rows", [1, 2, 3, 12])
def test_a_table_without_noise_is_taken_apart_and_stays_finite(rows: int) -> None:
    table = np.log(np.arange(1.0, rows + 1))[:, None] + np.zeros((rows, 20))
    own, shared = polish(table + 0.1)
    assert own == pytest.approx(np.log(np.arange(1.0, rows + 1)) + 0.1)
    assert shared == pytest.approx(np.zeros(20))


@pytest.mark.parametrize("rows", [2, 3, 5, 12])
def test_what_is_left_of_a_row_is_noise_however_few_rows_there_are(rows: int) -> None:
    """With medians for what rows share, the middle one of three has nothing left in most rounds."""
    generator = np.random.default_rng(4)
    table = generator.standard_normal((rows, 400)) + np.arange(rows)[:, None]
    own, shared = polish(table)
    rest = table - own[:, None] - shared
    assert np.mean(np.abs(rest) < 0.01) < 0.05
    assert rest.std(1) == pytest.approx(np.full(rows, np.sqrt(1 - 1 / rows)), rel=0.15)


@pytest.mark.parametrize(("rows", "gaps"), [(4, False), (6, False), (4, True), (6, True)])
def test_a_wild_block_moves_no_round(rows: int, gaps: bool) -> None:
    table = make_table(rows, gaps)
    _, calm = polish(table)
    table[0, ::3] += 5
    _, shared = polish(table)
    assert np.abs(shared - calm).max() < 0.03


@pytest.mark.parametrize("gaps", [False, True])
@pytest.mark.parametrize("rows", [2, 3, 4, 6])
def test_wild_blocks_move_no_headline(rows: int, gaps: bool) -> None:
    table = make_table(rows, gaps)
    ratios = []
    for wild in (0.0, 5.0):
        table[0, ::4] += wild
        found = find_latencies(
            {
                str(place): {n: float(np.exp(row[n])) for n in np.flatnonzero(np.isfinite(row))}
                for place, row in enumerate(table)
            }
        )
        ratios.append(found["0"].value / found[str(rows - 1)].value)
    assert ratios[1] == pytest.approx(ratios[0], rel=0.03)


def make_table(rows: int, gaps: bool) -> Floats:
    """Return logarithms with a noise of 1 %, of a machine that slows down if there are `gaps`."""
    table = 0.01 * np.random.default_rng(5).standard_normal((rows, 60))
    if gaps:
        table[:, 45:] += 0.4
        table[-1, :45] = np.nan
    return table


Series = dict[str, list[float]]


def make_medians(generator: np.random.Generator, true_s: dict[str, float]) -> Series:
    speed = np.where(np.arange(ROUNDS) < ROUNDS / 2, FAST, SLOW)
    noise = {name: np.exp(0.03 * generator.standard_normal(ROUNDS)) for name in true_s}
    return {name: list(seconds * speed * noise[name]) for name, seconds in true_s.items()}


def test_cells_that_were_clean_while_the_machine_differed_compare_as_they_are() -> None:
    true_s = {"early": 1e-3, "late": 2e-3, "control": 1e-4}
    medians = make_medians(np.random.default_rng(1), true_s)
    half = ROUNDS // 2
    clean = {"early": range(half), "late": range(half, ROUNDS), "control": range(ROUNDS)}
    kept = {name: {n: medians[name][n] for n in rounds} for name, rounds in clean.items()}
    found = find_latencies(kept)
    assert found["late"].value / found["early"].value == pytest.approx(2.0, rel=0.02)
    plain = {name: np.median(list(rounds.values())) for name, rounds in kept.items()}
    assert plain["late"] / plain["early"] > 2.5, "medians over one's own rounds would not"


@pytest.mark.parametrize("every", [1, 2, 3, 10])
def test_they_do_however_few_rounds_tie_them(every: int) -> None:
    """Most rounds are of one cell alone; those tell nothing, and must not hold it where it is."""
    medians = make_medians(np.random.default_rng(1), {"early": 1e-3, "late": 2e-3, "tie": 1e-4})
    half = ROUNDS // 2
    clean = {"early": range(half), "late": range(half, ROUNDS), "tie": range(0, ROUNDS, every)}
    found = find_latencies({name: {n: medians[name][n] for n in clean[name]} for name in clean})
    error = 1.5 * 0.03 * np.sqrt(4 * every / half)
    assert found["late"].value / found["early"].value == pytest.approx(2.0, rel=2.5 * error)


@pytest.mark.parametrize("noise", [0.0, 0.001, 0.01, 0.1])
@pytest.mark.parametrize(
    ("early", "late", "both"), [(10, 0, 2), (2, 0, 10), (15, 15, 1), (30, 30, 2), (1, 1, 1)]
)
def test_they_do_however_many_left_or_came(early: int, late: int, both: int, noise: float) -> None:
    """The quieter the rest of a heat, the more a change of the machine looks like wild blocks."""
    generator = np.random.default_rng(7)
    cells, part = early + late + both, 40
    speed = np.where(np.arange(ROUNDS) < part, 1.2, 0.0)
    table = speed + noise * generator.standard_normal((cells, ROUNDS))
    table[:early, part:] = np.nan
    table[early : early + late, :part] = np.nan
    own, shared = polish(table)
    assert np.ptp(own) < 8 * noise / np.sqrt(part) * np.sqrt(2) + 1e-4
    assert shared - shared[-1] == pytest.approx(speed, abs=5 * noise + 1e-4)


def test_what_nothing_ties_keeps_its_own_median() -> None:
    generator = np.random.default_rng(8)
    logs = 0.01 * generator.standard_normal((4, 60))
    logs[:2, 30:], logs[2:, :30] = np.nan, np.nan
    own, shared = polish(logs + np.array([0.0, 1, 5, 6])[:, None])
    assert own - own[0] == pytest.approx([0, 1, 5, 6], abs=0.02)
    assert np.abs(shared).max() < 0.05


def test_a_cell_whose_rounds_are_all_its_own_has_them() -> None:
    values = np.exp(0.1 * np.random.default_rng(9).standard_normal(20))
    found = find_latencies({"a": dict(enumerate(values[:8])), "b": dict(enumerate(values[8:], 8))})
    assert found["a"].value == pytest.approx(np.median(values[:8]), rel=1e-6)
    assert found["a"].low < found["a"].value < found["a"].high


def test_a_cell_that_was_always_clean_has_its_median() -> None:
    medians = make_medians(np.random.default_rng(2), {"a": 1e-3})
    found = find_latencies({"a": dict(enumerate(medians["a"])), "never timed": {}})
    assert set(found) == {"a"}
    assert found["a"].value == pytest.approx(float(np.median(medians["a"])), rel=0.01)


def find_coverage(heats: int, rounds: int, cells: int, common: float, own: float) -> float:
    """Return how often a cell's interval holds its truth; 70 % of its blocks are clean."""
    generator, covered = np.random.default_rng(3), 0
    for _ in range(heats):
        speed = np.exp(common * generator.standard_normal(rounds))
        noise = np.exp(own * generator.standard_normal((cells, rounds)))
        clean = generator.random((cells, rounds)) < 0.7
        medians = {
            str(row): {n: 1e-3 * speed[n] * noise[row, n] for n in np.flatnonzero(clean[row])}
            for row in range(cells)
        }
        one = find_latencies(medians)["0"]
        covered += one.low <= 1e-3 <= one.high
    return covered / heats


@pytest.mark.slow
def test_the_interval_covers_what_the_cell_takes_on_the_median_machine() -> None:
    assert 0.92 <= find_coverage(400, rounds=30, cells=4, common=0.1, own=0.05) <= 0.99


@pytest.mark.slow
@pytest.mark.parametrize("rounds", [30, 60])
@pytest.mark.parametrize("cells", [2, 3, 4, 8])
@pytest.mark.parametrize(("common", "own"), [(0.1, 0.05), (0.03, 0.1)])
def test_the_interval_covers_it_in_small_heats_and_where_cells_share_little(
    rounds: int, cells: int, common: float, own: float
) -> None:
    assert 0.9 <= find_coverage(200, rounds, cells, common, own) <= 0.995


def test_with_too_few_rounds_there_is_a_latency_and_no_interval() -> None:
    found = find_latencies({"a": {0: 1e-3, 1: 2e-3}})
    assert 1e-3 <= found["a"].value <= 2e-3
    assert np.isnan(found["a"].low)


def make_processes(
    generator: np.random.Generator, spread: float, cells: int = 12, processes: int = 2
) -> tuple[dict[str, dict[int, float]], dict[str, dict[int, int]]]:
    """Return a heat in which each process is off by its own as long as it lives."""
    speed = np.exp(0.1 * generator.standard_normal(ROUNDS))
    noise = np.exp(0.02 * generator.standard_normal((cells, ROUNDS)))
    own = np.exp(spread * generator.standard_normal((cells, processes)))
    turns = [
        np.concatenate([generator.permutation(processes) for _ in range(ROUNDS // processes)])
        for _ in range(cells)
    ]
    medians = {
        str(cell): dict(enumerate(1e-3 * speed * noise[cell] * own[cell, turn]))
        for cell, turn in enumerate(turns)
    }
    return medians, {str(cell): dict(enumerate(turn)) for cell, turn in enumerate(turns)}


def test_what_processes_are_apart_is_found_in_the_heat() -> None:
    generator = np.random.default_rng(4)
    found = [find_process_spread(*make_processes(generator, 0.02), {}) for _ in range(100)]
    assert np.sqrt(np.mean(np.square(found))) == pytest.approx(0.02 * np.sqrt(12 / 22), rel=0.1)


def test_what_earlier_heats_showed_is_the_least() -> None:
    generator = np.random.default_rng(5)
    found = [find_process_spread(*make_processes(generator, 0.0), {}) for _ in range(50)]
    assert min(found) >= ONE_PROCESS
    assert np.median(found) == pytest.approx(ONE_PROCESS)
    alone, _ = make_processes(generator, 0.02, processes=1)
    one = {name: dict.fromkeys(rounds, 1) for name, rounds in alone.items()}
    assert find_process_spread(alone, one, {}) == ONE_PROCESS


def test_what_sessions_differ_by_is_not_taken_for_what_processes_do() -> None:
    generator = np.random.default_rng(6)
    medians, turns = make_processes(generator, 0.0)
    sessions = {number: number // (ROUNDS // 3) for number in range(ROUNDS)}
    processes, apart = {}, 0.05 * generator.standard_normal((len(medians), 4))
    for cell, rounds in enumerate(medians.values()):
        for number in rounds:
            rounds[number] *= float(np.exp(apart[cell, sessions[number]]))
    for name, taken in turns.items():
        processes[name] = {number: one + 10 * sessions[number] for number, one in taken.items()}
    assert find_process_spread(medians, processes, sessions) == pytest.approx(ONE_PROCESS, rel=0.5)
    assert find_process_spread(medians, processes, {}) > 4 * ONE_PROCESS


@given(st.floats(0.3, 3.0), st.floats(0.3, 3.0))
def test_an_interval_over_sessions_is_as_wide_whatever_sessions_differ_by(
    first: float, second: float
) -> None:
    """Or no session would end before its time where the machine is not as fast in all of them."""
    generator = np.random.default_rng(13)
    logs = 0.02 * generator.standard_normal((3, 60))
    sessions = {number: number // 20 for number in range(60)}
    levels = np.log([1.0, first, second])

    def find(levels: Floats) -> dict[str, Estimate]:
        apart = logs + np.repeat(levels, 20)
        return find_latencies(
            {str(row): dict(enumerate(np.exp(one))) for row, one in enumerate(apart)}, sessions
        )

    alike, unlike = find(np.zeros(3)), find(levels)
    for name, one in unlike.items():
        assert one.value == pytest.approx(alike[name].value * np.exp(levels.mean()), rel=0.01)
        assert one.relative_half_width == pytest.approx(alike[name].relative_half_width, rel=0.1)


@pytest.mark.parametrize("sizes", [(20, 20, 20), (300, 10, 10), (10, 40)])
@pytest.mark.parametrize("shared", [0.0, 0.05])
def test_an_interval_over_sessions_holds_though_some_are_short(
    sizes: tuple[int, ...], shared: float
) -> None:
    """For what the sessions' medians would be the mean of if they had no end."""
    generator, covered = np.random.default_rng(17), 0
    sessions = dict(enumerate(np.repeat(np.arange(len(sizes)), sizes).tolist()))
    for _ in range(300):
        logs = 0.02 * generator.standard_normal((3, sum(sizes)))
        logs += shared * generator.standard_normal(sum(sizes))
        medians = {str(row): dict(enumerate(np.exp(one))) for row, one in enumerate(logs)}
        one = find_latencies(medians, sessions)["0"]
        covered += one.low <= 1 <= one.high
    assert 0.9 <= covered / 300 <= 0.99
