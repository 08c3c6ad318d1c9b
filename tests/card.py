"""Everything that needs a CUDA card, in nine minutes, with evidence: `make card`.

Runs the card's tests, `doctor` (with the same work compared with itself on the card) and the
gpu-vs-cpu grid, each within its share of the time, and packs tables, reports and logs in one file
of at most 16 MiB, also where something failed. With `--rehearse` all of it runs on the processor,
and the evidence says so.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
import sys
import tarfile
import time
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

ROOT = Path(__file__).parent.parent
LIMIT_S = 540.0
START_S = 30.0
"""What a run needs before it measures and after, however short it is."""
MOST_BYTES = 16 * 2**20
COMMAND = (sys.executable, "-P", "-m", "paretogrid")
CARD_TESTS = ("tests/measure/test_real_card.py", "tests/measure/test_energy.py",
              "tests/measure/test_devices.py", "tests/bench/test_tensor_cores.py")  # fmt: skip
RAW = ("samples.parquet", "examples.parquet")
"""What is left out first where the evidence would be too large: decisions do not need it."""


@dataclass(frozen=True)
class Step:
    """A command with the most time it may take, and the name of its log."""

    name: str
    command: tuple[str, ...]
    limit_s: float


def plan_steps(folder: Path, device: str, share: float = 1.0) -> list[Step]:
    """Return the steps in their order; `share` shortens what is measured."""
    small = ("--model", "digits-mlp", "--technique", "bf16", "--device", device)
    grid = ("run", "gpu-vs-cpu") if device == "cuda" else ("run", *small)
    store = ("--results", str(folder / "results"), "--reports", str(folder / "reports"))
    whole = ("--time", f"{200 * share:g}s")
    return [
        Step("driver", ("nvidia-smi", "-q"), 20),
        Step("tests", (sys.executable, "-m", "pytest", "-v", "-p", "no:cacheprovider", *CARD_TESTS),
             150 * share),
        Step("doctor", (*COMMAND, "doctor", "--json", "--threads", "1"), 120),
        Step("grid", (*COMMAND, *grid, *whole, *store), 200 * share + START_S),
    ]  # fmt: skip


def run_step(step: Step, folder: Path, deadline: float) -> dict[str, object]:
    """Run a step, its words in a log; return how it ended. Time that is up ends it, as Ctrl-C."""
    begin = time.monotonic()
    limit_s = min(step.limit_s, deadline - begin)
    with (folder / f"{step.name}.log").open("w") as log:
        try:
            running = subprocess.Popen(
                step.command, stdout=log, stderr=subprocess.STDOUT, cwd=ROOT,
                env={**os.environ, "PARETOGRID_CACHE": str(folder / "cache")},
            )  # fmt: skip
        except OSError as error:
            return {"step": step.name, "ended": f"could not start: {error}"}
        try:
            code = running.wait(max(1.0, limit_s))
            ended = "well" if code == 0 else f"with exit code {code}"
        except subprocess.TimeoutExpired:
            running.terminate()  # a run concludes what it has timed, and writes its report
            try:
                running.wait(30)
            except subprocess.TimeoutExpired:
                running.kill()
                running.wait()
            ended = f"interrupted after {limit_s:.0f} s"
    return {"step": step.name, "ended": ended, "took_s": round(time.monotonic() - begin, 1)}


def pack(folder: Path, target: Path) -> list[str]:
    """Write the evidence; return what had to be left out so that it is no larger than allowed."""
    files = [path for path in sorted(folder.rglob("*")) if path.is_file()]
    kept = [path for path in files if "cache" not in path.relative_to(folder).parts]
    left_out: list[str] = []
    while True:
        with tarfile.open(target, "w:xz") as archive:
            for path in kept:
                archive.add(path, Path("card") / path.relative_to(folder))
        if target.stat().st_size <= MOST_BYTES or not kept:
            return left_out
        raw = [path for path in kept if path.name in RAW] or kept
        largest = max(raw, key=lambda path: path.stat().st_size)
        kept.remove(largest)
        left_out.append(str(largest.relative_to(folder)))


def find_card() -> str:
    """Return the name of the first card, or nothing."""
    import torch

    return torch.cuda.get_device_name(0) if torch.cuda.is_available() else ""


def main() -> int:
    """Run the steps, pack the evidence, say how it went; 1 where a step did not end well."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--evidence", type=Path, default=ROOT / "card.tar.xz")
    parser.add_argument("--folder", type=Path, default=ROOT / "build" / "card")
    parser.add_argument("--rehearse", action="store_true", help="on the processor, without a card")
    parser.add_argument("--share", type=float, default=1.0, help="of the usual time")
    parser.add_argument("--only", nargs="+", help="names of steps: driver tests doctor grid")
    asked = parser.parse_args()
    card = find_card()
    if not card and not asked.rehearse:
        print("No CUDA card here, or a torch without CUDA. `--rehearse` runs all on the processor.")
        return 2
    folder = asked.folder / datetime.now(UTC).strftime("%Y%m%d-%H%M%S")
    folder.mkdir(parents=True)
    device = "cpu" if asked.rehearse else "cuda"
    outcome = []
    steps = plan_steps(folder, device, asked.share)
    deadline = time.monotonic() + min(LIMIT_S, sum(step.limit_s for step in steps))
    for step in [one for one in steps if one.name in (asked.only or one.name)]:
        print(f"{step.name}: {' '.join(step.command)}", flush=True)
        outcome.append(run_step(step, folder, deadline))
        print(f"  ended {outcome[-1]['ended']}", flush=True)
    about = {
        "card": f"none: a rehearsal on {platform.processor() or 'the processor'}"
        if asked.rehearse else card,
        "python": platform.python_version(), "steps": outcome,
    }  # fmt: skip
    (folder / "card.json").write_text(json.dumps(about, indent=1))
    left_out = pack(folder, asked.evidence)
    for name in left_out:
        print(f"left out, as it is too large: {name}")
    size = asked.evidence.stat().st_size / 2**20
    print(f"Evidence: {asked.evidence} ({size:.1f} MiB), of {about['card']}")
    wanted = [one for one in outcome if one["step"] != "driver" or card]
    return int(any(one["ended"] != "well" for one in wanted))


if __name__ == "__main__":
    sys.exit(main())
