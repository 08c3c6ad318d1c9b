"""Tables of timm: the results/ folder of huggingface/pytorch-image-models."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from math import nan
from pathlib import Path

import pandas as pd

from harness.errors import UserError
from harness.published.numerals import write_plainly
from harness.published.table import (
    Published,
    drop_unreadable,
    read_numbers,
    read_table,
    require_columns,
)
from harness.wording import counted

TIMES = ("model", "infer_img_size", "infer_batch_size", "infer_step_time")
QUALITIES = ("model", "img_size", "top1", "param_count")
NUMBERS = ("infer_img_size", "infer_batch_size", "infer_step_time", "infer_gmacs", "param_count",
           "img_size", "top1", "top5")  # fmt: skip
PRECISIONS = {"amp": "float16", "fp32": "float32", "fp16": "float16", "bf16": "bfloat16"}
LAYOUTS = ("nchw", "nhwc")
RUNTIMES = ("dynamo", "inductor", "torchscript")
TASK = "imagenet"


@dataclass(frozen=True)
class Setting:
    """What the name of a benchmark file says: `benchmark-infer-amp-nhwc-pt210-cu121-rtx3090.csv`.

    Times of timm are of eager PyTorch where no compiler is named.
    """

    precision: str
    layout: str
    runtime: str
    device: str
    libraries: tuple[str, ...]


def read_timm(files: Sequence[Path], accuracy: Path | None) -> Published:
    """Return the inference tables of timm as cells, joined with its table of accuracies.

    A row of times joins every row of accuracies with the same architecture (the model's name up to
    the first dot) and image size; its latency is that of one image, the batch's time divided by
    the batch. Rows without an accuracy stay, without one. Raises UserError for other tables.
    """
    told: list[str] = []
    qualities = None if accuracy is None else _read_qualities(accuracy, told)
    parts = [_read_times(path, qualities, accuracy, told) for path in files]
    facts = {"tables": [str(path) for path in files], "accuracy": accuracy and str(accuracy)}
    return Published(pd.concat(parts, ignore_index=True), tuple(told), facts)


def read_setting(name: str) -> Setting:
    """Return what the name of a benchmark file says; raise UserError where it is no such name."""
    words = Path(name).stem.split("-")
    if words[:2] != ["benchmark", "infer"] or len(words) < 4:
        kinds = "benchmark-infer-PRECISION-LAYOUT-ptVERSION-DEVICE.csv"
        raise UserError(
            f"{name} is not named like an inference table of timm ({kinds}). "
            "`paretogrid import csv` takes any table, with a map of its columns."
        )
    rest = words[2:]
    precision = next((word for word in rest if word.split("_")[0] in PRECISIONS), "")
    layout = next((word for word in rest if word in LAYOUTS), "")
    runtime = next((word for word in rest if word in RUNTIMES), "eager")
    libraries = tuple(word for word in rest if re.fullmatch(r"(pt|cu)\d+", word))
    known = {precision, layout, runtime, *libraries}
    device = "-".join(word for word in rest if word not in known)
    if not device:
        raise UserError(f"{name} names no device.")
    family = "" if device.startswith("cpu") else "cuda-"
    return Setting(precision, layout, runtime, family + device, libraries)


def _read_times(
    path: Path, qualities: pd.DataFrame | None, accuracy: Path | None, told: list[str]
) -> pd.DataFrame:
    setting = read_setting(path.name)
    table = read_table(path)
    require_columns(table, TIMES, path, "an inference table of timm")
    table = write_plainly(table, [name for name in NUMBERS if name in table], decimal=".")
    rows = table.assign(
        size=read_numbers(table["infer_img_size"]),
        call_examples=read_numbers(table["infer_batch_size"]),
        step_s=read_numbers(table["infer_step_time"], "ms", "latency_s"),
        macs=read_numbers(table["infer_gmacs"], "G", "macs") if "infer_gmacs" in table else nan,
        own_params=read_numbers(table["param_count"], "M", "params")
        if "param_count" in table
        else nan,
    )
    used = ("size", "call_examples", "step_s")
    rows = drop_unreadable(rows, used, path, told, "model")
    left_out = [n for n in table.columns if n not in (*TIMES, "infer_gmacs", "param_count")]
    if qualities is None:
        joined = rows.assign(full=rows["model"], params=rows["own_params"])
        told.append(
            f"{path.name}: {counted(len(joined), 'row')}, without accuracy "
            "(--accuracy names a table)"
        )
    else:
        assert accuracy is not None
        joined = _join(rows, qualities, path, accuracy, told)
    if left_out:
        told.append(f"{path.name}: columns not used: {', '.join(left_out)}")
    return _name_columns(joined, setting)


def _join(
    rows: pd.DataFrame, qualities: pd.DataFrame, path: Path, accuracy: Path, told: list[str]
) -> pd.DataFrame:
    joined = rows.merge(
        qualities, how="left", left_on=["model", "size"], right_on=["architecture", "size"]
    )
    alone = joined["full"].isna()
    elsewhere = joined.loc[alone, "model"].isin(qualities["architecture"])
    several = len(joined) - len(rows)
    told.append(
        f"{path.name}: {counted((~alone).sum(), 'cell')} joined from "
        f"{int((~alone).sum()) - several} of {counted(len(rows), 'row')} (weights of one "
        f"architecture share its time); {counted(alone.sum(), 'row')} without accuracy in "
        f"{accuracy.name}: {int((~elsewhere).sum())} of models that are not there, "
        f"{int(elsewhere.sum())} at another image size"
    )
    return joined.assign(
        full=joined["full"].fillna(joined["model"]),
        params=joined["params"].fillna(joined["own_params"]),
    )


def _read_qualities(path: Path, told: list[str]) -> pd.DataFrame:
    table = read_table(path)
    require_columns(table, QUALITIES, path, "a table of accuracies of timm")
    table = write_plainly(table, [name for name in NUMBERS if name in table], decimal=".")
    rows = pd.DataFrame({
        "full": table["model"],
        "architecture": table["model"].str.partition(".")[0],
        "size": read_numbers(table["img_size"]),
        "accuracy": read_numbers(table["top1"], "%", "accuracy"),
        "top5_accuracy": read_numbers(table["top5"], "%", "top5_accuracy")
        if "top5" in table
        else nan,
        "params": read_numbers(table["param_count"], "M", "params"),
    })  # fmt: skip
    return drop_unreadable(rows, ("size", "accuracy"), path, told, "full")


def _name_columns(rows: pd.DataFrame, setting: Setting) -> pd.DataFrame:
    """Return joined rows as columns of a record."""
    how = [word for word in (setting.runtime, setting.precision, setting.layout) if word]
    latency_s = rows["step_s"] / rows["call_examples"]
    notes = [
        f"published time of a batch of {int(examples)}, divided by it"
        for examples in rows["call_examples"]
    ]
    cells = {
        "model": rows["full"],
        "technique": [f"{int(size)} px" for size in rows["size"]],
        "device": setting.device,
        "runtime": " ".join(how),
        "task": TASK,
        "latency_s": latency_s,
        "throughput_per_s": 1 / latency_s,
        "params": rows["params"].round(),
        "macs": rows["macs"],
        "call_examples": rows["call_examples"].astype("int64"),
        "dtype_in_effect": "float32" if setting.precision == "amp" else _dtype(setting),
        "autocast_in_effect": "float16" if setting.precision == "amp" else "",
        "environment": json.dumps({"libraries": setting.libraries}),
        "notes": [[note] for note in notes],
    }
    for name in ("accuracy", "top5_accuracy"):
        if name in rows:
            cells[name] = rows[name]
    return pd.DataFrame(cells).reset_index(drop=True)


def _dtype(setting: Setting) -> str:
    return PRECISIONS.get(setting.precision, setting.precision)
