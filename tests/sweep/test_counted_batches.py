"""A cell's multiply-accumulates are those of its own batch, whatever fewer examples would take."""

from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pytest

from harness.grid import Cell
from harness.measure.work import UNTOLD, Work
from harness.record import Record
from harness.sweep.variants import Prepared, describe_variant

MODELS = """
import torch
from torch import nn

class Fixed(nn.Module):
    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(64, 16)
    def forward(self, x):
        return self.layer(x.view(8, 64))

class Padded(Fixed):
    def forward(self, x):
        return self.layer(nn.functional.pad(x, (0, 0, 0, -len(x) % 5)))[: len(x)]

class Merging(Fixed):
    merged = None
    def forward(self, x):
        if self.merged is None:
            self.merged = self.layer.weight @ torch.ones(64, 64)
        return x @ self.merged.T

class Leaving(Fixed):
    def __init__(self):
        super().__init__()
        self.deep = nn.Linear(64, 48)
    def forward(self, x):
        self.deep(x[x[:, 0] != 0])
        return self.layer(x)

class Keeping(Fixed):
    def __init__(self):
        super().__init__()
        self.register_buffer("kept", torch.zeros(0))
    def forward(self, x):
        self.kept = self.layer(x)
        return self.kept

def net(kind):
    kinds = {"fixed": Fixed, "padded": Padded, "merging": Merging, "leaving": Leaving,
             "keeping": Keeping}
    inputs = torch.ones(8, 64)
    inputs[:2] = kind != "leaving"
    return kinds[kind](), inputs
"""


@pytest.mark.workers
def test_a_model_that_takes_certain_batches_or_pads_them_is_counted_as_it_is_timed(
    measure: Callable[..., pd.DataFrame], tmp_path: Path
) -> None:
    file = tmp_path / "models.py"
    file.write_text(MODELS)
    kinds = ("fixed", "padded", "merging", "leaving", "keeping")
    models = {kind: f"{file}:net('{kind}')" for kind in kinds}
    cells = measure(models=list(models.values()), batch=[8, 1, 64])
    rows = cells.set_index(["model", "batch"])
    wanted = {("padded", 1): 5, ("padded", 8): 10 / 8, ("padded", 64): 65 / 64,
              ("leaving", 8): 1 + 3 * 6 / 8, ("leaving", 64): 1 + 3 * 6 / 8}  # fmt: skip
    for kind, model in models.items():
        for batch in (1, 8, 64):
            row = rows.loc[(model, batch)]
            if kind == "fixed" and batch != 8:
                assert (row["status"], row["failure_kind"]) == ("failed", "exception")
                assert "is invalid for input of size" in row["message"]
                continue
            assert (row["status"], list(row["uncounted_ops"])) == ("measured", [])
            assert row["macs"] == 64 * 16 * wanted.get((kind, batch), 1)
            assert row["weight_bytes"] == 4 * (64 * 16 + 16 + (kind == "leaving") * (64 * 48 + 48))


def test_a_batch_that_nothing_tells_of_is_a_reason_among_what_is_not_counted() -> None:
    work = Work(((2, 4.0), (3, 4.0), (4, 8.0), (40, 40.0)))
    prepared = Prepared(variant="variant", work=work)
    for batch, macs, reasons in ((40, 1.0, []), (64, None, [UNTOLD])):
        cell = Cell("model", "none", "cpu", 1, batch, "eager", 0)
        record = describe_variant(Record("run", cell, "measured"), prepared, None)
        assert record.conditions["uncounted_ops"] == reasons
        assert record.to_row()["macs"] == macs
