"""Claims: techniques that promise less work and yet take longer, in words and with the reason."""

from __future__ import annotations

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from bench.spec import parse_pipeline
from harness.decide.frame import Frame, average_seeds, baseline_of, seed_rows
from harness.report import text
from harness.stats import correct_p_values

LESS = 0.95
"""Share of the baseline's MACs or bytes from which on a variant claims to be lighter."""


Q_VALUE = 0.05
"""Of so many that are told, one in twenty may be luck."""


def find_claims(frame: Frame) -> list[str]:
    """Return a sentence for each technique and bound where less work took more time.

    A cell counts where the whole interval of its latency ratio is above 1, and its p-value is small
    for as many cells as there are. Cells of one technique, at whatever strength, that promise the
    same and are bound by the same are told together, by the one that is slower most clearly.
    """
    if not frame.has("latency_ratio"):
        return []
    cells = average_seeds(frame)
    groups: dict[tuple[str, str, str], list[tuple[pd.Series, float]]] = {}
    for _, cell in cells[(cells["latency_ratio_low"] > 1) & ~_may_be_luck(frame, cells)].iterrows():
        baseline = baseline_of(cell, cells)
        promise = None if baseline is None else _find_promise(cell, baseline)
        if promise is not None:
            kind, share = promise
            key = (_family(str(cell["technique"])), kind, str(cell.get("bound")))
            groups.setdefault(key, []).append((cell, share))
    return [_tell(key, found) for key, found in groups.items()]


def _may_be_luck(frame: Frame, cells: pd.DataFrame) -> NDArray[np.bool_]:
    """Tell of variants, rows of `average_seeds`, which might be slower in one of so many by chance.

    Of several seeds, by the one that tells it least. What has no p-value is not asked: it is
    another's table.
    """
    measured = frame.measured
    p_values = measured.reindex(columns=["latency_ratio_p_value"]).to_numpy(float)[:, 0]
    q_values = correct_p_values(p_values)  # a run that was killed has none yet
    found = [q_values[rows] for rows in seed_rows(frame, cells)]
    return np.array([bool((one >= Q_VALUE).any()) for one in found], dtype=bool)


def _find_promise(cell: pd.Series, baseline: pd.Series) -> tuple[str, float] | None:
    """What a variant has less of than its baseline, and the share that is left."""
    for kind, name in (
        ("of the multiply-accumulates", "macs"),
        ("of the stored bytes", "weight_bytes"),
        ("of the weights are not zero", "nonzero_params"),
    ):
        share = cell[name] / baseline[name] if baseline[name] else float("nan")
        if share < LESS:
            return kind, float(share)
    return None


def _family(technique: str) -> str:
    """The names of a pipeline's steps, without their parameters."""
    return " + ".join(call.name for call in parse_pipeline(technique))


def _tell(key: tuple[str, str, str], found: list[tuple[pd.Series, float]]) -> str:
    _, kind, bound = key
    cell, share = max(found, key=lambda one: one[0]["latency_ratio_low"])
    ratio = text.format_interval(
        cell["latency_ratio"], cell["latency_ratio_low"], cell["latency_ratio_high"], "1"
    )
    place = f"{cell['model']}, {cell['device']}, threads {cell['threads']}, batch {cell['batch']}"
    more = f" (the clearest of {len(found)} such cells)" if len(found) > 1 else ""
    return (
        f"{cell['technique']}: {share:.0%} {kind}, yet {ratio} times the latency of its baseline "
        f"on {place}{more}. {_explain(cell, kind, bound)}"
    ).strip()


def _explain(cell: pd.Series, kind: str, bound: str) -> str:
    """Why it did not pay; nothing where it is not known what bounds the call."""
    if bound not in ("overhead", "memory", "compute"):
        return ""
    if bound == "overhead":
        return (
            "The call is bound by overhead: starting operators takes longer than what they "
            "compute, and there are no fewer of them."
        )
    roof = f"{cell['fraction_of_roof']:.0%} of the roof"
    if str(cell["realization"]).endswith("packed"):
        return (
            f"Bound by {bound}, at {roof}: the weights are unpacked for every call, which is work "
            "that the count does not see."
        )
    if bound == "memory":
        return f"Bound by memory, at {roof}: it is bytes moved that count, not multiplications."
    if "zero" in kind:
        return f"Bound by compute, at {roof}: the kernels are dense and multiply the zeros too."
    return f"Bound by compute, at {roof}: its kernels come less near to what the machine can do."
