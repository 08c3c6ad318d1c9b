"""What a run leaves on disk: every cell once, whatever interrupted it."""

from __future__ import annotations

import fcntl
import json
import shutil
import subprocess
import sys
import threading
from itertools import count
from pathlib import Path

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from harness.decide.frame import load_frame
from harness.errors import UserError
from harness.grid import Cell
from harness.record import (
    EXAMPLES_SCHEMA,
    METRICS,
    METRICS_KEY,
    SAMPLES_SCHEMA,
    SCHEMA_VERSION,
    VERSION_KEY,
    Record,
    schema,
)
from harness.runs import list_runs, open_run, results_folder
from harness.stats import Estimate
from harness.store import PARTS, Run, control_id, read_cells

SAMPLES_EACH, EXAMPLES_EACH = 7, 4
METRIC_COLUMNS = [column for metric in METRICS for column in metric.columns()]


def make_cell(number):
    return Cell("net", f"technique({number})", "cpu", 1, 1, "eager", 0)


def make_record(run, number, status="measured", **facts):
    started = f"2026-01-01T00:00:{number:02d}.000+00:00"
    return Record(run.run_id, make_cell(number), status, started_at=started, task="t", **facts)


def make_samples(cell):
    columns = {
        "cell_id": [cell.id] * SAMPLES_EACH,
        "heat": ["heat"] * SAMPLES_EACH,
        **{name: range(SAMPLES_EACH) for name in ("round", "block", "position")},
        "session": [0] * SAMPLES_EACH,
        "seconds": [0.001 * (n + 1) for n in range(SAMPLES_EACH)],
        "loops": [1] * SAMPLES_EACH,
        "disturbed": [False] * SAMPLES_EACH,
        "cause": [""] * SAMPLES_EACH,
        **{name: [0] * SAMPLES_EACH for name in ("at_s", "lost_s", "switches", "others")},
        "frequency_hz": [None] * SAMPLES_EACH,
        "process": [1] * SAMPLES_EACH,
    }
    table = pa.table({name: list(values) for name, values in columns.items()})
    return table.select(SAMPLES_SCHEMA.names).cast(SAMPLES_SCHEMA)


def make_examples(cell):
    columns = {
        "cell_id": [cell.id] * EXAMPLES_EACH,
        **{name: list(range(EXAMPLES_EACH)) for name in ("example", "label", "predicted")},
    }
    return pa.table(columns).cast(EXAMPLES_SCHEMA)


def add(run, *numbers):
    for number in numbers:
        record = make_record(run, number).measured(latency_s=Estimate(0.001 * number, 0.0, 1.0))
        run.add(record, make_samples(record.cell), make_examples(record.cell))


def count_rows(run):
    """How many rows each cell has in each table, joined file and parts together."""
    tables = {name: run.read(name).to_pandas() for name in ("cells", "samples", "examples")}
    return {name: table["cell_id"].value_counts().to_dict() for name, table in tables.items()}


def each_once(*numbers):
    ids = [make_cell(number).id for number in numbers]
    each = {"cells": 1, "samples": SAMPLES_EACH, "examples": EXAMPLES_EACH}
    return {name: dict.fromkeys(ids, count) for name, count in each.items()}


@pytest.fixture
def run(tmp_path):
    return Run.create(tmp_path / "store", "demo", {"grid": "demo"})


# Rows


def test_a_cell_is_readable_by_pandas_alone_when_it_ends(run):
    add(run, 1)
    (part,) = (run.folder / PARTS).glob("*.cells.parquet")
    (row,) = pd.read_parquet(part).to_dict("records")
    assert row["cell_id"] == make_cell(1).id
    assert row["technique"] == "technique(1)"
    assert (row["latency_s"], row["latency_s_low"], row["latency_s_high"]) == (0.001, 0.0, 1.0)
    (samples,) = (run.folder / PARTS).glob("*.samples.parquet")
    assert pd.read_parquet(samples)["seconds"].sum() == pytest.approx(0.028)


@pytest.mark.parametrize("store", ["out-18:51", "C:drive", "s3:x", "a?b#c%20", "~name"])
def test_a_relative_store_may_have_any_name(store, tmp_path, monkeypatch):
    """Of `out-18:51/run` Arrow would make an address."""
    monkeypatch.chdir(tmp_path)
    run = Run.create(Path(store), "demo", {"grid": "demo"})
    add(run, 1, 2)
    assert count_rows(run) == each_once(1, 2)
    run.compact()
    assert count_rows(run) == each_once(1, 2)
    assert run.schema().names[0] == "run_id"
    assert [*run.batches("samples")]


