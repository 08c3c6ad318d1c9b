"""Frontiers, recommendations and questions at the command line, over a published table."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from subprocess import CompletedProcess

import pytest

TIMM = Path(__file__).parent.parent / "data" / "timm"
RTX = TIMM / "benchmark-infer-amp-nhwc-pt210-cu121-rtx3090.csv"
I9 = TIMM / "benchmark-infer-fp32-nchw-pt221-cpu-i9_10940x-dynamo.csv"
Command = Callable[..., CompletedProcess[str]]
PRICES = """date = 2026-11-01
source = "a test"
currency = "EUR"
[per_hour]
"cuda*" = 0.36
"""


@pytest.fixture
def store(command: Command, tmp_path: Path) -> Command:
    (tmp_path / "prices.toml").write_text(PRICES)
    accuracy = ("--accuracy", str(TIMM / "results-imagenet.csv"))
    finished = command("import", "timm", str(RTX), *accuracy, "--price", "prices.toml")
    assert finished.returncode == 0, finished.stderr
    return command


def pick(store: Command, *arguments: str) -> dict[str, object]:
    finished = store("recommend", *arguments, "--json")
    assert finished.returncode == 0, finished.stderr
    (group,) = json.loads(finished.stdout)["groups"]
    found: dict[str, object] = group["pick"]
    return found


def test_the_first_objective_counts_most_whatever_its_direction(store: Command) -> None:
    fastest = pick(store, "--minimize", "latency_s", "--maximize", "accuracy")
    best = pick(store, "--maximize", "accuracy", "--minimize", "latency_s")
    assert fastest["model"] == "tinynet_e.in1k"
    assert best["model"] == "eva02_large_patch14_448.mim_m38m_ft_in22k_in1k"


@pytest.mark.parametrize(
    ("where", "message"),
    [
        ("__import__('os').system('touch owned')", "Cannot read the condition"),
        ("latncy_s < 5ms", "Did you mean 'latency_s'?"),
        ("latency_s < 20MB", "20 MB does not fit latency_s"),
        ("device == 'tpu'", "No measured cell"),
    ],
)
def test_what_cannot_be_asked_is_refused(
    store: Command, tmp_path: Path, where: str, message: str
) -> None:
    finished = store("recommend", "--where", where, "--maximize", "accuracy")
    assert finished.returncode == 2
    assert message in finished.stderr
    assert "Traceback" not in finished.stderr
    assert not (tmp_path / "owned").exists()


def test_without_an_objective_there_is_nothing_to_recommend(store: Command) -> None:
    finished = store("recommend", "--where", "latency_s < 5ms")
    assert finished.returncode == 2
    assert "--maximize accuracy" in finished.stderr


def test_where_nothing_fits_the_nearest_is_told_and_the_exit_code_says_so(store: Command) -> None:
    asked = ("--where", "accuracy > 95%", "--minimize", "latency_s")
    finished = store("recommend", *asked)
    assert finished.returncode == 5
    assert "keeps all conditions" in finished.stdout
    assert "Nearest: eva02_large_patch14_448" in finished.stdout
    assert json.loads(store("recommend", *asked, "--json").stdout)["groups"][0]["pick"] is None


def test_prices_make_a_cost_that_can_be_an_objective(store: Command) -> None:
    cheapest = pick(store, "--where", "accuracy > 80%", "--minimize", "cost_per_million")
    fastest = pick(store, "--where", "accuracy > 80%", "--minimize", "latency_s")
    assert cheapest["model"] == fastest["model"]
    # 0.36 an hour, and a million times so many seconds
    assert cheapest["cost_per_million"] == pytest.approx(100 * float(str(fastest["latency_s"])))


def test_a_frontier_names_what_is_incomplete(store: Command) -> None:
    finished = store("frontier", "--minimize", "latency_s", "--maximize", "accuracy")
    assert "31 of 1224 variants" in finished.stdout
    assert "282 left out, without accuracy: lcnet_035 · 224 px" in finished.stdout


def test_two_runs_make_one_report_of_both_machines(store: Command, tmp_path: Path) -> None:
    accuracy = ("--accuracy", str(TIMM / "results-imagenet.csv"))
    assert store("import", "timm", str(I9), *accuracy).returncode == 0
    listed = json.loads(store("list", "runs", "--json").stdout)
    runs = [row["name"] for row in listed["rows"]]
    finished = store("report", *runs)
    assert finished.returncode == 0, finished.stderr
    text = (tmp_path / finished.stdout.strip()).with_name("report.md").read_text()
    assert "## GPU against CPU" in text
    assert "cpu-i9_10940x takes" in text
    twice = store("report", runs[0], runs[0])
    assert twice.returncode == 2
    assert "Two of these runs share" in twice.stderr
