"""Data sets with fixed train, tune and test splits."""

from __future__ import annotations

from bench.data import embedded, folder, idx
from bench.data.splits import Dataset, Split
from bench.errors import SpecError
from bench.registry import build

__all__ = ["Dataset", "Split", "embedded", "folder", "idx", "load_dataset"]


def load_dataset(text: str | Dataset) -> Dataset:
    """Return the data set that `text` names: `digits`, `folder:PATH`, `my.py:load`."""
    if isinstance(text, Dataset):
        return text
    if not isinstance(text, str):
        raise SpecError(f"A data set is named by text in quotes or a Dataset, got {text!r}.")
    made = build("dataset", text)
    if not isinstance(made, Dataset):
        raise SpecError(
            f"Data set {text!r} returned {type(made).__name__}, not a bench.data.Dataset."
        )
    return made
