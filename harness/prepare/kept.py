"""What is kept between runs: the folders of variants, and data sets by their content."""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import cloudpickle
import torch
from torch import Tensor

from bench.cache import cache_folder
from bench.data import Dataset, Split
from bench.subject import Subject
from harness.durable import write_durably
from harness.measure.behaviour import Behaviour
from harness.measure.work import Work
from harness.prepare.content import digest_content
from harness.prepare.evict import mark_used

SUBJECT = "subject.pt"
"""The file of a variant's folder that holds it; absent where it is built again."""
STATE = "state.pt"
"""The file of a variant's folder that holds what one learned that is built again."""
MAPPED_FROM_BYTES = 100 * 2**20
"""Files as large as this are mapped: the processes that load a variant share its weights."""


def keep_behaviour(variant: str, behaviour: Behaviour) -> None:
    """Note beside a variant how it is to be called, unless that is known."""
    if (variant_folder(variant) / "behaviour.json").is_file() and (
        read_behaviour(variant) == behaviour
    ):
        return
    text = json.dumps(dataclasses.asdict(behaviour))
    write_durably(variant_folder(variant) / "behaviour.json", lambda path: path.write_text(text))


def read_behaviour(variant: str) -> Behaviour:
    """Return how a variant is to be called; plainly where it was not tried out."""
    try:
        return Behaviour(**json.loads((variant_folder(variant) / "behaviour.json").read_text()))
    except OSError:
        return Behaviour()


def keep_counts(
    variant: str, runtime: str, batches: Sequence[int], counted: Mapping[str, Any]
) -> None:
    """Note beside a variant what was counted of it, for runs to come; not where there is no room.

    Its key has all that it is made of, and this code.
    """
    text = json.dumps({**counted, "work": dataclasses.asdict(counted["work"])}, default=list)
    path = _counts_file(variant, runtime, batches)
    with contextlib.suppress(OSError):
        write_durably(path, lambda place: place.write_text(text))


def read_counts(variant: str, runtime: str, batches: Sequence[int]) -> dict[str, Any] | None:
    """Return what was counted of a variant in calls of these batches, or None."""
    with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
        told: dict[str, Any] = json.loads(_counts_file(variant, runtime, batches).read_text())
        work = told["work"]
        calls = tuple((int(examples), float(macs)) for examples, macs in work["counted"])
        return told | {"work": Work(calls, frozenset(work["refused"]), bool(work["fixed"]))}
    return None


def _counts_file(variant: str, runtime: str, batches: Sequence[int]) -> Path:
    name = hashlib.sha256(f"{runtime} {sorted(batches)}".encode()).hexdigest()[:12]
    return variant_folder(variant) / f"counts-{name}.json"


def read_facts(variant: str) -> dict[str, Any]:
    """Return what is known of a prepared variant, which is used now, as its data set is."""
    path = variant_folder(variant) / "facts.json"
    mark_used(path)
    facts: dict[str, Any] = json.loads(path.read_text())
    if facts["data"]:
        mark_used(_data_file(facts["data"]))
    return facts


def is_kept(variant: str) -> bool:
    """Tell whether a variant is there, with its data set."""
    try:
        data = read_facts(variant)["data"]
    except OSError:
        return False
    return not data or _data_file(data).is_file()


def variant_folder(variant: str) -> Path:
    """Return the folder of a variant in the cache."""
    return cache_folder() / "variants" / variant


def mapped_bytes(variant: str) -> int:
    """Return how much of a variant its processes share, as its file is mapped; 0 if it is not."""
    try:
        size = (variant_folder(variant) / SUBJECT).stat().st_size
    except OSError:  # it is built again in each process
        return 0
    return size if size >= MAPPED_FROM_BYTES else 0


def save_subject(subject: Subject, path: Path) -> None:
    """Write a subject so that any worker can load it that has imported the same files."""
    with path.open("wb") as file:  # by a path, a full disk would be PyTorch's own complaint
        torch.save(subject, file, pickle_module=cloudpickle)


def store_dataset(data: Dataset) -> str:
    """Keep a data set by the hash of its content; return the hash."""
    content = hashlib.sha256(f"{data.name} {data.classes}".encode())
    splits = [data.train, data.tune, data.test, *([data.spare] if data.spare else [])]
    for split in splits:
        content.update(digest_content(split.inputs, split.labels).encode())
    key = content.hexdigest()[:24]
    path = _data_file(key)
    if path.is_file():
        mark_used(path)
    else:
        path.parent.mkdir(parents=True, exist_ok=True)
        alone = _compact(data)
        write_durably(path, lambda place: torch.save(alone, place))
    return key


def _compact(data: Dataset) -> Dataset:
    """A data set without what its tensors are views of: PyTorch would write all of that."""
    own: dict[str, Any] = {
        name: Split(_alone(split.inputs), _alone(split.labels))
        for name in ("train", "tune", "test", "spare")
        if (split := getattr(data, name)) is not None
    }
    return dataclasses.replace(data, **own)


def _alone(tensor: Tensor) -> Tensor:
    """A tensor in memory of its own, unless it shows all of what it is in."""
    if tensor.layout is not torch.strided or type(tensor) is not Tensor:
        return tensor
    larger = tensor.untyped_storage().nbytes() > tensor.numel() * tensor.element_size()
    return tensor.clone() if larger else tensor


def _data_file(key: str) -> Path:
    return cache_folder() / "datasets" / f"{key}.pt"


def load_dataset(key: str) -> Dataset:
    """Return the data set that is kept under a hash."""
    path = _data_file(key)
    mark_used(path)
    data: Dataset = torch.load(path, weights_only=False)
    return data
