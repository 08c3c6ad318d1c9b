"""Published tables become runs, with known answers, and tell what they left out."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from subprocess import CompletedProcess

import numpy as np
import pandas as pd
import pytest

from harness.errors import UserError
from harness.published.columns import read_csv, read_map
from harness.published.table import Published, make_cells
from harness.published.timm import read_setting, read_timm

pytestmark = pytest.mark.slow

TIMM = Path(__file__).parent.parent / "data" / "timm"
RTX = TIMM / "benchmark-infer-amp-nhwc-pt210-cu121-rtx3090.csv"
I9 = TIMM / "benchmark-infer-fp32-nchw-pt221-cpu-i9_10940x-dynamo.csv"
ACCURACY = TIMM / "results-imagenet.csv"
Command = Callable[..., CompletedProcess[str]]


def done(finished: CompletedProcess[str]) -> str:
    assert finished.returncode == 0, finished.stderr
    return finished.stdout


@pytest.fixture
def imported(command: Command) -> Command:
    done(command("import", "timm", str(RTX), str(I9), "--accuracy", str(ACCURACY)))
    return command


def test_the_frontiers_of_published_tables_are_the_known_ones(imported: Command) -> None:
    def count(*objectives: str) -> dict[str, int]:
        told = json.loads(done(imported("frontier", *objectives, "--json")))
        return {one["group"]["device"]: len(one["members"]) for one in told["groups"]}

    two = ("--minimize", "latency_s", "--maximize", "accuracy")
    assert count(*two) == {"cpu-i9_10940x": 42, "cuda-rtx3090": 31}
    assert count(*two, "--minimize", "params") == {"cpu-i9_10940x": 122, "cuda-rtx3090": 124}


def test_a_cell_has_the_full_name_and_the_time_of_one_image(imported: Command) -> None:
    told = json.loads(done(imported("frontier", "--minimize", "latency_s", "--json")))
    (rtx,) = [one for one in told["groups"] if one["group"]["device"] == "cuda-rtx3090"]
    (fastest,) = rtx["members"]
    times = pd.read_csv(RTX)
    assert fastest["latency_s"] == pytest.approx(
        (times["infer_step_time"] / times["infer_batch_size"]).min() / 1000
    )
    assert fastest["model"] == "tinynet_e.in1k"
    assert fastest["technique"] == "106 px"


def test_either_device_has_a_recommendation(imported: Command) -> None:
    asked = ("recommend", "--where", "latency_s < 0.5ms", "--maximize", "accuracy", "--json")
    told = json.loads(done(imported(*asked)))
    found = {one["group"]["device"]: one for one in told["groups"]}
    published = {
        name: table[(table["latency_s"] < 0.0005) & table["accuracy"].notna()]
        for name, table in read_timm([RTX, I9], ACCURACY).cells.groupby("device")
    }
    for device, table in published.items():
        if table.empty:
            assert found[device]["pick"] is None
            assert found[device]["nearest"]["latency_s"] > 0.0005
        else:
            assert found[device]["pick"]["accuracy"] == table["accuracy"].max()
    assert "cuda-rtx3090" in published


def test_every_row_is_joined_or_told(imported: Command) -> None:
    published = read_timm([RTX, I9], ACCURACY)
    cells = published.cells
    joined = cells["accuracy"].notna().groupby(cells["device"]).sum()
    assert joined.to_dict() == {"cpu-i9_10940x": 1_375, "cuda-rtx3090": 1_224}
    assert "1224 cells joined from 922 of 1204 rows" in published.told[0]
    assert "282 rows without accuracy" in published.told[0]
    assert len(cells) == 1_224 + 282 + 1_375 + cells.query("device == 'cpu-i9_10940x'")[
        "accuracy"].isna().sum()  # fmt: skip
    assert "infer_macts" in published.told[1]
    assert cells["params"].notna().all()


def test_thousands_in_millions_are_read(imported: Command) -> None:
    cells = read_timm([RTX], ACCURACY).cells.set_index("model")
    assert cells.loc["eva_giant_patch14_224.clip_ft_in1k", "params"] == pytest.approx(
        1.0126e9, rel=1e-3
    )


@pytest.mark.parametrize(
    ("name", "device", "runtime", "precision"),
    [
        (RTX.name, "cuda-rtx3090", "eager", "amp"),
        (I9.name, "cpu-i9_10940x", "dynamo", "fp32"),
        (
            "benchmark-infer-amp-nchw-pt240-cu124-rtx4090-dynamo.csv",
            "cuda-rtx4090",
            "dynamo",
            "amp",
        ),
        ("benchmark-infer-amp-nhwc-pt112-cu113-rtx3090.csv", "cuda-rtx3090", "eager", "amp"),
    ],
)
def test_devices_and_precision_are_in_the_names(name, device, runtime, precision) -> None:
    setting = read_setting(name)
    assert (setting.device, setting.runtime, setting.precision) == (device, runtime, precision)


def test_a_training_table_or_another_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="not named like an inference table"):
        read_setting("benchmark-train-amp-nhwc-pt112-cu113-rtx3090.csv")
    odd = tmp_path / "benchmark-infer-amp-nhwc-pt210-cu121-rtx3090.csv"
    odd.write_text("model,infer_img_size,infer_batch_size,step_time\na,1,1,1\n")
    with pytest.raises(UserError, match=r"no column 'infer_step_time'.*Did you mean 'step_time'"):
        read_timm([odd], None)
    with pytest.raises(UserError, match="There is no file"):
        read_timm([tmp_path / RTX.name.replace("rtx3090", "none")], None)


def test_rows_without_a_time_are_left_out_and_named(tmp_path: Path) -> None:
    odd = tmp_path / RTX.name
    odd.write_text(
        "model,infer_img_size,infer_batch_size,infer_step_time\n"
        "good,224,8,4\nbad,224,8,\nworse,224,8,-1\nworst,224,0,1\n"
    )
    published = read_timm([odd], None)
    assert published.cells["model"].tolist() == ["good"]
    assert published.cells["latency_s"].tolist() == [0.0005]
    assert "3 rows left out" in published.told[0]
    assert "bad, worse, worst" in published.told[0]


def test_the_same_measurement_twice_is_refused_and_leaves_no_run(
    command: Command, tmp_path: Path
) -> None:
    other = tmp_path / "other" / RTX.name.replace("pt210", "pt220")
    other.parent.mkdir()
    other.write_text(RTX.read_text())
    finished = command("import", "timm", str(RTX), str(other))
    assert finished.returncode == 2
    assert "Cells with several rows (" in finished.stderr
    assert not (tmp_path / "results").exists()


def test_a_table_of_which_no_row_is_kept_makes_no_run(tmp_path: Path, command: Command) -> None:
    (tmp_path / "map.toml").write_text(TABLE_MAP)
    (tmp_path / "t.csv").write_text("name,top1,ms\na,70,-1\nb,70,0\n")
    done = command("import", "csv", "t.csv", "--map", "map.toml")
    assert done.returncode == 2
    assert "2 rows left out, ms is not positive: a, b" in done.stdout
    assert "No row is a cell" in done.stderr
    assert not (tmp_path / "results").exists()


def test_an_imported_run_has_a_report_and_nothing_to_resume(
    imported: Command, tmp_path: Path
) -> None:
    page = Path(done(imported("report")).strip())
    assert "tinynet_e.in1k" in (tmp_path / page).read_text()
    finished = imported("resume")
    assert finished.returncode == 2
    assert "nothing to resume" in finished.stderr


MAP = """task = "imagenet"
device = "cuda-a100"
[columns]
model = "name"
accuracy = { column = "top1", unit = "%" }
latency_s = { column = "step", unit = "ms", per = "batch" }
"""


def test_any_table_is_imported_by_a_map_of_its_columns(tmp_path: Path) -> None:
    (tmp_path / "map.toml").write_text(MAP)
    (tmp_path / "t.csv").write_text(
        "name,top1,step,batch,extra\na,80,8,4,x\nb,none,9,4,y\n,1,1,1,z\n"
    )
    published = read_csv([tmp_path / "t.csv"], read_map(tmp_path / "map.toml"))
    cells = published.cells
    assert cells["model"].tolist() == ["a", "b"]
    assert cells["latency_s"].tolist() == pytest.approx([0.002, 0.00225])
    assert cells["accuracy"].tolist()[0] == pytest.approx(0.8)
    assert np.isnan(cells["accuracy"].tolist()[1])
    told = " ".join(published.told)
    assert "1 value of top1 not numeric, left empty: none" in told
    assert "columns not used: extra" in told
    assert "1 row without a model left out" in told
    table = make_cells(cells, "now").to_pandas()
    assert table["device"].tolist() == ["cuda-a100"] * 2
    assert table["task"].tolist() == ["imagenet"] * 2
    assert table["cell_id"].is_unique


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("latency_s =", "latncy_s =", "Did you mean 'latency_s'"),
        ('unit = "ms"', 'unit = "MB"', "1 MB does not fit latency_s"),
        ('column = "step"', 'column = "stp"', "Did you mean 'step'"),
        ('model = "name"\n', "", "does not say where the model's name is"),
        ('per = "batch"', "pro = 3", "Extra inputs are not permitted"),
        ("[columns]", "[columns", "as TOML"),
    ],
)
def test_a_wrong_map_is_refused_with_what_would_work(
    tmp_path: Path, old: str, new: str, message: str
) -> None:
    (tmp_path / "map.toml").write_text(MAP.replace(old, new))
    (tmp_path / "t.csv").write_text("name,top1,step,batch\na,80,8,4\n")
    with pytest.raises(UserError) as refused:
        read_csv([tmp_path / "t.csv"], read_map(tmp_path / "map.toml"))
    assert message in str(refused.value)


TABLE_MAP = """task = "imagenet"
device = "cpu"
[columns]
model = "name"
accuracy = { column = "top1", unit = "%" }
latency_s = { column = "ms", unit = "ms" }
"""


def read_text(tmp_path: Path, text: str, columns: str = TABLE_MAP) -> Published:
    (tmp_path / "map.toml").write_text(columns)
    (tmp_path / "t.csv").write_text(text)
    return read_csv([tmp_path / "t.csv"], read_map(tmp_path / "map.toml"))


@pytest.mark.parametrize(
    "text",
    [
        "name,top1,ms,note\nsmall,70.1,12.5,8,\nlarge,80.2,1125.25,9,\n",
        'name,top1,ms\nsmall,"70,1","12,5"\nlarge,"80,2","1125,25"\n',
        'name,top1,ms\nsmall,"70,1%","12,5"\nlarge,"80,2%","1.125,25"\n',
        'name,top1,ms\nsmall,70.1 %,12.5\nlarge,80.2 %,"1,125.25"\n',
        'name,top1,ms\nsmall,70.1,"12.5"\nlarge,80.2,"1 125.25"\n',
        "name;top1;ms\nsmall;70,1;12,5\nlarge;80,2;1125,25\n",
        "name\ttop1\tms\nsmall\t70.1\t12.5\nlarge\t80.2\t1125.25\n\n",
        "\ufeffname,top1,ms\nsmall,70.1,1.25e1\nlarge,80.2,1.12525E3\n",
    ],
)
def test_numbers_are_read_as_people_write_them(tmp_path: Path, text: str) -> None:
    cells = read_text(tmp_path, text).cells
    assert cells["model"].tolist() == ["small", "large"]
    assert cells["accuracy"].tolist() == pytest.approx([0.701, 0.802])
    assert cells["latency_s"].tolist() == pytest.approx([0.0125, 1.12525])


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("name,top1,ms\nsmall,70,1,12,5\n", "row 1 has 5 values for 3 columns"),
        ("name,ms,ms\nsmall,70,1\n", "two columns of one name"),
        ("", "it is empty"),
        ("name,top1,ms\n", "no row"),
    ],
)
def test_a_table_that_would_be_shifted_is_refused(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(UserError, match=message):
        read_text(tmp_path, text)


def test_a_table_of_a_hundred_thousand_rows_is_read(tmp_path: Path) -> None:
    rows = "".join(f"m{n},50,{n + 1}\n" for n in range(100_000))
    assert len(read_text(tmp_path, "name,top1,ms\n" + rows).cells) == 100_000


def test_a_fraction_with_a_decimal_comma_is_not_read_as_thousands(tmp_path: Path) -> None:
    cells = read_text(tmp_path, 'name,top1,ms\na,1,"0,125"\nb,1,"1,250"\n').cells
    assert cells["latency_s"].tolist() == pytest.approx([0.000125, 0.00125])


def test_a_column_with_decimal_commas_and_points_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"decimal commas \(12,5\) and decimal points \(125\.25\)"):
        read_text(tmp_path, 'name,top1,ms\na,1,"12,5"\nb,1,125.25\n')


@pytest.mark.parametrize(
    ("row", "why"),
    [
        ("x,70.1,-12.5", "ms is not positive: x"),
        ("x,70.1,0", "ms is not positive: x"),
        ("x,7010,5", "top1 is not between 0 and 1"),
        ("x,-3,5", "top1 is not between 0 and 1"),
        ("x,70,inf", "1 value of ms not numeric"),
        ("x,70,fast", "1 value of ms not numeric"),
    ],
)
def test_values_that_cannot_be_are_told_and_never_ranked(
    tmp_path: Path, row: str, why: str
) -> None:
    published = read_text(tmp_path, f"name,top1,ms\ngood,70.1,12.5\n{row}\n")
    kept = published.cells.dropna(subset=["latency_s", "accuracy"])
    assert kept["model"].tolist() == ["good"]
    assert why in " ".join(published.told)


def test_a_division_by_zero_and_a_fractional_batch_leave_their_rows_out(tmp_path: Path) -> None:
    columns = TABLE_MAP.replace('"ms" }', '"ms", per = "bs" }') + 'batch = "bs"\n'
    text = "name,top1,ms,bs\na,70,12.5,64\nb,70,25,0\nc,70,25,64.5\nd,70,25,-2\n"
    published = read_text(tmp_path, text, columns)
    assert published.cells["model"].tolist() == ["a"]
    assert published.cells["batch"].tolist() == [64]
    told = " ".join(published.told)
    assert "bs is not positive: b, d" in told
    assert "bs is no whole number from 1 on: b, c, d" in told
    make_cells(published.cells, "now")


def test_two_columns_that_are_divided_alike_both_leave_their_rows_out(tmp_path: Path) -> None:
    columns = TABLE_MAP.replace('"ms" }', '"ms", per = "bs" }')
    columns += 'energy_j = { column = "joule", per = "bs" }\n'
    text = "name,top1,ms,joule,bs\na,70,12.5,1,64\nb,70,25,,\nc,70,,2,\nd,70,,,\n"
    published = read_text(tmp_path, text, columns)
    assert published.cells["model"].tolist() == ["a", "d"]
    assert "bs is not positive: b, c" in " ".join(published.told)


@pytest.mark.parametrize(
    ("lines", "why"),
    [
        ('seed = "s"\n', "s is no whole number from 0 on: b, c"),
        ('params = "p"\n', "p is no whole number: c"),
    ],
)
def test_counts_that_are_none_are_told(tmp_path: Path, lines: str, why: str) -> None:
    text = "name,top1,ms,s,p\na,70,12.5,1,1000\nb,70,25,1e20,2000000\nc,70,25,0.5,0.25\n"
    published = read_text(tmp_path, text, TABLE_MAP + lines)
    assert why in " ".join(published.told)
    make_cells(published.cells, "now")


def test_a_divisor_may_be_a_fraction(tmp_path: Path) -> None:
    columns = TABLE_MAP.replace("latency_s", "throughput_per_s").replace('"ms", unit = "ms"',
                                '"images", per = "seconds"')  # fmt: skip
    text = "name;top1;images;seconds\na;70,5;1000;1,234\n"
    (rate,) = read_text(tmp_path, text, columns).cells["throughput_per_s"]
    assert rate == pytest.approx(1000 / 1.234)
