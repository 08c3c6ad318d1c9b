"""What the literature says of techniques, held against a run of them, with three seeds.

`python -m harness.report.relations CELLS [RECIPES] > docs/relations.md` with the cells of a run of
techniques.toml and, where there is one, of a run of recipes.toml.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from dataclasses import astuple, dataclass
from itertools import pairwise

import numpy as np
import pandas as pd

from harness.decide.mean import mean_interval
from harness.record import TIMED

HEAD = """# Relations: what the literature says, and what was measured

Made by `python -m harness.report.relations CELLS RECIPES > docs/relations.md` from the runs of
`bench/grids/techniques.toml` and `recipes.toml` that docs/evidence.md names; a test compares.
Differences are of accuracy on the test split in points, each seed's variant against the same
seed's, with the 95 % interval of the mean over seeds (t, two degrees of freedom). Ratios are
of the baseline's. *holds*: the whole interval says so; *on average*: the mean does, the interval
does not exclude the contrary; *does not hold*: the mean says the contrary.

| relation | model | figure | verdict |
|---|---|---:|---|
"""
PRUNED = (0.5, 0.7, 0.8, 0.9, 0.95)
SPARSEST = (0.8, 0.9, 0.95)
TUNING_EPOCHS = 3


@dataclass(frozen=True)
class Figure:
    """A number with its interval over seeds, and the bound that a relation sets for it."""

    relation: str
    model: str
    values: np.ndarray
    least: float
    unit: str = " points"
    digits: int = 1

    def verdict(self) -> str:
        """Say whether the values are above the bound: all of the interval, or the mean alone."""
        found = mean_interval(self.values)
        if found.low >= self.least:
            return "holds"
        return "on average" if found.value >= self.least else "**does not hold**"

    def row(self) -> str:
        """Return the figure as a row of the table."""
        mean, low, high = astuple(mean_interval(self.values))
        shown = f"{mean:+z.{self.digits}f}" if self.unit else f"{mean:z.{self.digits}f}"
        bounds = f"({low:z.{self.digits}f} … {high:z.{self.digits}f})"
        text = f"{shown} {bounds}{self.unit}".replace("-", "−")
        return f"| {self.relation} | {self.model} | {text} | {self.verdict()} |"


def write_relations(cells: pd.DataFrame, recipes: pd.DataFrame | None = None) -> str:
    """Return the document."""
    found = [*find_figures(cells), *(() if recipes is None else find_arrivals(recipes))]
    return HEAD + "\n".join(figure.row() for figure in found) + "\n"


def find_figures(cells: pd.DataFrame) -> Iterator[Figure]:
    """Yield the figure of each relation for each model that has its cells."""
    measured = cells[cells["status"].isin(TIMED)]
    for model, rows in measured.groupby("model", sort=False):
        table = rows.pivot_table(
            index="seed", columns="technique",
            values=["accuracy", "weight_bytes", "latency_ratio", "latency_ratio_high"],
        )  # fmt: skip
        yield from _find_in(str(model), table)


def _find_in(model: str, table: pd.DataFrame) -> Iterator[Figure]:
    def has(*techniques: str) -> bool:
        return all(("accuracy", technique) in table for technique in techniques)

    def gap(better: str, worse: str) -> np.ndarray:
        return 100 * (table["accuracy", better] - table["accuracy", worse]).to_numpy(float)

    def smaller(technique: str) -> np.ndarray:
        ratio = table["weight_bytes", "baseline"] / table["weight_bytes", technique]
        return np.asarray(ratio, float)

    yield from _find_pruning(model, has, gap)
    for name in ("int8-dynamic", "int8-static", "int8-weight-only"):
        if has(name):
            yield Figure(f"{name} loses at most 0.5", model, gap(name, "baseline"), -0.5)
    for left, right, words in (
        ("int4-weight-only", "affine(4)", "4 bits by groups of 32 above 4 bits per tensor"),
        ("distill('shrink(0.25)')", "shrink(0.25)", "distilled above the same from scratch"),
        ("few-labels(0.1) + distill('shrink(0.5)', labels=False)", "few-labels(0.1) + shrink(0.5)",
         "10 % of the labels: distilled on all inputs above the same from scratch"),
        ("few-labels(0.1) + pretrain('supervised')", "few-labels(0.1)",
         "10 % of the labels: pretrained on classes above from scratch"),
        ("few-labels(0.1) + pretrain('autoencoder')", "few-labels(0.1)",
         "10 % of the labels: autoencoder above from scratch"),
        ("few-labels(0.1) + pretrain('gan')", "few-labels(0.1)",
         "10 % of the labels: GAN above from scratch"),
    ):  # fmt: skip
        if has(left, right):
            yield Figure(words, model, gap(left, right), 0.0)
    tuned, shared, halved = "binary(10)", "share-weights(32)", "prune-channels(0.5)"
    if has(tuned):
        yield Figure("binary, fine-tuned: 20 times smaller", model, smaller(tuned), 20, "")
    if has(shared):
        yield Figure("32 clusters lose at most 3", model, gap(shared, "baseline"), -3)
        yield Figure("32 clusters: 4.5 times smaller", model, smaller(shared), 4.5, "")
    if has(halved):
        yield Figure("half the channels lose at most 2", model, gap(halved, "baseline"), -2)
        faster = 1 / table["latency_ratio", halved].to_numpy(float)
        yield Figure("half the channels are faster (times)", model, faster, 1, "", 2)


def _find_pruning(
    model: str, has: Callable[..., bool], gap: Callable[[str, str], np.ndarray]
) -> Iterator[Figure]:
    """Yield what tells the ways of pruning apart, without training afterwards and with it."""
    for share in PRUNED:
        better, worse = f"prune-gradient({share})", f"prune-random({share})"
        if has(better, worse):
            words = f"gradient above random at {share * 100:g} %"
            yield Figure(words, model, gap(better, worse), 0.0)
    for epochs in (0, TUNING_EPOCHS):
        tuned, words = (f", finetune_epochs={epochs}", ", fine-tuned") if epochs else ("", "")
        gaps = {}
        for share in SPARSEST:
            names = [f"prune-{way}({share}{tuned})" for way in ("magnitude", "random")]
            if has(*names):
                gaps[share] = gap(*names)
                told = f"magnitude above random at {share * 100:g} %{words}"
                yield Figure(told, model, gaps[share], 0.0)
        for least, most in pairwise(gaps):
            told = f"magnitude's gap grows from {least * 100:g} to {most * 100:g} %{words}"
            yield Figure(told, model, gaps[most] - gaps[least], 0.0)


def find_arrivals(recipes: pd.DataFrame) -> Iterator[Figure]:
    """Yield how much sooner momentum and adam reach the target than gd; never is after its end."""
    one = recipes[recipes["status"].isin(TIMED) & (recipes["threads"] == 1)]
    for model, rows in one.groupby("model", sort=False):
        spent = [len(way) * updates * latency for way, updates, latency in
                 zip(rows["tune_quality"], rows["updates_per_epoch"], rows["latency_s"],
                     strict=True)]  # fmt: skip
        arrival = rows["time_to_target_s"].fillna(pd.Series(spent, index=rows.index))
        table = rows.assign(arrival=arrival).pivot(
            index="seed", columns="technique", values="arrival"
        )
        slow = next(name for name in table if str(name).startswith("optimizer('gd'"))
        for name in ("optimizer('momentum')", "optimizer('adam')"):
            sooner = (table[slow] / table[name]).to_numpy(float)
            words = f"{name} reaches the target before gd (times sooner, at least)"
            yield Figure(words, str(model), sooner, 1, "", 2)


if __name__ == "__main__":
    sys.stdout.write(write_relations(*(pd.read_parquet(path) for path in sys.argv[1:3])))
