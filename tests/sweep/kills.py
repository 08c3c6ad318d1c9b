"""Kills: runs that are interrupted at random moments in every way there is, and what must hold.

A scenario is one run in a folder of its own. Signals go to the runner, to its worker server and to
workers, and its disk is filled for a while; it is resumed whenever it has ended. At the end it is
resumed in peace.
"""

from __future__ import annotations

import json
import os
import random
import shlex
import shutil
import signal
import subprocess
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

import pandas as pd
import psutil
import pyarrow as pa

from harness.grid import BASELINE
from harness.runs import open_run
from harness.store import CONTROL_PREFIX, Run
from tests.start import start_command

GRID = """
[grid]
models = ["own.py:small"]
techniques = ["bf16", "int8-dynamic"]
batch = [1, 8]
[budget]
max_seconds_per_cell = 0.6
stop = "budget"
"""
CELLS = 3 * 2
MODELS = """
import torch
from torch import nn
def small():
    return nn.Sequential(nn.Linear(16, 16), nn.ReLU(), nn.Linear(16, 4)), torch.randn(4, 16)
"""
SIGNALS = (signal.SIGKILL, signal.SIGTERM, signal.SIGINT)
TARGETS = {"worker": 0.5, "runner": 0.35, "server": 0.15}
"""What is struck, and how often; at a runner's end there is most that may be lost."""
PATIENCE_S = 120.0
DISK_BYTES = 8 * 2**20


