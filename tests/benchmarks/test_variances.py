"""The variance table finds what repeats were made of, where that is known."""

from itertools import product

import numpy as np
import pandas as pd
import pytest
from variances import split_variance, tabulate

from harness.grid import BASELINE
from harness.sweep.heat import CONTROL

SERVERS, TURNS, PROCESSES, ROUNDS = 6, 8, 2, 80
KINDS = ("server", "time", "processes", "rounds")


def make_blocks(seed: int, **sd: float) -> pd.DataFrame:
    """Return blocks of a baseline, a control and a cell, whose log-times differ as said.

    sd: of a cell's own by server, time, process and block; of what a round shares.
    """
    generator = np.random.default_rng(seed)
    normal = generator.normal
    cells = (BASELINE, "cell", CONTROL)
    by_server = {key: normal(0, sd["server"]) for key in product(cells, range(SERVERS))}
    by_time = {key: normal(0, sd["time"]) for key in product(cells, range(TURNS))}
    rows = []
    for server, turn in product(range(SERVERS), range(TURNS)):
        shared = normal(0, sd["shared"], ROUNDS)
        for cell in cells:
            own = normal(0, sd["processes"], PROCESSES)
            turns = [generator.permutation(PROCESSES) for _ in range(ROUNDS // PROCESSES)]
            for number, process in enumerate(np.concatenate(turns)):
                log = (by_server[cell, server] + by_time[cell, turn] + own[process]
                       + shared[number] + normal(0, sd["rounds"]))  # fmt: skip
                rows.append({"turn": turn, "server": server, "member": cell, "round": number,
                             "process": process, "median_s": np.exp(log)})  # fmt: skip
    return pd.DataFrame(rows)


@pytest.mark.slow
@pytest.mark.parametrize("large", [*KINDS, None])
def test_what_repeats_differ_by_is_found_whichever_is_largest(large: str | None) -> None:
    sd = {kind: 0.02 if kind == large else 0.005 for kind in KINDS}
    tables = [tabulate(make_blocks(seed, **sd, shared=0.05)).loc["cell"] for seed in range(30)]
    found = np.sqrt(np.mean([table[[*KINDS, "unexplained"]] ** 2 for table in tables], axis=0))
    # Of a ratio, two cells' own; of a heat, the mean over its processes, the median over rounds.
    share = {"server": 2, "time": 2, "processes": 2 / PROCESSES,
             "rounds": 2 * np.pi / 2 / ROUNDS}  # fmt: skip
    for kind, told in zip(KINDS, found, strict=False):
        error = 0.15 if kind == large else 0.3  # what is small is zero at least, beside what is not
        assert told == pytest.approx(100 * sd[kind] * np.sqrt(share[kind]), rel=error, abs=0.1), (
            kind
        )
    assert found[-1] < max(0.35, 0.4 * max(found))


@pytest.mark.parametrize(("servers", "times", "rest"), [(3, 1, 2), (0, 4, 1), (2, 0, 0.5)])
def test_the_variances_of_a_two_way_table_are_right_in_the_mean(
    servers: float, times: float, rest: float
) -> None:
    random = np.random.default_rng(1)
    found = []
    for _ in range(2_000):
        table = (random.normal(0, servers, (SERVERS, 1)) + random.normal(0, times, TURNS)
                 + random.normal(0, rest, (SERVERS, TURNS)))  # fmt: skip
        parts = split_variance(table)
        found.append((parts.servers, parts.turns, parts.rest))
    # Below zero they are zero, which lifts the mean where there is nothing to find.
    assert np.mean(found, 0) == pytest.approx([servers**2, times**2, rest**2], rel=0.05, abs=0.12)
