"""Prepare variants: build, train, compress, and keep the result by the hash of what made it.

A variant is a folder in the cache: `subject.pt` (module and example inputs), `facts.json`. Data
sets are kept once, by content. Runs in workers only.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
import pickle
import random
import shutil
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import cloudpickle
import numpy as np
import torch

from bench import registry
from bench.cache import cache_folder, code_version
from bench.data import Dataset
from bench.errors import Refusal, SpecError
from bench.subject import Subject, as_subject
from bench.training import train, updates_per_epoch
from harness.measure.runtimes import like_strides

FORMAT = 2
"""Of a variant's folder; raise it when what is stored changes."""


def prepare_base(
    model: str, recipes: list[str], seed: int, batch: int | None = None
) -> dict[str, Any]:
    """Return the facts of a trained model: `variant`, `prepare_s`, `task`, `notes`.

    With `batch` it is trained in that batch, and `tune_quality` tells after each epoch how good it
    was on the tune split. The model is always built: its key contains its weights and its data.
    """
    seed_everything(seed, model)
    begin = time.perf_counter()
    subject = dataclasses.replace(as_subject(registry.build("model", model), model), origin=model)
    for recipe in recipes:
        subject = registry.build("technique", recipe, subject)
    if batch is not None:
        subject = with_batch(subject, batch, model)
    data = store_dataset(subject.data) if subject.data else ""
    key = digest(
        code_version(), source_digest("model", model), model, recipes, seed, torch.__version__,
        torch.get_num_threads(), data, repr(subject.recipe), repr(subject.module),
        weights_digest(subject.module), batch,
    )  # fmt: skip
    way: list[float] = []

    def make() -> tuple[Subject, str]:
        seed_everything(seed, "train")
        return train(subject, None if batch is None else way), data

    return _keep(key, make, subject.task(model), 0.0, begin, way)


def with_batch(subject: Subject, batch: int, model: str) -> Subject:
    """Return the subject with a recipe of that batch; Refusal where it is not trained."""
    if subject.recipe is None or subject.data is None:
        raise Refusal(f"task = 'training' needs data and a recipe, and {model} has none")
    return dataclasses.replace(
        subject, recipe=dataclasses.replace(subject.recipe, batch_size=batch)
    )


def prepare_step(base: str, step: str, seed: int) -> dict[str, Any]:
    """Return the facts of a prepared variant with one more technique applied."""
    before = read_facts(base)
    key = digest(base, step, seed, code_version(), source_digest("technique", step))

    def make() -> tuple[Subject, str]:
        subject = load_subject(base, with_data=True)
        seed_everything(seed, step)
        made = registry.build("technique", step, subject)
        if not isinstance(made, Subject):
            raise SpecError(
                f"Technique {step!r} returned {type(made).__name__}; it must return a Subject."
            )
        if made.data is None or made.data is subject.data:
            return made, before["data"]
        return made, store_dataset(made.data)

    return _keep(key, make, before["task"], before["prepare_s"])


def load_subject(variant: str, with_data: bool = False) -> Subject:
    """Return a prepared subject; without its data it takes only the memory of the model."""
    folder = variant_folder(variant)
    subject: Subject = torch.load(folder / "subject.pt", weights_only=False)
    data = read_facts(variant)["data"]
    if with_data and data:
        path = cache_folder() / "datasets" / f"{data}.pt"
        subject = dataclasses.replace(subject, data=torch.load(path, weights_only=False))
    return subject


def read_facts(variant: str) -> dict[str, Any]:
    """Return what is known of a prepared variant."""
    facts: dict[str, Any] = json.loads((variant_folder(variant) / "facts.json").read_text())
    return facts


def variant_folder(variant: str) -> Path:
    """Return the folder of a variant in the cache."""
    return cache_folder() / "variants" / variant


