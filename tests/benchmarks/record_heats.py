"""Record heats in which the same cell runs twice: the truth is a ratio of 1.

    python tests/benchmarks/record_heats.py tests/data/same_cell_twice.parquet

About 15 minutes on two quiet cores. Half of the heats run beside a busy neighbour; the workloads
take turns. `tests/harness/test_recorded_heats.py` asks of the file how often a difference is found
where there is none.
"""

import sys
from collections.abc import Iterator
from contextlib import ExitStack, nullcontext
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from copies import busy_neighbour, prepare, time_copies

from harness.sweep.heat import Member, Stop
from harness.sweep.launcher import Launcher

HEATS = 320
ROUNDS = 30
STOP = Stop(0.0, float("inf"), ROUNDS, ROUNDS)
WORKLOADS = (
    ("digits-mlp", 1),
    ("mnist1d-cnn", 1),
    ("mnist1d-cnn", 64),
    ("mnist1d-transformer", 1),
    ("digits-mlp", 64),
)
SETTINGS = (  # threads, wait policy, loaded
    (1, "active", False),
    (1, "active", True),
    (2, "active", False),
    (2, "passive", True),
)


def main(target: Path) -> None:
    """Record all heats and write their blocks."""
    rows: list[dict[str, Any]] = []
    with ExitStack() as stack:
        launchers = {name: stack.enter_context(Launcher(name)) for name in ("active", "passive")}
        for launcher in launchers.values():
            launcher.preload_training()
        variants = {model: prepare(launchers["active"], model) for model, _ in WORKLOADS}
        for heat in range(HEATS):
            model, batch = WORKLOADS[heat // len(SETTINGS) % len(WORKLOADS)]
            threads, policy, loaded = SETTINGS[heat % len(SETTINGS)]
            with busy_neighbour() if loaded else nullcontext():
                members = time_copies(
                    launchers[policy], variants[model], batch, STOP, heat, threads, policy
                )
            facts = {"heat": heat, "workload": f"{model}/{batch}", "threads": threads,
                     "wait_policy": policy, "loaded": loaded}  # fmt: skip
            for copy, member in enumerate(members):
                rows += [facts | {"copy": copy} | row for row in blocks_of(member)]
            sys.stderr.write(f"\r{heat + 1}/{HEATS}")
    pq.write_table(pa.Table.from_pylist(rows), target, compression="zstd")


def blocks_of(member: Member) -> Iterator[dict[str, Any]]:
    """Yield what the statistics need of each block."""
    for block in member.blocks:
        found = block.samples.disturbance
        yield {
            "round": block.round,
            "position": block.position,
            "median_s": block.median_s,
            "cause": found.cause,
            "lost_s": found.lost_s,
            "others": found.others,
        }


if __name__ == "__main__":
    main(Path(sys.argv[1]))
