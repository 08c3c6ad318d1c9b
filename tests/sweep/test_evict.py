"""The cache stays below its limit, and what is new, in use or another's stays in it."""

from __future__ import annotations

import json
import os
import time
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from harness.errors import UserError
from harness.prepare.evict import LIMIT, SPARED_S, mark_used, read_limit, trim_cache
from harness.prepare.kept import is_kept, read_facts

DAY_S = 24 * 3600.0


def add(folder: Path, kind: str, name: str, size: int, days_ago: float) -> Path:
    """An entry as preparing makes it, used so long ago."""
    path = folder / kind / name
    path.mkdir(parents=True)
    (path / "subject.pt").write_bytes(bytes(size - 2))
    (path / "facts.json").write_text("{}")
    used_s = time.time() - days_ago * DAY_S
    os.utime(path / "facts.json", (used_s, used_s))
    os.utime(path, (used_s, used_s))
    return path


@settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    entries=st.lists(st.tuples(st.integers(2, 1000), st.floats(0, 30)), max_size=12),
    most=st.integers(0, 6000),
)
def test_what_was_used_longest_ago_goes_first_and_no_more_than_must(
    tmp_path_factory: pytest.TempPathFactory, entries: list[tuple[int, float]], most: int
) -> None:
    folder = tmp_path_factory.mktemp("cache")
    paths = {
        add(folder, "variants", f"v{n}", size, days): (size, days)
        for n, (size, days) in enumerate(entries)
    }
    freed = trim_cache(folder, most)
    left = {path: told for path, told in paths.items() if path.exists()}
    gone = {path: told for path, told in paths.items() if not path.exists()}
    assert freed == sum(size for size, _ in gone.values())
    total = sum(size for size, _ in left.values())
    old = [days for _, days in left.values() if days > SPARED_S / DAY_S]
    assert total <= most or not old, "all that may go is gone"
    if gone:
        assert all(days <= min(days for _, days in gone.values()) for days in old)
        last_size, _ = max(gone.values(), key=lambda told: (-told[1], told[0]))
        assert total + last_size > most, "the last one had to go"
    assert all(days >= SPARED_S / DAY_S for _, days in gone.values())


@settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    variants=st.lists(st.tuples(st.integers(0, 3), st.booleans()), max_size=8),
    most=st.integers(0, 1500),
)
def test_data_sets_count_too_and_stay_as_long_as_a_variant_of_theirs_that_is_used(
    tmp_path_factory: pytest.TempPathFactory, variants: list[tuple[int, bool]], most: int
) -> None:
    """Each variant has one of four data sets, and is used again or was long ago."""
    folder = tmp_path_factory.mktemp("cache")
    (folder / "datasets").mkdir()
    data = [folder / "datasets" / f"d{number}.pt" for number in range(4)]
    for path in data:
        path.write_bytes(bytes(100))
        os.utime(path, (time.time() - 9 * DAY_S,) * 2)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PARETOGRID_CACHE", str(folder))
        for number, (which, again) in enumerate(variants):
            path = add(folder, "variants", f"v{number}", 100, 5)
            (path / "facts.json").write_text(json.dumps({"data": f"d{which}"}))
            os.utime(path / "facts.json", (time.time() - 5 * DAY_S,) * 2)
            if again:
                read_facts(f"v{number}")
        trim_cache(folder, most)
        used = [number for number, (_, again) in enumerate(variants) if again]
        assert all(is_kept(f"v{number}") for number in used)
    needed = {data[variants[number][0]] for number in used}
    if most == 0:
        assert {path for path in data if path.exists()} == needed


def test_what_a_kill_left_half_made_goes_and_what_is_being_made_stays(tmp_path: Path) -> None:
    dead = add(tmp_path, "variants", ".making-dead", 50, 3)
    alive = add(tmp_path, "variants", ".making-alive", 50, 0)
    assert trim_cache(tmp_path, 10**9) == 50
    assert (dead.exists(), alive.exists()) == (False, True)


def test_what_is_deleted_is_out_of_the_way_before_it_is_gone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A kill in between leaves what the next trimming takes, and nothing under the old name."""
    old = add(tmp_path, "variants", "old", 100, 9)

    def die(_: Path) -> None:
        raise OSError("killed")

    monkeypatch.setattr("shutil.rmtree", die)
    trim_cache(tmp_path, 0)
    assert not old.exists()
    (left,) = (tmp_path / "variants").iterdir()
    monkeypatch.undo()
    os.utime(left / "facts.json", (0, 0))
    assert trim_cache(tmp_path, 10**9) == 100
    assert not left.exists()


def test_an_empty_cache_and_none_at_all_are_small_enough(tmp_path: Path) -> None:
    assert trim_cache(tmp_path, 0) == trim_cache(tmp_path / "nowhere", 0) == 0
    mark_used(tmp_path / "nowhere")


@pytest.mark.parametrize(("text", "limit"), [("", 20 * 10**9), ("0.5", 5 * 10**8), ("0", 0)])
def test_the_limit_is_read_in_gigabytes(
    monkeypatch: pytest.MonkeyPatch, text: str, limit: int
) -> None:
    monkeypatch.setenv(LIMIT, text)
    assert read_limit() == limit


@pytest.mark.parametrize("text", ["much", "-1", "nan", "inf", "5 GB"])
def test_a_limit_that_is_no_number_is_a_mistake(monkeypatch: pytest.MonkeyPatch, text: str) -> None:
    monkeypatch.setenv(LIMIT, text)
    with pytest.raises(UserError, match=r"number of gigabytes"):
        read_limit()
