"""The nine minutes on a card, rehearsed on the processor: every step runs, everything is packed."""

import json
import os
import subprocess
import sys
import tarfile
import time
from pathlib import Path

import pytest

sys.path.append(str(Path(__file__).parent))

import card  # found by the line above


def make_files(folder: Path, sizes: dict[str, int]) -> None:
    for name, size in sizes.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(os.urandom(size))


def packed(target: Path) -> set[str]:
    with tarfile.open(target) as archive:
        return {name.removeprefix("card/") for name in archive.getnames()}


def test_evidence_that_is_too_large_leaves_out_samples_first(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(card, "MOST_BYTES", 100_000)
    make_files(tmp_path / "from", {
        "results/r/samples.parquet": 90_000, "results/r/examples.parquet": 40_000,
        "results/r/cells.parquet": 20_000, "tests.log": 1_000, "cache/variants/v": 200_000,
    })  # fmt: skip
    left_out = card.pack(tmp_path / "from", tmp_path / "card.tar.xz")
    assert left_out == ["results/r/samples.parquet"]
    assert packed(tmp_path / "card.tar.xz") == {
        "results/r/examples.parquet", "results/r/cells.parquet", "tests.log",
    }  # fmt: skip
    assert (tmp_path / "card.tar.xz").stat().st_size <= 100_000


@pytest.mark.parametrize("sizes", [{}, {"a.log": 300_000}])
def test_nothing_or_a_single_file_too_large_still_ends(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, sizes: dict[str, int]
) -> None:
    monkeypatch.setattr(card, "MOST_BYTES", 100_000)
    (tmp_path / "from").mkdir()
    make_files(tmp_path / "from", sizes)
    assert card.pack(tmp_path / "from", tmp_path / "card.tar.xz") == list(sizes)


def test_a_step_whose_time_is_up_is_ended_and_the_next_has_what_is_left(tmp_path: Path) -> None:
    begin = time.monotonic()
    sleeping = card.Step("sleep", (sys.executable, "-c", "import time; time.sleep(60)"), 1.0)
    found = card.run_step(sleeping, tmp_path, begin + 500)
    assert str(found["ended"]).startswith("interrupted after 1 s")
    assert time.monotonic() - begin < 30
    absent = card.run_step(card.Step("none", ("no-such-command",), 9.0), tmp_path, begin + 500)
    assert "could not start" in str(absent["ended"])


def test_the_whole_takes_nine_minutes_at_most(tmp_path: Path) -> None:
    steps = card.plan_steps(tmp_path, "cuda")
    assert sum(step.limit_s for step in steps) <= card.LIMIT_S == 9 * 60


@pytest.mark.slow
@pytest.mark.workers
def test_a_rehearsal_packs_what_it_measured_and_says_that_there_was_no_card(tmp_path: Path) -> None:
    target = tmp_path / "card.tar.xz"
    done = subprocess.run(
        [sys.executable, str(card.ROOT / "tests" / "card.py"), "--rehearse", "--share", "0.1",
         "--only", "driver", "grid",
         "--folder", str(tmp_path / "work"), "--evidence", str(target)],
        capture_output=True, text=True, timeout=300, check=False,
    )  # fmt: skip
    names = packed(target)
    assert {"card.json", "driver.log", "grid.log"} <= names, done.stdout
    with tarfile.open(target) as archive:
        told = json.load(archive.extractfile("card/card.json"))  # type: ignore[arg-type]
    assert told["card"].startswith("none: a rehearsal on")
    assert [step["step"] for step in told["steps"]] == ["driver", "grid"]
    assert any(name.endswith("cells.parquet") for name in names), told
    assert any(name.endswith("report.md") for name in names)