def test_nothing_half_written_stays_behind(run):
    add(run, 1, 2)
    run.compact()
    names = {path.name for path in run.folder.rglob("*") if path.is_file()}
    assert names == {"run.json", "cells.parquet", "samples.parquet", "examples.parquet"}


def test_a_compacted_run_is_readable_by_pandas_alone(run):
    add(run, 3, 1, 2)
    run.compact()
    cells = pd.read_parquet(run.folder / "cells.parquet")
    assert sorted(cells["technique"]) == ["technique(1)", "technique(2)", "technique(3)"]
    samples = pd.read_parquet(run.folder / "samples.parquet")
    assert len(samples.merge(cells, on="cell_id")) == 3 * SAMPLES_EACH


def test_cells_come_in_the_order_in_which_they_were_measured(run):
    add(run, 2, 3, 1)
    assert list(read_cells(run)["technique"]) == ["technique(1)", "technique(2)", "technique(3)"]


def test_what_is_not_a_number_is_stored_as_nothing(run):
    record = make_record(run, 1).measured(latency_s=float("nan"), macs=float("inf"), params=3)
    run.add(record, SAMPLES_SCHEMA.empty_table(), EXAMPLES_SCHEMA.empty_table())
    (row,) = run.read("cells").to_pylist()
    assert row["latency_s"] is None
    assert row["macs"] is None
    assert row["params"] == 3


@pytest.mark.parametrize("status", ["failed", "skipped"])
def test_a_cell_that_was_not_measured_has_a_reason_and_no_metrics(run, status):
    record = make_record(run, 1, status, failure_kind="crash", message="it broke")
    run.add(record, SAMPLES_SCHEMA.empty_table(), EXAMPLES_SCHEMA.empty_table())
    (row,) = read_cells(run).to_dict("records")
    assert (row["status"], row["failure_kind"], row["message"]) == (status, "crash", "it broke")
    assert all(pd.isna(row[column]) for column in METRIC_COLUMNS)
    assert run.finished() == {make_cell(1).id}
    run.compact()
    assert len(pd.read_parquet(run.folder / "cells.parquet")) == 1


@pytest.mark.parametrize("unknown", [float("nan"), float("inf"), float("-inf")])
def test_what_is_not_known_is_empty_and_not_a_number_above_all_others(run, unknown):
    """NaN would be greater than any number to a database that reads the file."""
    record = make_record(run, 1).measured(latency_s=unknown, accuracy=0.5)
    run.add_row(record.under(machine_speed=unknown, drift=0.1, stolen_share=unknown))
    row = run.read("cells")
    for name in ("latency_s", "machine_speed", "stolen_share"):
        assert row[name].null_count == 1
    assert (row["drift"].to_pylist(), row["accuracy"].to_pylist()) == ([0.1], [0.5])


def test_a_record_with_an_unknown_metric_or_condition_is_refused(run):
    record = make_record(run, 1)
    with pytest.raises(ValueError, match="no such column: latency_ms"):
        record.measured(latency_ms=1.0)
    with pytest.raises(ValueError, match="no such column: weather"):
        record.under(weather="fine")
    with pytest.raises(ValueError, match="no such column: params_high, params_low"):
        record.measured(params=Estimate(1.0, 0.0, 2.0))


def test_a_record_keeps_what_it_had_when_it_learns_more(run):
    first = make_record(run, 1).measured(params=3)
    second = first.measured(macs=4).under(loops=2)
    assert first.metrics == {"params": 3}
    assert second.metrics == {"params": 3, "macs": 4}
    assert second.conditions == {"loops": 2}


@pytest.mark.parametrize("status", ["measured", "failed"])
def test_a_record_that_is_read_from_its_row_writes_the_same_row(run, status):
    record = make_record(run, 1, status, failure_kind="killed" if status == "failed" else "")
    record = record.measured(latency_s=Estimate(2.0, 1.0, 3.0), macs=4, accuracy=float("nan"))
    record = record.under(heat="h", warnings=["one", "two"], together=True, sessions=3)
    run.add(record)
    (row,) = run.read("cells").to_pylist()
    again = Record.from_row(row)
    assert again.to_row() == record.to_row()
    assert (again.cell, again.status) == (record.cell, status)


# Units and versions


