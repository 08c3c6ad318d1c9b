"""The report of a run: one page that stands alone, with every cell and no surprises."""

from __future__ import annotations

import base64
import hashlib
import html
import json
import re
import xml.etree.ElementTree as ET
from html.parser import HTMLParser
from math import inf, nan

import numpy as np
import pandas as pd
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from PIL import Image
from simulated import make_frame

from harness.decide.answer import answer
from harness.decide.sources import load_source
from harness.grid import Cell
from harness.record import EXAMPLES_SCHEMA, SAMPLES_SCHEMA, Metric, Record
from harness.report import text
from harness.report.doubts import find_doubts
from harness.report.figures import Panel, draw_trade_off
from harness.report.labels import place_labels
from harness.report.style import Style
from harness.report.write import summarize, write_report
from harness.scores import wilson_interval
from harness.stats import Estimate
from harness.store import Run

SCRIPT = "<script>alert(1)</script>"
PIPE = "a | b('$\\frac$', \"<i>\")"
MODELS = ("net", SCRIPT)
TECHNIQUES = ("baseline", "half", PIPE, "_under")
FAILURE = "ValueError: shape <b>1</b> | 2\nsecond line (net.py:3)"
SKIP = 'PIPE has CPU kernels only. Use device "cpu" or exclude the pair.'
WARNING = "oversubscribed: 2 threads on <b>1</b> processors"
FACTS = {
    "machine": {"cpu_model": "A processor <b>9000</b>", "processors": 2, "flags": ["avx", "avx2"],
                "caches": [{"level": 3, "type": "Unified", "size_bytes": 2**25, "shared_by": 2}],
                "container": {"cpus": 1.5, "memory_bytes": None},
                "libraries": {"torch": "2.13.0"}},
    "roofs": {"cpu, threads 1": {"flops_per_s": {"float32": 1.2e11}, "dispatch_s": 1.4e-6,
                                 "bytes_per_s": [[2**20, 6e10], [2**29, 1e10]]}},
    "command": f"paretogrid run --model '{SCRIPT}'",
    "exclusions": [{"rule": {"model": SCRIPT, "device": "cuda"}, "cells": 1}],
    "state": "finished",
}  # fmt: skip


def make_cells():
    return [
        Cell(model, technique, "cpu", threads, batch, "eager", 0)
        for model in MODELS
        for threads in (1, 2)
        for batch in (1, 64)
        for technique in TECHNIQUES
    ]


def measure(record, number):
    """Give a record plausible metrics: smaller variants are faster and less accurate."""
    cell = record.cell
    ratio = 1.0 / (1 + TECHNIQUES.index(cell.technique))
    size = ratio * (1 + MODELS.index(cell.model))
    latency = 0.0004 * size * cell.batch**0.7 / cell.threads**0.5
    hits = int(950 - 300 * (1 - min(size, 1.0)) ** 2 + 20 * MODELS.index(cell.model))
    return record.measured(
        latency_s=Estimate(latency, 0.99 * latency, 1.01 * latency),
        latency_ratio=Estimate(ratio, 0.99 * ratio, 1.01 * ratio),
        throughput_per_s=Estimate(cell.batch / latency, cell.batch / latency, cell.batch / latency),
        accuracy=wilson_interval(hits, 1_000),
        macro_f1=hits / 1_000 - 0.001,
        fidelity=0.9,
        params=4e4 * size,
        nonzero_params=4e4 * size,
        weight_bytes=1.6e5 * size,
        disk_bytes=1.7e5 * size,
        peak_memory_bytes=2**20 * (1 + size),
        macs=2e6 * size,
        prepare_s=3.2,
        arithmetic_intensity=1.25,
        fraction_of_roof=0.031,
    ).under(
        bound="overhead",
        dtype_in_effect="float32",
        disturbed_share=0.25,
        headline_blocks="clean" if cell.batch == 1 else "loaded",
        oversubscribed=cell.threads == 2,
        machine_speed={1: 0.85, 2: 0.55}.get(number, 0.97),
        settled=number != 3,
        together=True,
        interval_reached=number % 7 != 0,
        stopped_by="interval" if number % 7 else "budget",
        warnings=[WARNING] if cell.threads == 2 else [],
    )


