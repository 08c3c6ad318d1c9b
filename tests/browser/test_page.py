"""The page in a real browser: it draws, finds, compares, and asks nothing of the network."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet
import pytest

from harness.decide.answer import answer
from harness.decide.frame import load_frame
from harness.decide.frontier import Objective, find_frontiers
from harness.decide.sources import load_source
from harness.published.table import make_cells
from harness.record import SAMPLES_SCHEMA
from harness.report.advice import name_cell
from harness.report.write import write_report
from harness.store import Run

playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
CHROMIUM = next(
    filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None
)
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="there is no Chromium on this machine")
HOSTILE = "<script>document.title='taken'</script>"
QUIET = ("GPU stall due to ReadPixels",)
"""What the browser says of its own software renderer."""


def make_run(root: Path, count: int, hostile: bool = False) -> Run:
    """A run of so many cells at two places, with samples for some of them."""
    generator = np.random.default_rng(0)
    effort = generator.uniform(0, 1, count)
    latency = 1e-3 * np.exp(2 * effort + 0.3 * generator.standard_normal(count))
    models = [f"net{number % 7}" for number in range(count)]
    if hostile:
        models[0] = HOSTILE
    cells = pd.DataFrame({
        "model": models, "technique": [f"prune({number})" for number in range(count)],
        "device": np.where(np.arange(count) % 2, "cpu", "cuda"), "threads": 1, "batch": 1,
        "task": "a task", "latency_s": latency, "latency_s_low": 0.98 * latency,
        "latency_s_high": 1.02 * latency, "throughput_per_s": 1 / latency,
        "accuracy": 0.7 + 0.25 * effort + 0.02 * generator.standard_normal(count),
        "weight_bytes": 1e5 * (1 + 9 * generator.uniform(0, 1, count)),
        "headline_blocks": "clean", "rounds": 10,
    })  # fmt: skip
    made = Run.create(root, "page", {"machine": {"cpu_model": "a test"}})
    rows = make_cells(cells, "2026-01-01")
    made.write_cells(rows)
    timed = list(zip(rows["cell_id"].to_pylist(), latency.tolist(), strict=True))[:50]
    samples = [
        {"cell_id": cell, "heat": "h", "session": 0, "round": number, "block": number,
         "seconds": seconds * (1 + 0.02 * generator.standard_normal()), "disturbed": number == 3,
         "cause": "preempted" if number == 3 else ""}
        for cell, seconds in timed for number in range(10)
    ]  # fmt: skip
    blank = dict.fromkeys(SAMPLES_SCHEMA.names)
    table = pa.Table.from_pylist([blank | sample for sample in samples], schema=SAMPLES_SCHEMA)
    pa.parquet.write_table(table, made.folder / "samples.parquet")
    made.write_facts({**made.facts(), "state": "finished"})
    return made


LONELIEST = """() => {
    const { xaxis, yaxis } = chart._fullLayout, box = chart.getBoundingClientRect();
    const points = chart.data.filter((one) => one.mode === "markers").flatMap((one) =>
        one.customdata.map((row, n) => [row, box.left + xaxis._offset + xaxis.d2p(one.x[n]),
                                        box.top + yaxis._offset + yaxis.d2p(one.y[n])]));
    const room = (point) => Math.min(...points.filter((other) => other !== point)
        .map((other) => Math.hypot(other[1] - point[1], other[2] - point[2])));
    return points.reduce((best, point) => (room(point) > room(best) ? point : best));
}"""
"""The cell that has most room around it, and where on the screen it is."""


class Page:
    """A page that was opened, with what it said on the console and asked of the network."""

    def __init__(self, browser: Any, path: Path, **options: Any) -> None:
        self.page = browser.new_page(**options)
        self.complaints: list[str] = []
        self.requests: list[str] = []
        self.page.on("console", self._note)
        self.page.on("pageerror", lambda error: self.complaints.append(str(error)))
        self.page.on("request", lambda request: self.requests.append(request.url))
        self.page.goto(path.as_uri())
        self.page.wait_for_selector("body[data-ready=yes]", timeout=60_000)

    def _note(self, message: Any) -> None:
        if message.type in ("error", "warning") and not any(q in message.text for q in QUIET):
            self.complaints.append(message.text)

    def members(self) -> set[str]:
        return set(self.page.evaluate("members.map((row) => valueOf('cell_id', row))"))

    def choose(self, key: str, value: str) -> None:
        self.page.select_option(f"#choose-{key}", value)


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    arguments = ["--no-sandbox", "--disable-background-networking"]
    with playwright.sync_playwright() as started:
        opened = started.chromium.launch(executable_path=CHROMIUM, args=arguments)
        yield opened
        opened.close()


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    return make_run(tmp_path_factory.mktemp("results"), 120, hostile=True)


@pytest.fixture(scope="module")
def path(run: Run, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_report(load_source([run]), tmp_path_factory.mktemp("reports"))


@pytest.fixture
def page(browser: Any, path: Path) -> Iterator[Page]:
    opened = Page(browser, path, viewport={"width": 1200, "height": 900})
    yield opened
    assert opened.complaints == []
    assert [url for url in opened.requests if not url.startswith(("file:", "blob:", "data:"))] == []
    opened.page.close()


def frontier_of(run: Run, *objectives: Objective, by: tuple[str, ...] | None = None) -> set[str]:
    groups = find_frontiers(load_frame(run), objectives, *([by] if by else []))
    return {cell for group in groups for cell in group.members["cell_id"]}


LATENCY, ACCURACY = Objective("latency_s", "lower"), Objective("accuracy", "higher")
SIZE = Objective("weight_bytes", "lower")


def test_the_chart_draws_every_cell(page: Page) -> None:
    drawn = "chart.data.filter((one) => one.mode === 'markers').flatMap((one) => one.customdata)"
    assert sorted(page.page.evaluate(drawn)) == list(range(120))
    assert page.page.query_selector("#chart .main-svg") is not None


def test_the_frontier_follows_the_axes_as_python_computes_it(page: Page, run: Run) -> None:
    assert page.members() == frontier_of(run, LATENCY, ACCURACY)
    page.choose("x", "weight_bytes")
    assert page.members() == frontier_of(run, SIZE, ACCURACY)
    page.choose("y", "latency_s")
    assert page.members() == frontier_of(run, SIZE, LATENCY)
    page.page.check("#tick-across")
    assert page.members() == frontier_of(run, SIZE, LATENCY, by=("task",))


def test_the_table_says_where_a_cell_stands_and_which_one_beats_it(page: Page, run: Run) -> None:
    source = load_source([run])
    judged = pd.concat([
        part for one in answer(source.frame, noise=source.noise)
        for part in (one.group.members, one.group.dominated)
    ])  # fmt: skip
    listed = page.page.evaluate(
        "[...Array(COUNT).keys()].map((row) => ['cell_id', 'standing', 'beaten by']"
        ".map((name) => valueOf(name, row)))"
    )
    names = {row["cell_id"]: name_cell(row) for _, row in judged.iterrows()} | {"": None}
    wanted = zip(judged["cell_id"], judged["standing"], judged["dominated_by"], strict=True)
    assert {tuple(row) for row in listed} == {(cell, how, names[by]) for cell, how, by in wanted}
    assert set(judged["standing"]) >= {"member", "dominated"}
    page.page.fill("#search", "standing:member")
    assert f"{(judged['standing'] == 'member').sum()} cells" in page.page.inner_text("#place")


def test_the_frontier_follows_the_search(page: Page, run: Run) -> None:
    page.page.fill("#search", "model:net3 cpu")
    assert "page 1 of 1" in page.page.inner_text("#place")
    wanted = load_frame(run)
    kept = wanted.cells[(wanted.cells["model"] == "net3") & (wanted.cells["device"] == "cpu")]
    assert f"{len(kept)} cells" in page.page.inner_text("#place")
    shown = page.page.eval_on_selector_all(
        "#table tr[data-cell]", "rows => rows.map(r => r.dataset.cell)"
    )
    assert set(shown) == set(kept["cell_id"])
    assert page.members() <= set(kept["cell_id"])


def test_hovering_names_the_cell(page: Page) -> None:
    page.page.locator("#chart").scroll_into_view_if_needed()
    row, across, down = page.page.evaluate(LONELIEST)
    page.page.mouse.move(across, down)
    name = page.page.evaluate(f"nameOf({row})")
    page.page.wait_for_selector("#hover:not(:empty)")
    assert name in page.page.inner_text("#hover")


def test_two_pinned_cells_are_compared(page: Page) -> None:
    rows = page.page.query_selector_all("#table tr[data-cell]")
    first, second = (row.get_attribute("data-cell") for row in rows[1:3])
    page.page.click(f"tr[data-cell='{first}'] td:last-child")
    page.page.focus(f"tr[data-cell='{second}']")
    page.page.keyboard.press("Enter")
    told = page.page.inner_text("#pinned")
    assert "Two cells compared" in told
    assert "second / first" in told
    latencies = page.page.evaluate(
        f"['{first}', '{second}'].map((id) => DATA.cells.latency_s[DATA.cells.cell_id.indexOf(id)])"
    )
    assert f"{latencies[1] / latencies[0]:.3f}" in told


def test_the_table_sorts_and_turns_pages(page: Page) -> None:
    page.page.click("#table th:has-text('latency (median)') button")
    shown = page.page.evaluate(
        "[...document.querySelectorAll('#table tr[data-cell]')].map((line) =>"
        " DATA.cells.latency_s[DATA.cells.cell_id.indexOf(line.dataset.cell)])"
    )
    assert shown == sorted(shown)
    assert len(shown) == 50
    page.page.click("#after")
    assert "page 2 of 3" in page.page.inner_text("#place")


def test_an_address_opens_a_cell_with_its_rounds(browser: Any, path: Path, run: Run) -> None:
    cell = run.read("samples")["cell_id"].to_pylist()[0]
    opened = Page(browser, path)
    opened.page.goto(f"{path.as_uri()}#cell={cell}")
    opened.page.reload()
    opened.page.wait_for_selector("#raw .main-svg")
    drawn = opened.page.evaluate(
        "document.querySelector('#raw .raw').data.map((trace) => [trace.name, trace.x.length])"
    )
    assert dict(drawn) == {"clean": 9, "preempted": 1}
    assert opened.page.get_attribute("tr.selected", "data-cell") == cell
    assert opened.complaints == []
    opened.page.close()


def test_hostile_names_stay_text(page: Page) -> None:
    assert page.page.title() != "taken"
    page.page.fill("#search", "script")
    assert HOSTILE in page.page.inner_text("#table")
    assert (
        page.page.evaluate("document.querySelectorAll('#table script, #legend script').length") == 0
    )
    assert HOSTILE in page.page.inner_text("#legend")


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_a_narrow_screen_needs_no_sideways_scrolling(browser: Any, path: Path, scheme: str) -> None:
    opened = Page(browser, path, viewport={"width": 375, "height": 800}, color_scheme=scheme)
    assert opened.page.evaluate("document.documentElement.scrollWidth") <= 375
    assert opened.complaints == []
    opened.page.close()


def test_ten_thousand_cells_are_a_page_that_is_small_and_right(
    browser: Any, tmp_path: Path
) -> None:
    """How long an axis change takes is measured by tests/benchmarks/test_redraw.py."""
    made = make_run(tmp_path / "results", 10_000)
    path = write_report(load_source([made]), tmp_path / "reports")
    assert path.stat().st_size < 15e6
    opened = Page(browser, path, viewport={"width": 1200, "height": 900})
    assert opened.members() == frontier_of(made, LATENCY, ACCURACY)
    opened.choose("x", "weight_bytes")
    assert opened.members() == frontier_of(made, SIZE, ACCURACY)
    assert len(opened.page.query_selector_all("#table tr[data-cell]")) == 50
    assert opened.complaints == []
    opened.page.close()