def test_units_directions_and_the_version_travel_with_the_data(run):
    add(run, 1)
    run.compact()
    stored = pq.read_schema(run.folder / "cells.parquet")
    assert int(stored.metadata[VERSION_KEY]) == SCHEMA_VERSION
    described = json.loads(stored.metadata[METRICS_KEY])
    assert described["latency_s"]["unit"] == "s"
    assert described["latency_s"]["direction"] == "lower"
    assert described["accuracy"]["direction"] == "higher"
    assert described.keys() == {metric.name for metric in METRICS}
    assert stored.field("latency_s_low").metadata == {b"unit": b"s"}
    assert stored.field("peak_memory_bytes").metadata == {b"unit": b"B"}
    for name in ("samples", "examples"):
        metadata = pq.read_schema(run.folder / f"{name}.parquet").metadata
        assert int(metadata[VERSION_KEY]) == SCHEMA_VERSION


def test_metrics_are_read_as_the_data_describe_them(run):
    add(run, 1)
    assert load_frame(run).metrics == {metric.name: metric for metric in METRICS}


def test_a_run_of_a_newer_version_is_refused(run):
    metadata = {**schema().metadata, VERSION_KEY: str(SCHEMA_VERSION + 1).encode()}
    table = schema().empty_table().replace_schema_metadata(metadata)
    pq.write_table(table, run.folder / "cells.parquet")
    with pytest.raises(UserError, match=r"has schema version \d+.*Update paretogrid"):
        load_frame(run)


# Compaction


def test_compaction_keeps_every_row_once(run):
    add(run, 1, 2, 3)
    assert count_rows(run) == each_once(1, 2, 3)
    run.compact()
    assert count_rows(run) == each_once(1, 2, 3)
    run.compact()
    assert count_rows(run) == each_once(1, 2, 3)


def test_a_resumed_run_adds_to_what_was_compacted(run):
    add(run, 1, 2)
    run.compact()
    add(run, 3)
    assert count_rows(run) == each_once(1, 2, 3)
    run.compact()
    assert count_rows(run) == each_once(1, 2, 3)


@pytest.mark.parametrize(
    ("joined", "gone"),  # parts are removed last
    [(0, 0), (1, 0), (2, 0), (3, 0), (3, 1), (3, 4), (3, 8), (3, 9)],
)
def test_a_compaction_interrupted_between_its_steps_is_repeated_without_loss(run, joined, gone):
    add(run, 1, 2, 3)
    parts = shutil.copytree(run.folder / PARTS, run.folder.parent / "copy")
    run.compact()
    shutil.copytree(parts, run.folder / PARTS)
    for name in ("samples", "examples", "cells")[joined:]:
        (run.folder / f"{name}.parquet").unlink()
    for part in sorted((run.folder / PARTS).iterdir())[:gone]:
        part.unlink()
    assert run.finished() == {make_cell(number).id for number in (1, 2, 3)}
    assert count_rows(run) == each_once(1, 2, 3)
    run.compact()
    assert count_rows(run) == each_once(1, 2, 3)
    assert not (run.folder / PARTS).exists()


def test_samples_of_a_cell_that_never_got_its_row_do_not_stay(run):
    add(run, 1, 2)
    (run.folder / PARTS / f"{make_cell(2).id}.cells.parquet").unlink()
    assert run.finished() == {make_cell(1).id}
    run.compact()
    assert count_rows(run) == each_once(1)


def test_a_cell_is_finished_before_and_after_compaction(run):
    assert run.finished() == set()
    add(run, 1, 2)
    expected = {make_cell(1).id, make_cell(2).id}
    assert run.finished() == expected
    run.compact()
    assert run.finished() == expected


def test_an_empty_run_compacts_to_empty_tables(run):
    run.compact()
    assert len(pd.read_parquet(run.folder / "cells.parquet")) == 0
    assert len(load_frame(run).cells) == 0


# Runs


def test_runs_of_the_same_second_have_folders_of_their_own(tmp_path):
    ids = {Run.create(tmp_path, "demo", {}).run_id for _ in range(5)}
    assert len(ids) == 5
    assert sorted(list_runs(tmp_path)) == sorted(ids)


def test_a_run_that_is_finished_within_a_second_is_not_written_over(tmp_path):
    runs = [Run.create(tmp_path, "quick", {})]
    for _ in range(3):
        runs[-1].compact()  # no parts are left
        runs.append(Run.create(tmp_path, "quick", {}))
    assert len({run.folder for run in runs}) == 4


