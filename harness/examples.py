"""Examples: which of a run's test examples were answered right."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from bench.conventions import IGNORED
from harness.store import Run


def read_right(run: Run) -> dict[str, NDArray[np.bool_]]:
    """Return whether each test example that is judged was answered right, by cell; answers kept."""
    table = run.read("examples").to_pandas()
    table = table[table["label"] != IGNORED].sort_values(["cell_id", "example"], kind="stable")
    right = (table["label"] == table["predicted"]).to_numpy(bool)
    names = table["cell_id"].to_numpy()
    starts = np.flatnonzero(table["cell_id"].ne(table["cell_id"].shift()).to_numpy())
    parts = np.split(right, starts[1:]) if len(starts) else []
    return dict(zip(names[starts], parts, strict=True))
