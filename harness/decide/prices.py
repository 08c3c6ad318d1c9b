"""Prices: what a million inferences cost, from a table of what devices cost by the hour."""

from __future__ import annotations

import fnmatch
from dataclasses import replace
from datetime import date
from pathlib import Path
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field

from harness.decide.frame import Frame, load_frame
from harness.record import Metric
from harness.store import Run
from harness.toml_data import check_data, read_toml

COST = "cost_per_million"
HINT = """A price table is like:
date = 2026-11-01
source = "list prices of a cloud, region, on demand"
currency = "USD"
[per_hour]
cpu = 0.17
"cuda*" = 1.20"""


class Prices(BaseModel):
    """A price table: what an hour of each device costs, by its name (`*` is any text)."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    date: date
    source: Annotated[str, Field(min_length=1)]
    currency: Annotated[str, Field(min_length=1)]
    per_hour: Annotated[dict[str, Annotated[float, Field(ge=0)]], Field(min_length=1)]

    def find(self, device: str) -> float:
        """Return the price of an hour of a device, the most precise name first; NaN if unknown."""
        fitting = [name for name in self.per_hour if fnmatch.fnmatchcase(device, name)]
        best = max(fitting, key=lambda name: len(name.replace("*", "")), default=None)
        return float("nan") if best is None else self.per_hour[best]


def read_prices(path: Path) -> Prices:
    """Return a price table; raise UserError for what is none."""
    return read_toml(path, Prices, HINT)


def parse_prices(data: dict[str, Any], where: str) -> Prices:
    """Return a price table from its data; raise UserError for what is none."""
    return check_data(data, Prices, where, HINT)


def load_priced(run: Run, prices: Path | None = None) -> Frame:
    """Return a run's cells, with their cost where a price table is named or came with the run."""
    frame = load_frame(run)
    if prices is not None:
        return with_prices(frame, read_prices(prices))
    kept = run.facts().get("prices")
    return (
        frame if kept is None else with_prices(frame, parse_prices(kept, f"{run.run_id}'s prices"))
    )


def with_prices(frame: Frame, prices: Prices) -> Frame:
    """Return the frame with the metric `cost_per_million`: price of an hour / inferences in it.

    Cells on a device without a price have none; the price is that of the whole device, however
    many of its threads are busy.
    """
    known = {name: prices.find(str(name)) for name in frame.cells["device"].dropna().unique()}
    a_million = frame.cells["device"].map(known).astype(float) / 3600 * 1e6
    rates = {"": "", "_low": "_high", "_high": "_low"}  # the faster, the cheaper
    costs = {
        f"{COST}{end}": a_million / frame.cells[f"throughput_per_s{other}"].astype(float)
        for end, other in rates.items()
    }
    metric = Metric(COST, prices.currency, "lower", "cost of a million inferences", interval=True)
    cells = frame.cells.assign(**costs)
    return replace(frame, cells=cells, metrics={**frame.metrics, COST: metric})