def test_facts_survive_and_can_be_changed(run):
    run.write_facts({**run.facts(), "state": "finished"})
    facts = open_run(run.folder.parent, run.run_id).facts()
    assert (facts["state"], facts["grid"], facts["run_id"]) == ("finished", "demo", run.run_id)


def test_the_latest_run_is_the_one_made_last(tmp_path):
    for name, created in (("b", "2026-01-02"), ("c", "2026-01-01"), ("a", "2026-01-03")):
        made = Run.create(tmp_path, name, {})
        made.write_facts({**made.facts(), "created_at": created})
    assert [name[0] for name in list_runs(tmp_path)] == ["c", "b", "a"]
    assert open_run(tmp_path, None).run_id.startswith("a-")
    assert open_run(tmp_path, "latest").run_id.startswith("a-")


def test_the_latest_of_runs_of_one_second_is_the_one_made_last(tmp_path):
    made = [Run.create(tmp_path, "demo", {}) for _ in range(12)]
    for one in made:
        one.write_facts({**one.facts(), "created_at": "2026-01-01T00:00:00+00:00"})
    assert open_run(tmp_path, None).run_id == made[-1].run_id


def test_an_unknown_run_gets_the_nearest_name(run):
    wrong = run.run_id.replace("demo", "dmeo")
    with pytest.raises(UserError) as mistake:
        open_run(run.folder.parent, wrong)
    assert str(mistake.value).startswith(f"No run {wrong!r} in ")
    assert f"Did you mean {run.run_id!r}?" in str(mistake.value)


def test_a_run_can_be_opened_by_its_folder(run, tmp_path):
    add(run, 1)
    elsewhere = shutil.copytree(run.folder, tmp_path / "copied")
    assert open_run(run.folder.parent, str(elsewhere)).finished() == {make_cell(1).id}


def test_a_run_elsewhere_can_be_opened_where_the_store_is_empty(run, tmp_path):
    assert open_run(tmp_path / "no store", str(run.folder)).run_id == run.run_id


def test_an_empty_store_says_how_to_fill_it(tmp_path):
    with pytest.raises(UserError, match=r"No runs in .*`paretogrid run demo` makes one\."):
        open_run(tmp_path / "absent", None)


def test_a_damaged_run_file_does_not_hide_the_other_runs(run):
    broken = run.folder.parent / "broken"
    broken.mkdir()
    (broken / "run.json").write_text('{"created_at"')
    assert run.run_id in list_runs(run.folder.parent)


def test_the_store_is_named_by_option_then_environment_then_folder(monkeypatch):
    monkeypatch.setenv("PARETOGRID_RESULTS", "from/environment")
    assert str(results_folder("given")) == "given"
    assert str(results_folder()) == "from/environment"
    monkeypatch.delenv("PARETOGRID_RESULTS")
    assert str(results_folder()) == "results"


def test_a_second_process_cannot_write_to_a_run_that_is_being_measured(run):
    program = (
        "import sys; from pathlib import Path; from harness.store import Run\n"
        "from harness.errors import UserError\n"
        "try:\n"
        "    with Run(Path(sys.argv[1])).lock(): print('locked')\n"
        "except UserError as mistake: print(mistake)\n"
    )

    def try_to_lock():
        command = [sys.executable, "-c", program, str(run.folder)]
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()

    with run.lock():
        assert try_to_lock().startswith(
            f"The run {run.run_id} is being measured by another process"
        )
        assert run.state() == "running"
    assert run.state() == "interrupted", "whoever measured it is gone"
    assert try_to_lock() == "locked"
    run.write_facts({**run.facts(), "state": "finished"})
    assert run.state() == "finished"


def test_a_reader_whose_parts_are_joined_meanwhile_reads_on(run):
    add(run, 1, 2, 3)
    for name in ("samples", "cells"):
        reading = run.batches(name, rows=1)
        first = [next(reading)]
        run.compact()
        found = pa.concat_tables([*first, *reading]).to_pandas()["cell_id"].value_counts()
        assert found.to_dict() == each_once(1, 2, 3)[name]
        add(run, 1, 2, 3)


def test_what_is_replaced_while_it_is_read_is_read_whole(run):
    ended = threading.Event()

    def write():
        for number in count():
            if ended.is_set():
                return
            message = "long " * (number % 50)
            run.add_row(make_record(run, 1, "failed", failure_kind="crash", message=message))

    add(run, 1)
    writing = threading.Thread(target=write)
    writing.start()
    try:
        for _ in range(100):
            assert len(run.read("cells")) == 1
    finally:
        ended.set()
        writing.join()


