"""Pictures of what is claimed, reached and scaled, on cells with known figures."""

from __future__ import annotations

import numpy as np
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from simulated import make_frame

from harness.report.batches import draw_batches, find_batch_series
from harness.report.duels import tell_duels, tell_scalings
from harness.report.gains import draw_gains, find_gains
from harness.report.roofline import draw_rooflines

ROOFS = {"cpu, threads 1": {"flops_per_s": {"float32": 1e11, "int8": 4e11},
                            "bytes_per_s": [[1e6, 6e10], [4e8, 1e10]]}}  # fmt: skip


def timed(latency_s: float, **facts: object) -> dict[str, object]:
    batch = facts.get("batch", 1)
    return {
        "technique": "baseline", "latency_s": latency_s, "latency_s_low": 0.99 * latency_s,
        "latency_s_high": 1.01 * latency_s, "throughput_per_s": batch / latency_s,
        "throughput_per_s_low": batch / latency_s, "throughput_per_s_high": batch / latency_s,
        "macs": 1e6, "bound": "compute", **facts,
    }  # fmt: skip


def test_a_gain_is_what_was_promised_and_what_was_measured() -> None:
    half = {"technique": "half", "macs": 5e5, "latency_ratio": 0.8, "latency_ratio_low": 0.75,
            "latency_ratio_high": 0.85}  # fmt: skip
    rows = [timed(1.0, latency_ratio=1.0), timed(0.8, **half),
            timed(0.9, technique="same", latency_ratio=0.9)]  # fmt: skip
    gains = find_gains(make_frame(rows))
    assert gains["technique"].tolist() == ["half"]
    (gain,) = gains.to_dict("records")
    assert gain["claimed"] == 2
    assert gain["measured"] == pytest.approx(1.25)
    assert gain["measured_low"] == pytest.approx(1 / 0.85)
    figure = draw_gains(gains, "a title")
    FigureCanvasAgg(figure).draw()
    (axes,) = figure.axes
    assert {text.get_text() for text in axes.get_legend().get_texts()} == {"as promised", "compute"}


def test_the_roofline_shows_each_explained_cell_under_its_roofs() -> None:
    rows = [
        timed(1e-4, arithmetic_intensity=50.0, dtype_in_effect="float32"),
        timed(
            1e-4, technique="b", arithmetic_intensity=0.5, dtype_in_effect="int8", bound="memory"
        ),
        timed(1e-4, technique="c", dtype_in_effect="float32"),
        timed(1e-4, technique="d", device="cuda", arithmetic_intensity=5.0),
    ]
    figure = draw_rooflines(make_frame(rows).measured, ROOFS, "a title")
    assert figure is not None
    FigureCanvasAgg(figure).draw()
    (axes,) = figure.axes
    points = np.concatenate([part.get_offsets() for part in axes.collections])
    assert sorted(map(tuple, points.tolist())) == [(0.5, 2e10), (50.0, 2e10)]
    assert {text.get_text() for text in axes.texts} == {"float32", "int8"}
    assert draw_rooflines(make_frame([timed(1.0)]).measured, ROOFS, "a title") is None


def test_a_cell_of_two_types_has_the_roofs_of_both() -> None:
    mixed = timed(1e-4, arithmetic_intensity=5.0, dtype_in_effect="float32+int8")
    figure = draw_rooflines(make_frame([mixed]).measured, ROOFS, "a title")
    assert figure is not None
    assert {text.get_text() for text in figure.axes[0].texts} == {"float32", "int8"}


def test_what_a_device_gives_and_takes_by_batch_has_a_line_for_each_device() -> None:
    rows = [timed(0.1 * batch, batch=batch, device=device, energy_j=2.0 * batch,
                  peak_memory_bytes=2**20 * batch)
            for batch in (1, 8, 64) for device in ("cpu", "cuda")]  # fmt: skip
    rows += [timed(1.0, model="once")]
    series = find_batch_series(make_frame(rows))
    assert set(series["model"]) == {"m"}
    figure = draw_batches(series, "a title")
    FigureCanvasAgg(figure).draw()
    panels = {axes.get_ylabel(): axes for axes in figure.axes}
    assert list(panels) == ["throughput, examples", "latency of a call", "memory",
                            "energy of an inference"]  # fmt: skip
    labels = [text.get_text() for text in figure.axes[0].get_legend().get_texts()]
    assert labels == ["cpu, threads 1", "cuda, threads 1"]
    assert set(panels["energy of an inference"].lines[0].get_ydata()) == {2.0}
    assert panels["memory"].lines[0].get_ydata().tolist() == [2**20, 2**23, 2**26]


def test_duels_are_told_with_ratio_crossing_memory_and_energy() -> None:
    rows = [timed(1e-3 * batch, batch=batch, device="cpu", energy_j=0.02 * batch,
                  peak_memory_bytes=2**20) for batch in (1, 16, 256)]  # fmt: skip
    rows += [timed(10e-3, batch=batch, device="cuda", cuda_process_bytes=2**30)
             for batch in (1, 16, 256)]  # fmt: skip
    sentences, told = tell_duels(make_frame(rows))
    assert sentences == [
        "cpu takes 0.1 times as long as cuda at the smallest common batch (1), in the geometric "
        "mean over 1 variant; cuda is faster at every batch for 0 of them, at none for 0, and "
        "overtakes at batch 10 (median of 1)."
    ]
    (row,) = told
    assert row["smallest"].startswith("1: 0.1 (0.0986–0.101)")
    assert row["largest"].startswith("256: 25.6")
    assert row["overtakes"].startswith("10 (")
    assert row["memory"] == "1.00 MiB / 1.00 GiB"
    assert row["energy"] == "20.0 mJ / –"
    assert row["cost"] == "– / –"


def test_of_variants_that_begin_at_unlike_batches_both_ends_are_named() -> None:
    rows = [timed(1e-3 * batch, batch=batch, device=device, technique=technique)
            for technique, batches in (("a", (4, 64)), ("b", (1, 64)), ("c", (8, 64)))
            for batch in batches for device in ("cpu", "cuda")]  # fmt: skip
    (sentence,), _ = tell_duels(make_frame(rows))
    assert "at the smallest common batch (1 to 8), in the geometric mean over 3" in sentence


def test_scaling_is_told_with_where_it_stops_paying() -> None:
    rows = [timed(s, threads=n) for n, s in ((1, 1.0), (2, 0.5), (4, 0.5))]
    (told,) = tell_scalings(make_frame(rows))
    assert "2: 2 (1.97–2.03)× (100% of each)" in told
    assert told.endswith("pays up to 2 threads")
