"""The answer: which variants are on the frontier, and what each is worth against its baseline."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import pandas as pd

from harness.decide.frame import GROUP, Frame, baseline_of, variant_name
from harness.decide.frontier import (
    Group,
    Objective,
    choose_objectives,
    find_frontiers,
    quality_metric,
)
from harness.decide.membership import judge
from harness.decide.noise import Noise

NAN = float("nan")


@dataclass(frozen=True)
class Choice:
    """A member of a frontier, with its gain and loss against the baseline of its model.

    Ratios are variant over baseline (0.5: half the time); quality_change is a difference;
    membership is the probability that it is on the frontier, NaN where nothing tells of doubt.
    """

    name: str
    cell: pd.Series
    is_baseline: bool
    latency_ratio: float
    latency_ratio_low: float
    latency_ratio_high: float
    weight_ratio: float
    quality_change: float
    membership: float


@dataclass(frozen=True)
class Answer:
    """A group's frontier as choices, the fastest first, and how many cells it was chosen from."""

    group: Group
    objectives: tuple[Objective, ...]
    quality: str
    choices: tuple[Choice, ...]

    @property
    def near(self) -> pd.DataFrame:
        """The cells that are within the noise of the frontier, the most probable first."""
        beaten = self.group.dominated
        if "standing" not in beaten:
            return beaten[:0]
        return beaten[beaten["standing"] == "near"].sort_values("membership", ascending=False)

    @property
    def considered(self) -> int:
        """How many complete cells the frontier was chosen from."""
        return len(self.group.members) + len(self.group.dominated)


def answer(
    frame: Frame,
    objectives: Sequence[Objective] | None = None,
    noise: Noise | None = None,
    by: Sequence[str] = GROUP,
) -> list[Answer]:
    """Return the frontier of every group as choices; with noise, how sure each is.

    Without objectives each task is judged by latency and by accuracy, or by fidelity where it has
    no data.
    """
    answers = []
    for part in frame.by_task().values():
        quality = quality_metric(part)
        chosen = tuple(objectives or choose_objectives(part))
        for found in find_frontiers(part, chosen, by):
            group = judge(found, part, chosen, noise) if noise else found
            cells = pd.concat([group.members, group.dominated, group.incomplete])
            models = list(dict.fromkeys(cells["model"]))
            choices = tuple(
                _make_choice(row, cells, quality, models) for _, row in group.members.iterrows()
            )
            answers.append(Answer(group, chosen, quality, choices))
    return answers


def _make_choice(
    row: pd.Series, cells: pd.DataFrame, quality: str, models: Sequence[str]
) -> Choice:
    baseline = baseline_of(row, cells)

    def ratio(column: str) -> float:
        if baseline is None or not baseline[column] or pd.isna(baseline[column]):
            return NAN
        return float(row[column] / baseline[column])

    change = NAN if baseline is None else float(row[quality] - baseline[quality])
    return Choice(
        variant_name(row, models),
        row,
        baseline is not None and row["cell_id"] == baseline["cell_id"],
        float(row["latency_ratio"]),
        float(row["latency_ratio_low"]),
        float(row["latency_ratio_high"]),
        ratio("weight_bytes"),
        change,
        float(row.get("membership", NAN)),
    )