def add(run, record):
    run.add(record, SAMPLES_SCHEMA.empty_table(), EXAMPLES_SCHEMA.empty_table())


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """The report of a run with hostile names, a failed cell and two skipped ones."""
    root = tmp_path_factory.mktemp("report")
    run = Run.create(root / "store", "demo", FACTS)
    cells = make_cells()
    for number, cell in enumerate(cells):
        stamp = f"2026-01-01T00:00:{number:02d}.000+00:00"
        record = Record(run.run_id, cell, "measured", started_at=stamp, task="a task",
                        realization="executed" if number % 2 else "")  # fmt: skip
        if number == 5:
            facts = {"status": "failed", "failure_kind": "exception", "message": FAILURE}
        elif number in (10, 11):
            facts = {"status": "skipped", "message": SKIP}
        else:
            add(run, measure(record, number))
            continue
        add(run, Record(run.run_id, cell, started_at=stamp, **facts))
    run.compact()
    return write_report(load_source([run]), root / "reports").parent


@pytest.fixture(scope="module")
def page(folder):
    return (folder / "index.html").read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def markup(page):
    """The page without what stands in its scripts."""
    return re.sub(r"(<script[^>]*>).*?(</script>)", r"\1\2", page, flags=re.DOTALL)


@pytest.fixture(scope="module")
def payload(page):
    (text,) = re.findall(r'<script type="application/json" id="data">(.*?)</script>', page)
    return json.loads(text)


@pytest.fixture(scope="module")
def markdown(folder):
    return (folder / "report.md").read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def parsed(page):
    return Parsed(page)


VOID = {"meta", "br", "hr", "img", "link", "input"}