def test_what_is_joined_meanwhile_is_read_by_row_groups(run, monkeypatch):
    """It may be larger than memory."""
    monkeypatch.setattr(Run.batches, "__defaults__", (None, 1))
    add(run, *range(1, 9))
    reading = run.batches("samples", rows=1)
    tables = [next(reading)]
    for batch in run.batches("samples", rows=1):
        assert len(batch) == SAMPLES_EACH
    run.compact()
    with pq.ParquetFile(run.folder / "samples.parquet") as file:
        assert file.num_row_groups > 1
    tables += reading
    assert max(map(len, tables)) <= SAMPLES_EACH
    assert (
        pa.concat_tables(tables)["cell_id"].value_counts().to_pylist()[0]["counts"] == SAMPLES_EACH
    )


def test_who_only_looks_whether_a_run_is_measured_stops_nobody(run):
    (run.folder / ".lock").touch()
    with (run.folder / ".lock").open() as file:
        fcntl.flock(file, fcntl.LOCK_SH)
        looking = threading.Timer(0.3, lambda: fcntl.flock(file, fcntl.LOCK_UN))
        looking.start()
        with run.lock():
            pass
        looking.join()


def test_a_run_file_that_cannot_be_read_is_a_message(run):
    (run.folder / "run.json").write_text("{")
    with pytest.raises(UserError, match=r"run.json is not whole"):
        run.facts()
    (run.folder / "run.json").unlink()
    with pytest.raises(UserError, match=r"^Cannot read .*run.json: No such file"):
        run.facts()


def test_a_run_cannot_be_written_under_a_file(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(
        UserError, match=r"^Cannot write results to .*file/store: Not a directory\."
    ):
        Run.create(tmp_path / "file" / "store", "demo", {})


def test_a_part_that_cannot_be_written_is_an_error_with_its_place(run):
    shutil.rmtree(run.folder / PARTS)
    (run.folder / PARTS).write_text("")
    with pytest.raises(UserError, match=r"^Cannot write .*parts"):
        add(run, 1)


# Samples of the control, q-values


def test_the_controls_samples_have_no_row_and_stay_as_long_as_a_row_is_of_their_heat(run):
    add(run, 1)
    run.add_row(make_record(run, 1).under(heat="heat"))
    samples = make_samples(make_cell(1))
    place = samples.schema.get_field_index("cell_id")
    ids = pa.array([control_id("heat")] * samples.num_rows)
    run.add_control(control_id("heat"), samples.set_column(place, "cell_id", ids))
    for _ in range(2):  # compacting twice is compacting once
        run.compact()
        ids = pd.read_parquet(run.folder / "samples.parquet")["cell_id"]
        assert (ids == control_id("heat")).sum() == SAMPLES_EACH
        assert ids.nunique() == 2
    assert run.finished() == {make_cell(1).id}
    again = make_record(run, 1).under(heat="heat/heat-2")
    run.add(again, make_samples(again.cell), make_examples(again.cell))
    run.compact()
    assert set(pd.read_parquet(run.folder / "samples.parquet")["cell_id"]) == run.finished()


def test_q_values_are_written_when_the_run_is_joined(run):
    p_values = [0.01, 0.04, 0.03]
    for number, p_value in enumerate(p_values, start=1):
        cell = make_cell(number)
        record = make_record(run, number).measured(latency_ratio_p_value=p_value)
        run.add(record, make_samples(cell), make_examples(cell))
    run.compact()
    cells = pd.read_parquet(run.folder / "cells.parquet")
    compared = cells[cells["technique"] != "baseline"]
    assert (compared["latency_ratio_q_value"] >= compared["latency_ratio_p_value"]).all()
    assert cells[cells["technique"] == "baseline"]["latency_ratio_q_value"].isna().all()


def test_what_a_killed_writer_left_is_removed_by_who_measures_further(run):
    for folder in (run.folder, run.folder / "parts"):
        (folder / ".samples.parquet.123.tmp").write_bytes(b"half")
    (run.folder / ".lock").touch()
    with run.lock():
        assert not list(run.folder.rglob("*.tmp"))
    assert (run.folder / "run.json").is_file()


@pytest.mark.parametrize("error", [OSError(38, "no locks here"), OSError(37, "none left")])
def test_a_file_system_without_locks_can_be_measured_to(run, monkeypatch, error):
    def refuse(*_):
        raise error

    monkeypatch.setattr("fcntl.flock", refuse)
    with run.lock():
        add(run, 1)
    assert run.finished() == {make_cell(1).id}