@dataclass
class Scenario:
    """A run and what happened to it. `disk`: a small file system of its own, which may be filled.

    longest_loss_s: the most timing that a kill of the runner in a heat has cost.
    """

    folder: Path
    disk: Path | None
    random: random.Random
    known: Path | None = None
    """What was measured of the machine before: it need not be measured in each scenario."""
    cold: bool = True
    """Python is started for each command, as its user does it; else it is a warm one's fork."""
    did: Counter[str] = field(default_factory=Counter)
    blocks: set[tuple[str, int, str, tuple[float, ...]]] = field(default_factory=set)
    """Heat, number, member and seconds of all that were ever seen on disk."""
    failed: set[str] = field(default_factory=set)
    longest_loss_s: float = 0.0

    @property
    def results(self) -> Path:
        return (self.disk or self.folder) / "results"

    def play(self, kills: int) -> None:
        """Interrupt a run so many times, and check it each time and at the end."""
        (self.folder / "grid.toml").write_text(GRID)
        (self.folder / "own.py").write_text(MODELS)
        if self.known is not None:
            shutil.copytree(self.known, self.folder / "cache" / "roofs")
        runner = self._start("run", "grid.toml")
        self._wait_for(runner, lambda: bool(list(self.results.glob("*/run.json"))))
        for _ in range(kills):
            target = self.random.choices([*TARGETS], [*TARGETS.values()])[0]
            self._wait_for_a_moment(runner, target)
            self._strike(runner, target)
            if runner.poll() is None and self.random.random() < 0.3:
                with suppress(subprocess.TimeoutExpired):
                    runner.wait(2.0)
            self._look()
            if runner.poll() is not None:
                self._see_off(runner)
                runner = self._start("resume", *self.random.choice(([], ["--retry", "failed"])))
        self._end(runner)
        self._check_the_end()

    def _start(self, *arguments: str) -> subprocess.Popen[str]:
        return start_command(
            self.folder, *arguments, "--results", str(self.results), cold=self.cold,
            env={**os.environ, "PARETOGRID_CACHE": str(self.folder / "cache")},
            stdout=subprocess.DEVNULL, start_new_session=True,
        )  # fmt: skip

    def _wait_for(self, runner: subprocess.Popen[str], ready: Callable[[], bool]) -> None:
        deadline = time.monotonic() + PATIENCE_S
        while runner.poll() is None and not ready():
            assert time.monotonic() < deadline, "it stands still"
            time.sleep(0.02)

    def _wait_for_a_moment(self, runner: subprocess.Popen[str], target: str) -> None:
        """Wait at random; half of the time for the middle of a heat. Workers may be loading yet."""
        self._wait_for(runner, lambda: self._find(runner, target) is not None)
        moment = self.random.random()
        if moment < 0.2 and target == "worker":
            return
        if moment < 0.6:
            known = find_sizes(self.results)
            self._wait_for(runner, lambda: find_sizes(self.results) != known)
        deadline = time.monotonic() + self.random.uniform(0, 1.5)
        while runner.poll() is None and time.monotonic() < deadline:
            time.sleep(0.02)

    def _strike(self, runner: subprocess.Popen[str], target: str) -> None:
        """Do one of the things that may befall a run."""
        number = self.random.choice(SIGNALS)
        if self.disk is not None and self.random.random() < 0.15:
            self.did["full disk"] += 1
            self._fill_disk(self.disk)
            return
        found = self._find(runner, target)
        if found is None:  # it has ended already, or not begun
            target, found = "runner", runner.pid
        self.did[f"{number.name} to {target}"] += 1
        loss_s = find_loss_s(runner.pid)
        with suppress(ProcessLookupError):
            os.kill(found, number)
        if target == "runner":
            if self.random.random() < 0.2:  # the impatient, twice
                time.sleep(0.01)
                with suppress(ProcessLookupError):
                    os.kill(found, number)
            runner.wait(PATIENCE_S)
            if number == signal.SIGKILL:
                self.longest_loss_s = max(self.longest_loss_s, loss_s)

    def _find(self, runner: subprocess.Popen[str], target: str) -> int | None:
        if target == "runner":
            return runner.pid if runner.poll() is None else None
        started = find_started(self.folder)
        started.pop(runner.pid, None)
        servers = [pid for pid, parent in started.items() if parent not in started]
        if target == "server":
            return servers[-1] if servers else None
        workers = [pid for pid in started if pid not in servers]
        return self.random.choice(workers) if workers else None

    def _fill_disk(self, disk: Path) -> None:
        """Take all that is left on the disk, for up to a second and a half."""
        with fill(disk):
            time.sleep(self.random.uniform(0.2, 1.5))

    def _look(self) -> None:
        """Remember what is on disk; every file must be whole."""
        journals = read_journals(self.results)
        for row in journals.itertuples():
            self.blocks.add((row.heat, row.block, row.member, tuple(row.seconds)))
        for run in self.results.iterdir():
            json.loads((run / "run.json").read_text())
            for file in [*run.glob("*.parquet"), *run.glob("parts/*.parquet")]:
                with suppress(FileNotFoundError):  # joined meanwhile
                    with file.open(
                        "rb"
                    ) as whole:  # by name, it is opened twice: it may be replaced
                        frame = pd.read_parquet(whole)
                    if file.name.endswith("cells.parquet"):
                        self.failed |= set(frame[frame["status"] == "failed"]["cell_id"])

    def _see_off(self, runner: subprocess.Popen[str]) -> None:
        """Check the words of a runner that ends, and look at what it wrote last."""
        said = runner.communicate()[1]
        # Python itself may be interrupted before it has come to the command.
        assert "Traceback" not in said or "paretogrid.py" not in said, said
        self._look()

    def _end(self, runner: subprocess.Popen[str]) -> None:
        """Let it end by itself; then resume what is left, and what failed."""
        self._see_off(runner)
        again = self._start("resume", "--retry", "failed")
        self._see_off(again)
        assert again.wait() == 0, shlex.join(map(str, again.args))

    def _check_the_end(self) -> None:
        """Every cell is measured, no block was lost, none is there twice."""
        run = open_run(self.results, None)
        cells = pd.read_parquet(run.folder / "cells.parquet")
        assert len(cells) == cells["cell_id"].nunique() == CELLS
        assert set(cells["status"]) == {"measured"}
        assert run.facts()["state"] == "finished"
        assert not list(run.folder.rglob("*.tmp")), "half a file"
        assert not (run.folder / "journal").exists()
        self._check_blocks(run, cells)

    def _check_blocks(self, run: Run, cells: pd.DataFrame) -> None:
        samples = pd.read_parquet(run.folder / "samples.parquet")
        control = samples["cell_id"].str.startswith(CONTROL_PREFIX)
        counted = samples[~control].groupby("cell_id").size()
        noted = dict(zip(cells["cell_id"], cells["samples"].astype(int), strict=True))
        assert dict(counted) == noted
        samples["member"] = samples["cell_id"].where(~control, "control")
        assert samples.groupby(["heat", "block"])["member"].nunique().max() == 1, "one block, twice"
        kept = samples.groupby(["heat", "block"])["seconds"].apply(tuple)
        own = dict(zip(cells["cell_id"], cells["heat"], strict=True))
        baselines = set(cells[cells["technique"] == BASELINE]["cell_id"])
        for heat, block, member, seconds in self.blocks:
            # Who failed was timed again; a baseline beside them has its row from another heat.
            beside = member in baselines and own[member] != heat
            if member not in self.failed and member != "control" and not beside:
                assert kept.get((heat, block)) == seconds, f"block {block} of {member} is lost"