class Parsed(HTMLParser):
    """Tags with their attributes, the text outside pictures, and tags that were never closed."""

    def __init__(self, page):
        super().__init__()
        self.tags, self.open, self.words, self.wrong = [], [], [], []
        self.feed(page)

    def handle_starttag(self, tag, attributes):
        self.tags.append((tag, dict(attributes)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attributes):
        self.tags.append((tag, dict(attributes)))

    def handle_endtag(self, tag):
        if not self.open or self.open.pop() != tag:
            self.wrong.append(tag)

    def handle_data(self, data):
        if not {"svg", "script"} & set(self.open):
            self.words.append(data)

    @property
    def text(self):
        return " ".join(" ".join(self.words).split())


# The page


@pytest.mark.slow
def test_the_report_has_a_page_a_markdown_file_and_each_picture_twice(folder):
    names = {path.name for path in folder.iterdir()}
    pictures = {"latency", "size", "memory", "threads", "batches", "gains", "roofline"}
    expected = {f"{name}.{kind}" for name in pictures for kind in ("png", "svg")}
    assert names == {"index.html", "report.md"} | expected


@pytest.mark.slow
def test_pictures_are_whole_and_large_enough(folder):
    for path in folder.glob("*.png"):
        with Image.open(path) as picture:
            picture.load()
            assert min(picture.size) > 300
            assert len(np.unique(np.asarray(picture.convert("L")))) > 10, "an empty picture"
    for path in folder.glob("*.svg"):
        assert ET.parse(path).getroot().tag.endswith("svg")


def test_the_page_fetches_nothing(markup, parsed):
    for tag, attributes in parsed.tags:
        for name in ("src", "href", "xlink:href", "action", "data", "poster", "srcset"):
            target = attributes.get(name) or ""
            assert not re.match(r"\s*(\w+:)?//|\s*https?:", target), (tag, target)
    tags = {tag for tag, _ in parsed.tags}
    assert not tags & {"link", "iframe", "object", "embed", "base", "form"}
    assert "@import" not in markup
    assert not re.search(r"url\((?!#)", markup)
    assert any("Content-Security-Policy" in (a.get("http-equiv") or "") for _, a in parsed.tags)


def test_the_page_is_well_formed(parsed):
    assert parsed.wrong == []
    assert parsed.open == []


def test_only_the_pages_own_scripts_may_run(markup, page):
    """Data, library, program: the last two by their digests, no other and nothing inline."""
    assert markup.lower().count("<script") == 3
    (policy,) = re.findall(r'http-equiv="Content-Security-Policy" content="([^"]*)"', markup)
    (allowed,) = re.findall(r"script-src ([^;]*)", html.unescape(policy))
    bodies = re.findall(r"<script>(.*?)</script>", page, re.DOTALL)
    digests = [base64.b64encode(hashlib.sha256(body.encode()).digest()) for body in bodies]
    assert allowed.split() == [f"'sha256-{digest.decode()}'" for digest in digests]
    assert "unsafe" not in allowed


def test_hostile_names_stay_text(markup, parsed, payload):
    assert "i" not in {tag for tag, _ in parsed.tags}
    assert SCRIPT in payload["cells"]["model"]
    assert PIPE in payload["cells"]["technique"]
    assert SCRIPT in parsed.text
    assert PIPE in parsed.text
    assert not [name for _, attributes in parsed.tags for name in attributes if name[:2] == "on"]


def test_the_answer_comes_before_the_pictures_and_the_pictures_before_the_table(page):
    places = [page.index(part) for part in ('id="answer"', "<figure", 'id="cells"')]
    assert places == sorted(places)


def test_every_reason_is_shown_with_its_cells(parsed):
    assert "failed (exception)" in parsed.text
    assert " ".join(FAILURE.split()) in parsed.text
    assert f", 2 cells: {SKIP}" in parsed.text
    assert "29 cells measured, 1 failed, 2 skipped" in parsed.text
    for cell in (make_cells()[n] for n in (5, 10, 11)):
        place = f"{cell.technique}, cpu, threads {cell.threads}, batch {cell.batch}"
        assert f"{cell.model}, {place}" in parsed.text


def test_exclusions_warnings_and_the_machine_are_shown(parsed):
    assert "Excluded by the grid, 1 cell:" in parsed.text
    assert f'"model": "{SCRIPT}"' in parsed.text
    assert f"cells: {WARNING}" in parsed.text
    assert "A processor <b>9000</b>" in parsed.text
    assert "avx avx2" in parsed.text
    assert FACTS["command"] in parsed.text


def test_every_measured_cell_is_in_the_data(payload):
    assert payload["count"] == 29
    assert {len(column) for column in payload["cells"].values()} == {29}
    assert payload["start"] == {"x": "latency_s", "y": "accuracy", "colour": "model"}


def test_cells_that_spent_their_budget_are_counted(parsed, payload):
    assert "5 of 29 cells spent their budget" in parsed.text
    assert payload["cells"]["interval target"].count("not reached (budget)") == 5


def test_a_cell_that_left_as_its_place_was_known_has_not_spent_its_budget():
    told = {"status": "measured", "interval_reached": False}
    cells = pd.DataFrame([told | {"stopped_by": by} for by in ("decision", "budget", "decision")])
    assert find_doubts(cells) == [
        "1 of 3 cells spent its budget before the interval was as narrow as asked."
    ]


def test_blocks_are_counted_where_cells_had_many_of_them_and_few():
    shares = {"disturbed_share": [1.0, 0.0], "status": "measured", "interval_reached": True}
    for rounds, told in (([10, 990], "1.0%"), ([5, 5], "50.0%"), ([None, None], "50.0%")):
        cells = pd.DataFrame(shares | {"rounds": rounds})
        assert find_doubts(cells)[-1].startswith(f"{told} of all blocks were disturbed")


@pytest.mark.parametrize(
    ("fastest", "told"),
    [
        ("baseline", "fastest: small · baseline."),
        ("bf16", "fastest: small · bf16, 2.00× as fast as its baseline, −10.0 points."),
    ],
)
def test_the_fastest_of_a_frontier_is_named_though_it_is_a_baseline(fastest, told):
    rows = [
        {"model": "small", "technique": fastest, "latency_s": 1.0, "accuracy": 0.7},
        {"model": "small", "technique": "slow", "latency_s": 9.0, "accuracy": 0.1},
        {"model": "wide", "technique": "prune", "latency_s": 2.0, "accuracy": 0.8},
        {"model": "wide", "technique": "baseline", "latency_s": 3.0, "accuracy": 0.9},
    ]
    if fastest != "baseline":
        rows.append({"model": "small", "technique": "baseline", "latency_s": 4.0, "accuracy": 0.8})
    frame = make_frame([{"latency_ratio": 0.5, **row} for row in rows])
    (one,) = answer(frame)
    assert summarize(one).endswith(told)
    assert summarize(one).startswith("Best accuracy: wide · baseline")


def test_the_fastest_variant_is_named_with_its_gain_and_loss(parsed):
    sentence = re.search(r"a task, cpu, threads 1, batch 1 (Best accuracy.*?\.) ", parsed.text)
    assert sentence
    assert re.search(r"fastest: net · _under, 4\.00× as fast as its baseline", sentence[1])
    assert re.search(r"−16\.9 points", sentence[1])


# Markdown


def test_the_report_says_what_to_doubt_before_the_cells(page, markdown):
    for shown in (page, markdown):
        assert "14 of 29 cells had more running threads than processors." in shown
        assert "1 of 29 cells drifted by more than 5 %, beyond what the machine did." in shown
        assert "cells were measured beside other work throughout." in shown
        assert "25.0% of all blocks were disturbed; they are kept and marked." in shown
        assert "2 of 29 cells were timed while the machine ran at 55% to 85% of the" in shown
        assert "too big to be alive together" not in shown


def test_the_report_says_what_bounds_each_cell_and_what_the_machine_can_reach(
    page, markdown, payload
):
    assert payload["cells"]["bound"] == ["overhead"] * 29
    assert "| float32 | 1.25 | 3.1% | overhead | 25% | clean |" in markdown
    roof = "float32 120 GFLOP/s | 60.0 GB/s at 1.00 MiB, 10.0 GB/s at 512 MiB | 1.40 µs"
    for part in roof.split(" | "):
        assert part in page
    assert f"| cpu, threads 1 | {roof} |" in markdown


def test_caches_and_limits_are_written_for_people(markdown):
    assert "| caches | L3 unified 32.0 MiB |" in markdown
    assert "| container | cpus 1.5 |" in markdown


def test_tables_in_markdown_have_no_gaps_and_equally_many_columns(markdown):
    blocks = [block.splitlines() for block in markdown.split("\n\n") if block.startswith("|")]
    assert len(blocks) == 1 + 4 + 1 + 2 + 1  # verdicts, answers, cells, bounds and roofs, machine
    for rows in blocks:
        assert all(row.startswith("|") and row.endswith("|") for row in rows)
        assert re.fullmatch(r"(\|-+:?)+\|", rows[1]), rows[1]
        assert len({len(re.findall(r"(?<!\\)\|", row)) for row in rows}) == 1
    cells = next(rows for rows in blocks if rows[0].startswith("| model |"))
    assert len(cells) == 2 + 29


def test_hostile_names_stay_text_in_markdown(markdown):
    assert "<script" not in markdown
    assert "a \\| b(" in markdown
    assert "<b>" not in markdown


def test_every_reason_is_in_markdown(markdown):
    assert "**failed (exception)**, 1 cell: ValueError: shape" in markdown
    assert f"**skipped**, 2 cells: {SKIP}" in markdown


def test_pictures_in_markdown_exist(folder, markdown):
    pictures = re.findall(r"\]\((\w+\.png)\)", markdown)
    assert len(pictures) == 7
    assert all((folder / name).is_file() for name in pictures)


# Other runs


def write_run(tmp_path, records, facts=FACTS):
    run = Run.create(tmp_path / "store", "demo", facts)
    for record in records:
        add(run, record)
    written = write_report(load_source([run]), tmp_path / "reports")
    return Parsed(written.read_text(encoding="utf-8")), written.parent


def test_a_run_in_which_nothing_was_measured_has_a_report(tmp_path):
    cells = make_cells()[:3]
    records = [
        Record("r", cell, "failed", "crash", "the worker crashed (SIGSEGV)") for cell in cells
    ]
    page, folder = write_run(tmp_path, records)
    assert "0 cells measured, 3 failed" in page.text
    assert "No cell was measured." in page.text
    assert "failed (crash) , 3 cells: the worker crashed (SIGSEGV)" in page.text
    assert page.wrong == page.open == []
    assert {path.name for path in folder.iterdir()} == {"index.html", "report.md"}


def test_a_run_without_any_cell_has_a_report(tmp_path):
    page, _ = write_run(tmp_path, [], facts={})
    assert "0 cells measured" in page.text
    assert "No cell was measured." in page.text


def test_a_run_without_accuracy_is_judged_by_fidelity(tmp_path):
    cell = Cell("net.py:make", "baseline", "cpu", 1, 1, "eager", 0)
    record = Record("r", cell, "measured", task="net.py:make").measured(
        latency_s=Estimate(0.001, 0.0009, 0.0011), fidelity=1.0
    )
    page, folder = write_run(tmp_path, [record], facts={})
    assert "both latency and fidelity" in page.text
    assert (folder / "latency.png").is_file()


# Axes


@pytest.mark.parametrize(("start", "unit"), [(0.0031, "s"), (5.3e6, "B"), (43_210.0, "1")])
@pytest.mark.parametrize("factor", [1.0, 1.003, 1.05, 1.7, 3.0, 4.9, 5.1, 2_000.0])
def test_an_axis_has_several_ticks_that_differ(start, unit, factor):
    metric = Metric("x", unit, "lower", "x")
    quality = Metric("y", "1", "higher", "y")
    cells = pd.DataFrame({"x": [start, start * factor], "y": [0.5, 0.6]})
    cells = cells.assign(model="m", technique=["a", "b"])
    figure = draw_trade_off([Panel("", cells)], metric, quality, "A title", Style.of(cells))
    figure.canvas.draw()
    assert_ticks_differ(figure.axes[0].xaxis)


@pytest.mark.parametrize(
    "shares",
    [(0.5, 0.6), (0.2, 0.99), (0.9, 0.95), (0.93, 0.94), (0.991, 0.994), (0.9991, 0.9999),
     (0.99991, 0.99995), (0.0, 0.95), (0.5, 1.0), (0.97, 0.97)],
)  # fmt: skip
def test_an_axis_of_shares_has_several_ticks_that_differ(shares):
    metric = Metric("x", "s", "lower", "x")
    quality = Metric("y", "1", "higher", "y")
    cells = pd.DataFrame({"x": [1.0, 2.0], "y": shares}).assign(model="m", technique=["a", "b"])
    panels = [Panel("one", cells), Panel("two", cells[:1])]
    figure = draw_trade_off(panels, metric, quality, "A title", Style.of(cells))
    figure.canvas.draw()
    assert_ticks_differ(figure.axes[0].yaxis)


def assert_ticks_differ(axis):
    low, high = sorted(axis.get_view_interval())
    ticks = zip(axis.get_majorticklocs(), axis.get_majorticklabels(), strict=True)
    names = [label.get_text() for place, label in ticks if low <= place <= high]
    assert len(names) >= 2
    assert len(set(names)) == len(names)
    assert all(len(name) < 12 and "e" not in name for name in names)
    assert axis.get_offset_text().get_text() == ""


# Labels


def overlap(one, other):
    return min(one.x1, other.x1) > max(one.x0, other.x0) and min(one.y1, other.y1) > max(
        one.y0, other.y0
    )


@pytest.mark.parametrize("seed", range(6))
def test_labels_overlap_neither_each_other_nor_a_point_and_stay_inside(seed):
    generator = np.random.default_rng(seed)
    points = generator.lognormal(0, 0.7, (40, 2))
    figure = Figure(figsize=(7.2, 4.3))
    FigureCanvasAgg(figure)
    axes = figure.subplots()
    axes.plot(*points.T, "o", markersize=7)
    axes.set_xscale("log")
    axes.margins(0.12)
    figure.tight_layout()
    figure.canvas.draw()
    named, others = points[:8].tolist(), points[8:].tolist()
    texts = [f"prune-channels(0.{n}) + bf16" for n in range(8)]
    made = place_labels(axes, named, texts, ["k"] * 8, others, 7.5)
    assert [label.get_text() for label in made] == texts
    figure.canvas.draw()
    renderer = figure.canvas.get_renderer()
    boxes = [label.get_window_extent(renderer) for label in made]
    frame = axes.get_window_extent(renderer)
    for number, box in enumerate(boxes):
        assert not any(overlap(box, other) for other in boxes[number + 1 :])
        assert not any(box.contains(*axes.transData.transform(point)) for point in points)
        assert frame.x0 <= box.x0
        assert box.x1 <= frame.x1
        assert frame.y0 <= box.y0
        assert box.y1 <= frame.y1


def test_labels_are_plain_text_whatever_they_contain():
    figure = Figure(figsize=(7.2, 4.3))
    FigureCanvasAgg(figure)
    axes = figure.subplots()
    (label,) = place_labels(axes, [(0.5, 0.5)], ["$\\frac$ _a_ $"], ["k"], [], 7.5)
    figure.canvas.draw()
    assert label.get_text() == "$\\frac$ _a_ $"


# Numbers


@pytest.mark.parametrize(
    ("value", "unit", "wanted"),
    [
        (0.00123, "s", "1.23 ms"), (12.3e-6, "s", "12.3 µs"), (4.5e-9, "s", "4.50 ns"),
        (1.0, "s", "1.00 s"), (61.0, "s", "61.0 s"), (0.9996, "s", "1.00 s"),
        (0.9996e-3, "s", "1.00 ms"), (9.996e-3, "s", "10.0 ms"), (-0.0015, "s", "-1.50 ms"),
        (0.0, "s", "0 s"), (400.0, "1/s", "400 /s"), (3.25e6, "1/s", "3.25 M/s"),
        (0, "B", "0 B"), (1023, "B", "1023 B"),
        (1024, "B", "1.00 KiB"), (1536, "B", "1.50 KiB"), (150 * 2**20, "B", "150 MiB"),
        (3 * 2**30, "B", "3.00 GiB"), (0.5, "1", "0.5000"), (0.98765, "1", "0.9877"),
        (1.0, "1", "1.000"), (12.0, "1", "12.0"), (0.0, "1", "0"), (43_210, "1", "43.2 k"),
        (1.25e9, "1", "1.25 G"), (nan, "s", "–"), (inf, "B", "–"), (None, "1", "–"),
    ],
)  # fmt: skip
def test_a_value_is_written_with_its_unit(value, unit, wanted):
    assert text.format_value(value, unit) == wanted


@pytest.mark.parametrize(
    ("numbers", "unit", "wanted"),
    [
        ((0.00123, 0.00121, 0.00126), "s", "1.23 (1.21–1.26) ms"),
        ((0.0010049, 0.0009949, 0.0012652), "s", "1.00 (0.99–1.27) ms"),
        ((0.935, 0.9202, 0.9471), "1", "0.9350 (0.9202–0.9471)"),
        ((1.0, 0.9915, 1.0), "1", "1.000 (0.992–1.000)"),
        ((0.0, 0.0, 0.2775), "1", "0 (0–0)"),
        ((0.00123, nan, nan), "s", "1.23 ms"),
        ((nan, nan, nan), "s", "–"),
        ((nan, 1.0, 2.0), "s", "–"),
        ((2.0 * 2**20, 1.5 * 2**20, 2.5 * 2**20), "B", "2.00 (1.50–2.50) MiB"),
    ],
)
def test_an_interval_has_the_unit_and_the_places_of_its_value(numbers, unit, wanted):
    assert text.format_interval(*numbers, unit) == wanted


@pytest.mark.parametrize(
    ("ratio", "wanted"),
    [(0.5, "2.00×"), (2.0, "0.50×"), (1.0, "1.00×"), (nan, "–"), (0.0, "–"), (inf, "–")],
)
def test_a_ratio_says_how_many_times_less(ratio, wanted):
    assert text.format_ratio(ratio) == wanted


def test_a_speed_up_turns_its_interval_around():
    assert text.format_speedup(0.5, 0.49, 0.51) == "2.00× (1.96–2.04)"
    assert text.format_speedup(0.5, nan, nan) == "2.00×"
    assert text.format_speedup(nan, nan, nan) == "–"


@pytest.mark.parametrize(
    ("difference", "wanted"),
    [(0.0123, "+1.2"), (-0.0123, "−1.2"), (0.0, "+0.0"), (-0.0001, "+0.0"), (nan, "–")],
)
def test_points_have_a_sign_and_a_real_minus(difference, wanted):
    assert text.format_points(difference) == wanted


@pytest.mark.parametrize(
    ("value", "digits", "wanted"),
    [(9.996, 3, "10.0"), (0.09996, 3, "0.100"), (1234.0, 3, "1234"), (-9.996, 3, "-10.0"),
     (0, 3, "0")],
)  # fmt: skip
def test_rounding_keeps_so_many_digits(value, digits, wanted):
    assert text.round_to(value, digits) == wanted