def _keep(
    key: str,
    make: Callable[[], tuple[Subject, str]],
    task: str,
    earlier_s: float,
    begin: float | None = None,
    way: Sequence[float] = (),
) -> dict[str, Any]:
    """Return the facts in the cache under `key`, making the variant first if it is not there.

    `make` gives the subject and the key of its data.
    """
    folder = variant_folder(key)
    if (folder / "facts.json").is_file():
        return read_facts(key)
    begin = time.perf_counter() if begin is None else begin
    subject, data = make()
    facts = {
        "variant": key,
        "prepare_s": earlier_s + time.perf_counter() - begin,
        "task": task,
        "data": data,
        "notes": list(subject.notes),
        "classes": subject.data.classes if subject.data else 0,
        "train_examples": len(subject.data.train) if subject.data else 0,
        "tune_quality": list(way),
        "updates_per_epoch": updates_per_epoch(subject) if way else 0,
    }
    folder.parent.mkdir(parents=True, exist_ok=True)
    temporary = Path(tempfile.mkdtemp(dir=folder.parent, prefix=".making-"))
    try:
        # Cloned: a view of the training examples would bring all of them along.
        inputs = tuple(like_strides(value.detach().clone(), value) for value in subject.inputs)
        alone = dataclasses.replace(subject, data=None, inputs=inputs)
        save_subject(alone, temporary / "subject.pt")
        (temporary / "facts.json").write_text(json.dumps(facts))
        temporary.replace(folder)
    except OSError:  # another run was faster; its result is the same
        if not (folder / "facts.json").is_file():
            raise
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    return facts


def save_subject(subject: Subject, path: Path) -> None:
    """Write a subject so that any worker can load it, classes of the user's files included."""
    own = [module for name, module in sys.modules.items() if name.startswith("paretogrid_file_")]
    for module in own:
        cloudpickle.register_pickle_by_value(module)
    try:
        torch.save(subject, path, pickle_module=cloudpickle)
    except (pickle.PicklingError, TypeError, AttributeError) as error:
        raise SpecError(f"The model cannot be saved for other processes: {error}") from error
    finally:
        for module in own:
            cloudpickle.unregister_pickle_by_value(module)


def store_dataset(data: Dataset) -> str:
    """Keep a data set by the hash of its content; return the hash."""
    content = hashlib.sha256(f"{data.name} {data.classes}".encode())
    splits = [data.train, data.tune, data.test, *([data.spare] if data.spare else [])]
    for split in splits:
        content.update(split.inputs.contiguous().numpy().data)
        content.update(split.labels.contiguous().numpy().data)
    key = content.hexdigest()[:24]
    path = cache_folder() / "datasets" / f"{key}.pt"
    if not path.is_file():
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, temporary = tempfile.mkstemp(dir=path.parent, suffix=".tmp")
        with os.fdopen(handle, "wb") as file:
            torch.save(data, file)
        Path(temporary).replace(path)
    return key


def source_digest(kind: registry.Kind, text: str) -> str:
    """Return a digest of the file in which a model or technique is defined."""
    entry, _ = registry.find(kind, text)
    try:
        return hashlib.sha256(Path(entry.source).read_bytes()).hexdigest()
    except OSError:
        return entry.source


def weights_digest(module: torch.nn.Module) -> str:
    """Return a digest of a module's parameters and buffers."""
    content = hashlib.sha256()
    for name, tensor in [*module.named_parameters(), *module.named_buffers()]:
        content.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        plain = tensor.detach().cpu().contiguous().reshape(-1)
        content.update(plain.view(torch.uint8).numpy().data)
    return content.hexdigest()


def digest(*parts: Any) -> str:
    """Return 24 hexadecimal digits over the parts."""
    text = json.dumps([FORMAT, *parts], default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:24]


def seed_everything(seed: int, purpose: str) -> None:
    """Seed every generator for one purpose, so that steps do not depend on one another."""
    number = int.from_bytes(hashlib.sha256(f"{seed} {purpose}".encode()).digest()[:4], "big")
    torch.manual_seed(number)
    np.random.seed(number)
    random.seed(number)
