"""SQL over the store: the documented views, and nothing but reading."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pytest

from harness.errors import UserError
from harness.grid import Cell
from harness.query import query
from harness.record import EXAMPLES_SCHEMA, SAMPLES_SCHEMA, Record
from harness.store import Run


@pytest.fixture
def root(tmp_path: Path) -> Path:
    folder = tmp_path / "it's a store"
    for number, compacted in enumerate((True, False)):
        made = Run.create(
            folder, f"run{number}", {"command": "paretogrid run", "machine": {"cores": 2}}
        )
        for threads in (1, 2):
            cell = Cell("m", "baseline", "cpu", threads, 1, "eager", 0)
            record = Record(made.run_id, cell, "measured").measured(
                latency_s=0.1 * threads + number
            )
            sample = dict.fromkeys(SAMPLES_SCHEMA.names) | {"cell_id": cell.id, "seconds": 0.5}
            samples = pa.Table.from_pylist([sample] * 3, schema=SAMPLES_SCHEMA)
            made.add(record, samples, EXAMPLES_SCHEMA.empty_table())
        if compacted:
            made.compact()
    return folder


def test_runs_cells_and_samples_are_views_over_all_runs(root: Path) -> None:
    found = query(
        root,
        "SELECT run_id, count(*) AS n, min(latency_s) AS least FROM cells GROUP BY 1 ORDER BY 1",
    )
    assert found["n"].tolist() == [2, 2]
    assert found["least"].tolist() == pytest.approx([0.1, 1.1])
    joined = query(root, """
        SELECT c.threads, count(*) AS n FROM samples s JOIN cells c USING (run_id, cell_id)
        JOIN runs r USING (run_id) WHERE r.state = 'interrupted' GROUP BY 1 ORDER BY 1
    """)  # fmt: skip
    assert joined["n"].tolist() == [6, 6]
    assert query(root, "SELECT machine->>'cores' AS c FROM runs")["c"].tolist() == ["2", "2"]


@pytest.mark.parametrize(
    "sql",
    [
        "DROP VIEW cells", "CREATE TABLE x AS SELECT 1", "INSERT INTO runs VALUES (1)", "",
        "COPY (SELECT 1) TO 'x.csv'", "SELECT 1; SELECT 2", "SET threads = 1", "ATTACH 'x.db'",
        "INSTALL httpfs", "PRAGMA database_list", "EXPORT DATABASE 'x'",
    ],
)  # fmt: skip
def test_anything_but_one_select_is_refused(root: Path, sql: str) -> None:
    with pytest.raises(UserError, match="one SELECT"):
        query(root, sql)


def test_a_select_reads_no_file_but_the_stores(root: Path, tmp_path: Path) -> None:
    secret = tmp_path / "secret.csv"
    secret.write_text("a\n1\n")
    for sql in (f"SELECT * FROM '{secret}'", f"SELECT * FROM read_text('{secret}')"):
        with pytest.raises(UserError, match="The query failed"):
            query(root, sql)


def test_a_mistake_names_the_views(root: Path) -> None:
    with pytest.raises(UserError, match="cells, samples, runs"):
        query(root, "SELECT latncy_s FROM cells")
    with pytest.raises(UserError, match="Cannot read the query"):
        query(root, "SELEC 1")


def test_an_empty_store_says_so(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="No runs in"):
        query(tmp_path, "SELECT 1")


def test_a_cell_that_was_measured_again_is_there_once(root: Path) -> None:
    """As after an interruption that was joined and gone on with, by a run that was killed."""
    (known,) = root.glob("run0-*")
    made = Run(known)
    cell = Cell("m", "baseline", "cpu", 2, 1, "eager", 0)
    sample = dict.fromkeys(SAMPLES_SCHEMA.names) | {"cell_id": cell.id, "seconds": 0.7}
    samples = pa.Table.from_pylist([sample] * 5, schema=SAMPLES_SCHEMA)
    made.add(Record(made.run_id, cell, "measured").measured(latency_s=7.0), samples)
    counts = query(root, "SELECT run_id, threads, count(*) AS n FROM cells GROUP BY ALL")
    assert counts["n"].tolist() == [1] * 4
    found = query(root, f"""
        SELECT threads, latency_s, count(*) AS n FROM samples JOIN cells USING (run_id, cell_id)
        WHERE run_id = '{made.run_id}' GROUP BY ALL ORDER BY ALL
    """)  # fmt: skip
    assert found["n"].tolist() == [3, 5]
    assert found["latency_s"].tolist() == pytest.approx([0.1, 7.0])
    made.compact()
    again = query(root, "SELECT run_id, threads, count(*) AS n FROM cells GROUP BY ALL")
    assert again["n"].tolist() == [1] * 4


def test_the_command_prints_rows_and_json(
    root: Path, command: Callable[..., object], tmp_path: Path
) -> None:
    finished = command("query", "SELECT threads, latency_s FROM cells ORDER BY latency_s LIMIT 1",
                       "--results", str(root), "--json")  # fmt: skip
    assert '"threads": 1' in finished.stdout
    assert '"latency_s": 0.1' in finished.stdout
