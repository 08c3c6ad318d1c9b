"""Query: SQL over the whole store, read only.

Views: `cells` and `samples` have the columns of the runs' tables and `run_id`; `runs` has run_id,
state, created_at, command, cwd, machine (JSON) and facts (JSON, all of run.json).
"""

from __future__ import annotations

import json
from pathlib import Path

import duckdb
import pandas as pd

from harness.errors import UserError
from harness.runs import list_runs, open_run

VIEWS = ("cells", "samples", "runs")
TRIES = 5
"""While a run is measured, its files change."""


def query(root: Path, sql: str) -> pd.DataFrame:
    """Return the rows of a SELECT over the store; raise UserError for anything else."""
    for tries_left in reversed(range(TRIES)):
        try:
            return _ask(root, sql)
        except duckdb.Error as problem:
            # A file may have been replaced since it was opened, or joined with others.
            if not tries_left or isinstance(problem, duckdb.ProgrammingError):
                raise UserError(
                    f"The query failed: {problem}\nViews: {', '.join(VIEWS)}; docs/columns.md "
                    "tells their columns."
                ) from None
    raise AssertionError("the last try returns or raises")


def _ask(root: Path, sql: str) -> pd.DataFrame:
    names = list_runs(root)
    if not names:
        raise UserError(f"No runs in {root}. `paretogrid run demo` makes one.")
    with duckdb.connect() as connection:
        try:
            statements = connection.extract_statements(sql)
        except duckdb.Error as problem:
            raise UserError(f"Cannot read the query: {problem}") from None
        if len(statements) != 1 or statements[0].type != duckdb.StatementType.SELECT:
            raise UserError("A query is one SELECT: the store is only read.")
        _make_views(connection, root, names)
        return connection.execute(statements[0]).df()


def _make_views(connection: duckdb.DuckDBPyConnection, root: Path, names: list[str]) -> None:
    """Make the views, then forbid everything but reading the store's files."""
    known = [(name, open_run(root, name)) for name in names]
    runs = [run.facts() | {"run_id": name, "state": run.state()} for name, run in known]
    table = pd.DataFrame(
        {
            **{
                name: [str(facts.get(name, "")) for facts in runs]
                for name in ("run_id", "state", "created_at", "command", "cwd")
            },
            "machine": [json.dumps(facts.get("machine", {})) for facts in runs],
            "facts": [json.dumps(facts) for facts in runs],
        }
    )
    connection.register("known_runs", table)
    connection.execute("CREATE TABLE runs AS SELECT * FROM known_runs")
    connection.unregister("known_runs")
    files: list[str] = []
    for view in ("cells", "samples"):
        found, replaced = [], []
        for _, run in known:
            joined, parts = run.files(view)
            found += [str(path.resolve()) for path in (*joined, *parts.values())]
            replaced += [(str(path.resolve()), cell) for path in joined for cell in parts]
        files += found
        if found:
            listed = ", ".join(_quote(_escape(path)) for path in found)
            # A run is called what its folder is called, also where that was copied or renamed.
            run_id = "regexp_extract(filename, '([^/]+)/(parts/)?[^/]+$', 1)"
            chosen = (
                f"* EXCLUDE (filename) REPLACE ({run_id} AS run_id)"
                if view == "cells"
                else f"{run_id} AS run_id, * EXCLUDE (filename)"
            )
            connection.execute(
                f"CREATE VIEW {view} AS SELECT {chosen} FROM read_parquet([{listed}], "
                "union_by_name = true, filename = true, hive_partitioning = false)"
                + _without(connection, f"replaced_{view}", replaced)
            )
    allowed = [form for path in files for form in (path, _escape(path))]
    connection.execute(f"SET allowed_paths = [{', '.join(_quote(path) for path in allowed)}]")
    connection.execute("SET enable_external_access = false")
    connection.execute("SET lock_configuration = true")


def _without(
    connection: duckdb.DuckDBPyConnection, name: str, replaced: list[tuple[str, str]]
) -> str:
    """Return the condition that leaves out cells of joined files that have a part since."""
    if not replaced:
        return ""
    table = pd.DataFrame(replaced, columns=["filename", "cell_id"])
    connection.register("known_replaced", table)
    connection.execute(f"CREATE TABLE {name} AS SELECT * FROM known_replaced")
    connection.unregister("known_replaced")
    return f" WHERE (filename, cell_id) NOT IN (SELECT (filename, cell_id) FROM {name})"


def _escape(path: str) -> str:
    """Return a path as a pattern that only it fits: DuckDB reads *, ? and [ as wildcards."""
    return "".join(f"[{character}]" if character in "*?[" else character for character in path)


def _quote(text: str) -> str:
    return "'" + text.replace("'", "''") + "'"
