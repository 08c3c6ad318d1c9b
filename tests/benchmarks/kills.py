"""Interrupt runs at random many times: `python tests/benchmarks/kills.py --kills 1000 --seed 0`.

Ends with an error at the first block that is lost or doubled, file that cannot be read, or run that
cannot be ended; says what was done.
"""

from __future__ import annotations

import argparse
import os
import random
import shutil
import subprocess
import sys
import tempfile
import time
import traceback
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

sys.path[:0] = [str(Path(__file__).parents[2]), str(Path(__file__).parents[1] / "sweep")]

from kills import Scenario, small_disk  # noqa: E402  # found by this file's own place

IN_A_RUN = 40


def learn_roofs() -> Path:
    """Return the folder of what this machine can reach, once for all scenarios."""
    cache = Path(tempfile.mkdtemp(prefix="kills-cache-"))
    environment = {**os.environ, "PARETOGRID_CACHE": str(cache)}
    command = [sys.executable, "-P", "-m", "paretogrid", "doctor", "--threads", "1"]
    for _ in range(3):  # beside other work they are measured so often
        subprocess.run(command, env=environment, check=True, stdout=subprocess.DEVNULL)
    return cache / "roofs"


def play(seed: int, kills: int, known: Path) -> Scenario | None:
    """Play one scenario; its folder goes when that went well, else return None."""
    folder = Path(tempfile.mkdtemp(prefix=f"kills-{seed}-"))
    print(f"seed {seed}: {folder}", flush=True)
    with small_disk(folder / "disk") as disk:
        scenario = Scenario(folder, disk, random.Random(seed), known)
        try:
            scenario.play(kills)
        except Exception:  # the others go on
            print(f"seed {seed} FAILED\n{traceback.format_exc()}", flush=True)
            shutil.copytree(folder / "disk", folder / "left", dirs_exist_ok=True)
            return None
    shutil.rmtree(folder)
    return scenario


def main() -> int:
    """Play them all; 1 where one failed."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kills", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--jobs", type=int, default=3, help="runs at a time")
    asked = parser.parse_args()
    begin = time.monotonic()
    seeds = range(asked.seed, asked.seed + -(-asked.kills // IN_A_RUN))
    known = learn_roofs()
    with ThreadPoolExecutor(asked.jobs) as pool:
        ended = list(pool.map(lambda seed: play(seed, IN_A_RUN, known), seeds))
    played = [scenario for scenario in ended if scenario is not None]
    did = sum((scenario.did for scenario in played), Counter())
    for what, times in sorted(did.items()):
        print(f"{times:5} {what}")
    if "full disk" not in did:
        print("    0 full disk: no permission to mount a small one here")
    loss_s = max((scenario.longest_loss_s for scenario in played), default=0.0)
    blocks = sum(len(scenario.blocks) for scenario in played)
    print(f"{did.total()} kills of {len(played)} runs in {time.monotonic() - begin:.0f} s: of "
          f"{blocks} blocks that were on disk none is lost or doubled; a kill cost at most "
          f"{loss_s:.2f} s; {len(ended) - len(played)} runs failed")  # fmt: skip
    return int(len(played) < len(ended))


if __name__ == "__main__":
    sys.exit(main())
