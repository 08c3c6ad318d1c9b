"""GPU against CPU, and threads against threads, in words and rows."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pandas as pd

from harness.decide.devices import (
    PAYS,
    Duel,
    Row,
    Scaling,
    energy_of_inference,
    find_duels,
    find_scalings,
    geometric_mean_ratio,
    memory_in_use,
)
from harness.decide.frame import Frame
from harness.decide.prices import COST
from harness.report import text
from harness.wording import counted

MOST_ROWS = 30
THREADS_RULE = (
    f"More threads pay where a call is surely (95 %) {PAYS:g} times as fast with them as with the "
    "next fewer that were measured."
)


def tell_duels(frame: Frame) -> tuple[list[str], list[dict[str, str]]]:
    """Return what holds over all variants, and a row for each of the first variants.

    Sentences: for each pair of devices the geometric mean of the ratios, how often the card is
    faster, and from which batch on. Rows: a variant's ratio at its smallest and largest batch, and
    what either device costs where its throughput is best.
    """
    duels = list(find_duels(frame))
    by_pair: dict[tuple[str, str], list[Duel]] = {}
    for duel in duels:
        by_pair.setdefault(duel.devices, []).append(duel)
    sentences = [_summarize(pair, found) for pair, found in by_pair.items()]
    if len(duels) > MOST_ROWS:
        sentences.append(f"The first {MOST_ROWS} of {len(duels)} variants are shown.")
    return sentences, [_make_row(duel) for duel in duels[:MOST_ROWS]]


def tell_scalings(frame: Frame) -> Iterator[str]:
    """Yield for each variant at each batch how it speeds up with threads, and where that ends."""
    for one in list(find_scalings(frame))[:MOST_ROWS]:
        yield _describe_scaling(one)


def _summarize(pair: tuple[str, str], duels: list[Duel]) -> str:
    mean = geometric_mean_ratio(duels)
    always, never = sum(one.always for one in duels), sum(one.never for one in duels)
    crossing = [one.overtakes_at.value for one in duels if np.isfinite(one.overtakes_at.value)]
    bounds = f" ({mean.low:.3g}–{mean.high:.3g})" if np.isfinite(mean.low) else ""
    least = sorted({one.at[0].batch for one in duels})
    smallest = f"{least[0]:g}" if len(least) == 1 else f"{least[0]:g} to {least[-1]:g}"
    words = (
        f"{pair[0]} takes {mean.value:.3g}{bounds} times as long as {pair[1]} at the smallest "
        f"common batch ({smallest}), in the geometric mean over {counted(len(duels), 'variant')}; "
        f"{pair[1]} is faster at every batch for {always} of them, at none for {never}"
    )
    if crossing:
        middle = float(np.median(crossing))
        words += f", and overtakes at batch {middle:.3g} (median of {len(crossing)})"
    return f"{words}."


def _make_row(duel: Duel) -> dict[str, str]:
    first, last = duel.at[0], duel.at[-1]
    best = [
        max((getattr(one, side) for one in duel.at), key=lambda cell: cell["throughput_per_s"])
        for side in ("first", "second")
    ]
    return {
        "variant": f"{duel.key['model']} · {duel.key['technique']}",
        "devices": " / ".join(duel.devices),
        "smallest": f"{first.batch:g}: {_ratio(first.ratio)}",
        "largest": f"{last.batch:g}: {_ratio(last.ratio)}" if last is not first else "–",
        "overtakes": _crossing(duel),
        "throughput": " / ".join(text.format_value(c["throughput_per_s"], "1/s") for c in best),
        "memory": " / ".join(text.format_value(memory_in_use(cell), "B") for cell in best),
        "energy": " / ".join(text.format_value(energy_of_inference(cell), "J") for cell in best),
        "cost": " / ".join(_cost(cell) for cell in best),
    }


def _ratio(estimate: object) -> str:
    value, low, high = (getattr(estimate, name) for name in ("value", "low", "high"))
    bounds = f" ({low:.3g}–{high:.3g})" if np.isfinite(low) and low != high else ""
    return f"{value:.3g}{bounds}"


def _crossing(duel: Duel) -> str:
    found = duel.overtakes_at
    if not np.isfinite(found.value):
        return "always" if duel.always else "never" if duel.never else "unclear"
    ends = [f"{end:.3g}" if np.isfinite(end) else "?" for end in (found.low, found.high)]
    return f"{found.value:.3g} ({'–'.join(ends)})"


def _cost(cell: Row) -> str:
    return f"{cell[COST]:.3g}" if COST in cell and pd.notna(cell[COST]) else "–"


def _describe_scaling(one: Scaling) -> str:
    steps = ", ".join(
        f"{count}: {_ratio(gain)}× ({efficiency:.0%} of each)"
        for count, gain, efficiency in zip(
            one.threads[1:], one.speed_up[1:], one.efficiency[1:], strict=True
        )
    )
    place = f"{one.key['model']} · {one.key['technique']}, batch {one.key['batch']:g}"
    if one.pays_up_to == one.threads[0]:
        end = f"more threads than {one.threads[0]} do not pay"
    else:
        end = f"pays up to {counted(one.pays_up_to, 'thread')}"
    return f"{place}: with threads {steps}; {end}"
