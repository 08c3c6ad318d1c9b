"""Record repeats of heats whose cells are not alike, so that it can be told what repeats differ by.

    python tests/benchmarks/record_repeats.py mlp repeats.parquet

Several fork servers are alive at once, and in every turn each of them serves one heat, in a
shuffled order: what belongs to a server and what belongs to a time can be told apart. Every other
turn is beside a busy neighbour. `tests/benchmarks/variances.py` makes a table of the file.
"""

from __future__ import annotations

import argparse
import random
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, nullcontext
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from copies import BLOCK_S, TIMEOUT_S, busy_neighbour
from unlike import BATCH, WORKLOADS

from harness.grid import Cell
from harness.grid_file import parse_grid
from harness.sweep.heat import CONTROL, Member, Stop, run_heat
from harness.sweep.imports import NOTHING, Imports
from harness.sweep.launcher import Launcher
from harness.sweep.plan import imports_of, resolve
from harness.sweep.remote import Worker, alternate
from harness.sweep.variants import prepare_variant

MODELS = Path(__file__).with_name("unlike.py")
WHERE = "the benchmark"
TEXT = pa.dictionary(pa.int32(), pa.string())
SCHEMA = pa.schema([
    ("workload", TEXT), ("turn", pa.int8()), ("server", pa.int8()), ("loaded", pa.bool_()),
    ("begun_s", pa.float32()), ("member", TEXT), ("operators", TEXT), ("round", pa.int16()),
    ("process", pa.int32()), ("median_s", pa.float32()), ("cause", TEXT),
])  # fmt: skip
"""Of the file, which is kept small."""


def prepare_cells(launcher: Launcher, workload: str) -> list[tuple[Cell, str, Imports]]:
    """Return the cells of a workload, each with its variant and what its workers import."""
    axes = {"models": [f"{MODELS}:{workload}"], "techniques": [*WORKLOADS[workload]],
            "batch": [BATCH]}  # fmt: skip
    plan = resolve(parse_grid({"grid": axes}, WHERE), launcher, WHERE)
    found = []
    for cell in plan.grid.expand():
        imports = imports_of(plan.grid, cell)
        with launcher.worker(imports) as worker:
            found.append((cell, prepare_variant(worker, plan, cell, WHERE)["variant"], imports))
    return found


def read_operators(launcher: Launcher, cell: Cell, variant: str, imports: Imports) -> str:
    """Return the share of a cell's work in each kind of operator, as the store has it."""
    with launcher.worker(imports) as worker:
        loaded = worker.call("load", TIMEOUT_S, variant=variant, cold=True, **settings_of(cell))
    return str(loaded["conditions"]["operators"])


def settings_of(cell: Cell) -> dict[str, Any]:
    """Return how a cell is loaded."""
    return {"device": "cpu", "threads": 1, "pin": True, "runtime": "eager", "batch": cell.batch,
            "wait_policy": "active", "flush_cache": False}  # fmt: skip


def time_cells(
    launcher: Launcher, cells: Sequence[tuple[Cell, str, Imports]], seconds: float, seed: int,
    processes: int,
) -> list[Member]:  # fmt: skip
    """Return the cells and the control, timed in one heat, each in fresh processes of a server."""
    order = random.Random(seed)
    with ExitStack() as stack:

        def start(imports: Imports, operation: str, **request: Any) -> list[Worker]:
            started = []
            for _ in range(processes):
                worker = stack.enter_context(launcher.worker(imports))
                worker.call(operation, TIMEOUT_S, **request)
                worker.pause()
                started.append(worker)
            return started

        members = []
        for cell, variant, imports in cells:
            workers = start(imports, "load", variant=variant, cold=False, **settings_of(cell))
            time_block = alternate(workers, TIMEOUT_S, BLOCK_S, order)
            members.append(Member(cell.technique, time_block, family=cell.model))
        control = start(NOTHING, "load_control", device="cpu", threads=1, pin=True)
        members.append(Member(CONTROL, alternate(control, TIMEOUT_S, BLOCK_S, order)))
        run_heat(members, Stop(0.0, seconds, 1), seed)
    return members


def record(
    workload: str, servers: int, turns: int, seconds: float, processes: int
) -> Iterator[dict[str, Any]]:
    """Yield the blocks of all heats."""
    order = random.Random(0)
    begin = time.monotonic()
    with ExitStack() as stack:
        launchers = [stack.enter_context(Launcher()) for _ in range(servers)]
        cells = prepare_cells(launchers[0], workload)
        operators = {cell.technique: read_operators(launchers[0], cell, *rest)
                     for cell, *rest in cells}  # fmt: skip
        for launcher in launchers:  # a template takes its time when it is first asked for
            with launcher.worker(cells[0][2]):
                pass
        for turn in range(turns):
            loaded = bool(turn % 2)
            with busy_neighbour() if loaded else nullcontext():
                for server in order.sample(range(servers), servers):
                    seed = turn * servers + server
                    facts = {"workload": workload, "turn": turn, "server": server,
                             "loaded": loaded, "begun_s": time.monotonic() - begin}  # fmt: skip
                    members = time_cells(launchers[server], cells, seconds, seed, processes)
                    for member in members:
                        told = facts | {"operators": operators.get(member.name, "")}
                        yield from (told | row for row in blocks_of(member))
                    sys.stderr.write(f"\rturn {turn + 1} of {turns}, {facts['begun_s']:.0f} s ")


def blocks_of(member: Member) -> Iterator[dict[str, Any]]:
    """Yield what the statistics need of each block."""
    for block in member.blocks:
        yield {"member": member.name, "round": block.round, "process": block.samples.process,
               "median_s": block.median_s, "cause": block.samples.disturbance.cause}  # fmt: skip


def main() -> None:
    """Record all heats and write their blocks."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("workload", choices=WORKLOADS)
    parser.add_argument("target", type=Path)
    parser.add_argument("--servers", type=int, default=6)
    parser.add_argument("--turns", type=int, default=8)
    parser.add_argument("--seconds", type=float, default=3.0, help="of each cell in a heat")
    parser.add_argument("--processes", type=int, default=2, help="of each cell in a heat")
    asked = parser.parse_args()
    rows = list(record(asked.workload, asked.servers, asked.turns, asked.seconds, asked.processes))
    table = pa.Table.from_pylist(rows).select(SCHEMA.names).cast(SCHEMA)
    pq.write_table(table, asked.target, compression="zstd", compression_level=19)


if __name__ == "__main__":
    main()
