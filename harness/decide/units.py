"""Units: numbers as people write them, brought to the unit of a metric."""

from __future__ import annotations

from harness.errors import UserError

SCALES: dict[str, dict[str, float]] = {
    "s": {"s": 1, "ms": 1e-3, "us": 1e-6, "µs": 1e-6, "ns": 1e-9, "min": 60, "h": 3600},
    "B": {
        "B": 1, "kB": 1e3, "KB": 1e3, "MB": 1e6, "GB": 1e9, "TB": 1e12,
        "KiB": 2**10, "MiB": 2**20, "GiB": 2**30, "TiB": 2**40,
    },
    "J": {"J": 1, "mJ": 1e-3, "uJ": 1e-6, "µJ": 1e-6, "kJ": 1e3, "Wh": 3600},
    "1/s": {"/s": 1, "k/s": 1e3, "M/s": 1e6},
    "1": {"%": 0.01, "k": 1e3, "K": 1e3, "M": 1e6, "G": 1e9},
}  # fmt: skip
"""What a written unit is worth in the unit of a metric, by the metric's unit."""


def to_metric_unit(number: float, written: str, unit: str, of: str) -> float:
    """Return a number in the metric's unit; without a written unit it is in it already.

    Raises UserError where `written` is no unit of what `of` is measured in.
    """
    scales = SCALES.get(unit, {})
    if not written or written == unit:
        return number
    if written in scales:
        return number * scales[written]
    kind = unit if unit != "1" else "a plain number"
    known = f"; it takes {', '.join(scales)}" if scales else ""
    raise UserError(f"{number:g} {written} does not fit {of}, which is in {kind}{known}.")