def find_loss_s(runner: int) -> float:
    """Return how long ago a runner has kept blocks, if it is timing some: what a kill costs most.

    It has the journal of a heat open as long as it times its cells.
    """
    kept = []
    for descriptor in Path(f"/proc/{runner}/fd").glob("*"):
        with suppress(OSError):
            path = descriptor.readlink()
            if path.suffix == ".arrows":
                kept.append(path.stat().st_mtime)
    return time.time() - max(kept) if kept else 0.0


def find_started(folder: Path) -> dict[int, int]:
    """Return each process that is in a folder, the youngest last, and its parent.

    What a fork of a warm command starts is not its child.
    """
    found = []
    for process in psutil.process_iter():
        with suppress(psutil.Error, OSError):
            if process.cwd() == str(folder):
                found.append((process.create_time(), process.pid, process.ppid()))
    return {pid: parent for _, pid, parent in sorted(found)}


def read_journals(results: Path) -> pd.DataFrame:
    """Return the blocks that are on disk, by another reader than the product's."""
    batches = []
    for path in sorted(results.glob("*/journal/*/*.arrows")):
        with suppress(pa.ArrowInvalid, OSError):  # it ends where it was cut off
            stream = pa.ipc.open_stream(path.read_bytes())
            heat = stream.schema.metadata[b"paretogrid.heat"].decode()
            for batch in stream:
                batches.append(batch.to_pandas().assign(heat=heat))
    columns = ["heat", "member", "round", "block", "seconds"]
    return pd.concat(batches)[columns] if batches else pd.DataFrame(columns=columns)


def find_sizes(results: Path) -> dict[str, int]:
    """Return the size of each journal: one grows when blocks were timed."""
    found = {}
    for path in results.glob("*/journal/*/*.arrows"):
        with suppress(FileNotFoundError):  # it has become results meanwhile
            found[str(path)] = path.stat().st_size
    return found


@contextmanager
def small_disk(folder: Path) -> Iterator[Path | None]:
    """Mount a file system of a few megabytes in a folder; None where that is not allowed."""
    folder.mkdir(parents=True)
    command = ["mount", "-t", "tmpfs", "-o", f"size={DISK_BYTES}", "none", str(folder)]
    try:
        mounted = subprocess.run(command, capture_output=True, check=False).returncode == 0
    except OSError:
        mounted = False
    try:
        yield folder if mounted else None
    finally:
        if mounted:
            subprocess.run(["umount", "--lazy", str(folder)], check=True)


@contextmanager
def fill(disk: Path) -> Iterator[None]:
    """Leave nothing free on a disk as long as the `with` block takes."""
    ballast = disk / "ballast"
    try:
        with ballast.open("wb", buffering=0) as file, suppress(OSError):
            while True:
                file.write(b"x" * 4096)
        yield
    finally:
        ballast.unlink()
