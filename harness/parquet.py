"""Parquet files that another process may replace while they are read.

They are opened here: of a name Arrow makes an address, so that `12:30/cells.parquet` has no
filesystem.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
from pyarrow import compute


def read_whole(path: Path, columns: Sequence[str] | None) -> pa.Table:
    """Read a file that may be replaced meanwhile: pyarrow would open it twice by its name."""
    with path.open("rb") as file:
        return pq.read_table(file, columns=columns)


def read_schema(path: Path) -> pa.Schema:
    """Return the schema of a file."""
    with path.open("rb") as file:
        return pq.read_schema(file)


def read_groups(
    path: Path, columns: Sequence[str] | None, cells: pa.Array
) -> Iterator[tuple[pa.Table, pa.ChunkedArray]]:
    """Yield the row groups of a file, and which of their rows are of these cells."""
    with path.open("rb") as opened, pq.ParquetFile(opened) as file:
        for number in range(file.num_row_groups):
            table = file.read_row_group(number, columns=columns)
            yield table, compute.is_in(table["cell_id"], value_set=cells)
        if not file.num_row_groups:
            empty = file.schema_arrow.empty_table()
            table = empty if columns is None else empty.select(columns)
            yield table, compute.is_in(table["cell_id"], value_set=cells)
