"""Payload: what the page's own program gets: columns, variants, and the rounds of their cells."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd

from harness.decide.answer import Answer
from harness.decide.frame import GROUP, Frame, average_seeds, seed_rows
from harness.decide.frontier import quality_metric
from harness.decide.noise import Noise
from harness.record import Metric
from harness.report.advice import name_cell

TARGET = "interval target"
MEMBERSHIP = Metric("membership", "1", "higher", "on the frontier")
STANDING = ["cell_id", "standing", "membership", "dominated_by"]
TEXTS = ("model", "technique", "device", "threads", "batch", "runtime", "task", "realization",
         "bound", TARGET, "standing", "beaten by")  # fmt: skip
SHOWN = (
    "latency_s", "latency_ratio", "throughput_per_s", "accuracy", "r2", "fidelity", "params",
    "weight_bytes", "peak_memory_bytes", "macs", "fraction_of_roof", "energy_j",
    "time_to_target_s", "cost_per_million", "membership",
)  # fmt: skip
MOST_BLOCKS = 150_000
"""Blocks that a page can hold: about 4 MB."""
DIGITS = 6


def make_payload(frame: Frame, noise: Noise, answers: Sequence[Answer]) -> dict[str, Any]:
    """Return the page's data, JSON-able: a list for each column, rounds by cell.

    A row is a variant at a place, its metrics the mean over seeds, as in `average_seeds`; where it
    stands is as the answers say.
    """
    variants = average_seeds(frame).copy()
    variants[TARGET] = [tell_target(row) for _, row in variants.iterrows()]
    variants = variants.merge(list_standings(answers), on="cell_id", how="left")
    metrics = [one for one in frame.metrics.values() if frame.has(one.name)]
    if variants[MEMBERSHIP.name].notna().any():
        metrics.append(MEMBERSHIP)
    texts = [name for name in TEXTS if name in variants and variants[name].notna().any()]
    cells: dict[str, list[Any]] = {
        name: [_text(value) for value in variants[name]]
        for name in dict.fromkeys((*TEXTS, *GROUP, "cell_id"))
        if name in variants
    }
    for metric in metrics:
        for column in metric.columns():
            if column in variants and variants[column].notna().any():
                cells[column] = [_number(value) for value in variants[column]]
    rounds, causes, left_out = list_rounds(frame, variants, noise)
    quality = quality_metric(frame)
    return {
        "count": len(variants),
        "columns": [_describe(metric) for metric in metrics],
        "texts": texts,
        "group": [name for name in GROUP if name in texts],
        "cells": cells,
        "rounds": rounds,
        "causes": causes,
        "rounds_left_out": left_out,
        "start": {"x": "latency_s", "y": quality, "colour": _choose_colour(variants)},
    }


def list_standings(answers: Sequence[Answer]) -> pd.DataFrame:
    """Return for each cell_id its standing, its membership, and by name which cell beats it."""
    parts: list[pd.DataFrame] = []
    names: dict[str, str] = {}
    for group in (one.group for one in answers):
        names |= {row["cell_id"]: name_cell(row) for _, row in group.members.iterrows()}
        for plain, cells in (("member", group.members), ("dominated", group.dominated),
                             ("incomplete", group.incomplete)):  # fmt: skip
            told = cells.reindex(columns=STANDING)
            parts.append(told.assign(standing=told["standing"].fillna(plain)))
    found = pd.concat(parts, ignore_index=True)
    found["beaten by"] = found.pop("dominated_by").map(names)
    return found


def list_rounds(
    frame: Frame, variants: pd.DataFrame, noise: Noise
) -> tuple[dict[str, list[list[float]]], list[str], str]:
    """Return the blocks of each variant's first seed: round, median in seconds, cause.

    Causes are numbers of a list, 0 for an undisturbed block. Where there are more than a page can
    hold, the last variants have none, and why is said.
    """
    blocks = noise.blocks
    causes = ["", *sorted(set(blocks["cause"]) - {""})]
    places = {cause: place for place, cause in enumerate(causes)}
    ids = frame.measured["cell_id"].to_numpy()
    by_cell = dict(iter(blocks.groupby("cell_id", sort=False)))
    found: dict[str, list[list[float]]] = {}
    held = 0
    for row, seeds in zip(variants["cell_id"], seed_rows(frame, variants), strict=True):
        part = by_cell.get(ids[seeds[0]])
        if part is None:
            continue
        held += len(part)
        if held > MOST_BLOCKS:
            return found, causes, "the page would be too large; `paretogrid query` has the samples"
        found[str(row)] = [
            [int(number), float(f"{median:.4g}"), places[cause]]
            for number, median, cause in zip(
                part["round"], part["median_s"], part["cause"], strict=True
            )
        ]
    return found, causes, ""


def tell_target(row: pd.Series) -> str | None:
    """Say whether a cell's interval became as narrow as asked; nothing where none was asked."""
    if row["interval_reached"] is None or pd.isna(row["interval_reached"]):
        return None
    if not row["interval_reached"] and row["stopped_by"] == "decision":
        return "not needed: its place, or a tie, was known"
    return "reached" if row["interval_reached"] else f"not reached ({row['stopped_by']})"


def write_payload(payload: dict[str, Any]) -> str:
    """Return the data as JSON that can stand in a script element: no tag can begin or end in it."""
    text = json.dumps(payload, ensure_ascii=True, allow_nan=False, separators=(",", ":"))
    return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")


def _describe(metric: Metric) -> dict[str, Any]:
    return {
        "name": metric.name, "label": metric.label, "unit": metric.unit,
        "direction": metric.direction, "shown": metric.name in SHOWN,
    }  # fmt: skip


def _choose_colour(variants: pd.DataFrame) -> str:
    counts = {name: variants[name].nunique() for name in ("model", "device", "technique")}
    return next((name for name in counts if counts[name] > 1), "model")


def _number(value: float) -> float | None:
    return float(f"{value:.{DIGITS}g}") if np.isfinite(value) else None


def _text(value: Any) -> str | int | None:
    if value is None or value != value:  # noqa: PLR0124  # NaN is not itself
        return None
    return int(value) if isinstance(value, int | float | np.number) else str(value)
