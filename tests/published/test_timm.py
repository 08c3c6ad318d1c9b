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
from harness.published.table import make_cells
from harness.published.timm import read_setting, read_timm

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
    assert "282 rows have no accuracy" in published.told[0]
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
    assert "rows describe a cell that another row describes" in finished.stderr
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
    assert "1 values of top1 are no numbers" in told
    assert "columns not used: extra" in told
    assert "1 rows without a model left out" in told
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
