"""Prepare variants: build, train, compress, and keep the result by the hash of what made it.

A variant is a folder in the cache: `facts.json`, and `subject.pt` (module and example inputs) where
that can be serialized. Where it cannot, workers build it again by the same steps, and take its
weights from `state.pt`. Data sets are kept once, by content. Runs in workers only.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import shutil
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import nn

from bench.cache import code_version
from bench.errors import Refusal
from bench.spec import find_files
from bench.subject import Subject
from bench.training import train, updates_per_epoch
from harness.measure.settings import read_global_settings
from harness.prepare.build import (
    Steps,
    apply_step,
    build_base,
    built,
    factory_module,
    imported,
    makers_of,
)
from harness.prepare.content import Unkeyable
from harness.prepare.evict import MAKING, discard
from harness.prepare.footprint import Footprint
from harness.prepare.imports import brought
from harness.prepare.kept import is_kept, read_facts, store_dataset, variant_folder
from harness.prepare.reads import digest_files, has_changed, watch_reads
from harness.prepare.restore import load_subject
from harness.prepare.save import save_prepared
from harness.prepare.seeding import seed_everything
from harness.prepare.sources import digest_all, digest_sources, find_version
from harness.prepare.users import is_users, read_texts

LIBRARIES = ("torch-pruning",)
"""With what techniques make a model beside PyTorch: another version may make another."""
FORMAT = 7
"""Of a variant's folder; raise it when what is stored changes."""


def prepare_base(
    model: str, recipes: list[str], seed: int, token: str, batch: int | None = None,
    device: str = "cpu",
) -> dict[str, Any]:  # fmt: skip
    """Return the facts of a trained model: `variant`, `prepare_s`, `task`, `notes`.

    With `batch` it is trained in that batch, and `tune_quality` tells after each epoch how good it
    was on the tune split. The model is always built: its key contains all that it holds. What
    cannot be told by its content is kept for this run only, by `token`.
    """
    begin = time.perf_counter()
    found = build_keyed(model, recipes, seed, token, batch, device)
    way: list[float] = []

    def make() -> tuple[Subject, str]:
        seed_everything(seed, "train")
        return train(found.subject, None if batch is None else way, device), found.data

    task = found.subject.task(model)
    untrained = None if found.subject.lacks() else found.subject.module
    making = _Making(
        found.key, found.steps, task, begin=begin, way=way, changed=found.changed,
        untrained=untrained,
    )  # fmt: skip
    return _keep(making, make)


@dataclass(frozen=True)
class Built:
    """A model that was built, its key, that of its data, and what its function changed beside."""

    key: str
    steps: Steps
    subject: Subject
    data: str
    changed: str


def build_keyed(
    model: str, recipes: list[str], seed: int, token: str, batch: int | None, device: str
) -> Built:
    """Build a model that is to be trained so, and find its key."""
    steps = Steps(model=model, recipes=tuple(recipes), batch=batch, seed=seed, device=device)
    module = factory_module("model", model)
    subject, changes = _watch(
        lambda: build_base(steps), is_users(module) or any(map(_is_own, recipes))
    )
    changed = _tell(changes)
    if changed and subject.origin != model:
        raise Refusal(f"{' + '.join(recipes)} calls the model's function twice, and {changed}")
    data = store_dataset(subject.data) if subject.data else ""
    try:
        sources = {module} | imported[steps] | brought.modules
        content = digest_all(
            dataclasses.replace(subject, data=None), sources, [changes, brought.variables]
        )
    except Unkeyable as why:
        content = token
        subject = subject.with_note(f"prepared anew in every run: {why}")
    key = digest(
        code_version(), content, model, recipes, seed, torch.__version__, torch.get_num_threads(),
        data, batch, read_global_settings(), torch.device(device).type,
    )  # fmt: skip
    return Built(key, steps, subject, data, changed)


def prepare_step(base: str, step: str, seed: int, token: str) -> dict[str, Any]:
    """Return the facts of a prepared variant with one more technique applied.

    A technique of the user's, or one that names a file of his, is applied anew in every run, by
    `token`: what it reads or calls cannot be known without applying it.
    """
    before = read_facts(base)
    own = _is_own(step)
    key = step_key(base, step, seed, token)
    steps = Steps(base=base, technique=step, seed=seed)
    making = _Making(key, steps, before["task"], before["prepare_s"])

    def make() -> tuple[Subject, str]:
        subject = load_subject(base, with_data=True)
        made, changes = _watch(lambda: apply_step(subject, steps), own)
        built[steps] = made
        # What its model's function changed, too.
        making.changed = before["changed"] or _tell(changes)
        if made.data is None or made.data is subject.data:
            return made, before["data"]
        return made, store_dataset(made.data)

    return _keep(making, make)


def key_by_reads(key: str) -> str:
    """Return the key of a variant by what the files hold now that were read while it was made.

    Which these are is known once it was made: its folder says so.
    """
    while (variant_folder(key) / "facts.json").is_file():
        reads = read_facts(key)["reads"]
        if not has_changed(reads):
            break
        key = digest(key, digest_files(reads))
    return key


def step_key(base: str, step: str, seed: int, token: str) -> str:
    """Return the key of a variant with one more technique applied."""
    sources = digest_sources(makers_of(step))
    libraries = [(name, find_version(name)) for name in LIBRARIES]
    return digest(
        base, step, seed, code_version(), sources, libraries, token if _is_own(step) else ""
    )


def _is_own(step: str) -> bool:
    """Tell whether a technique, or a model that it names, is the user's, or one of his files."""
    return bool(find_files(step)) or any(map(is_users, makers_of(step)))


def _watch(make: Callable[[], Subject], users: bool) -> tuple[Subject, dict[str, Any]]:
    """Make something; of a user's function, say too what it changes beside."""
    if not users:
        return make(), {}
    with Footprint() as before:
        made = make()
    return made, before.compare()


def _tell(changes: dict[str, Any]) -> str:
    """Why a model has to be made again in each process, or nothing."""
    return f"its function changes {', '.join([*changes][:3])}" if changes else ""


@dataclass
class _Making:
    """A variant that is being made: its key and what its facts begin with."""

    key: str
    steps: Steps
    task: str
    earlier_s: float = 0.0
    begin: float = field(default_factory=time.perf_counter)
    way: list[float] = field(default_factory=list)
    changed: str = ""
    """What its function changed in the process beside the model, or nothing."""
    untrained: nn.Module | None = None
    """The module of a model before training, where it is trained."""


def _keep(making: _Making, make: Callable[[], tuple[Subject, str]]) -> dict[str, Any]:
    """Return the facts in the cache under a key, making the variant first if it is not there.

    `make` gives the subject and the key of its data.
    """
    making.key = key_by_reads(making.key)
    folder = variant_folder(making.key)
    if is_kept(making.key):
        return read_facts(making.key)
    with watch_reads() as reads:
        subject, data = make()
    # Python opens only the compiled text of a neighbour that forward imports.
    reads.files.update(read_texts())
    if told := reads.tell():
        subject = subject.with_note(told)
    way = making.way
    facts = {
        "variant": making.key,
        "prepare_s": making.earlier_s + time.perf_counter() - making.begin,
        "task": making.task,
        "data": data,
        "classes": subject.data.classes if subject.data else 0,
        "label_shape": list(subject.data.train.labels.shape[1:]) if subject.data else [],
        "train_examples": len(subject.data.train) if subject.data else 0,
        "tune_quality": list(way),
        "updates_per_epoch": updates_per_epoch(subject) if way else 0,
        "steps": dataclasses.asdict(making.steps),
        "trained": subject.data is not None and subject.recipe is not None,
        "settings": read_global_settings(),
        "changed": making.changed,
        "reads": reads.files,
    }
    folder.parent.mkdir(parents=True, exist_ok=True)
    temporary = Path(tempfile.mkdtemp(dir=folder.parent, prefix=MAKING))
    try:
        why = save_prepared(subject, temporary, making.changed, making.untrained)
        if why:
            subject = subject.with_note(f"built again in each process: {why}")
        facts |= {"rebuilt": bool(why), "notes": list(subject.notes)}
        (temporary / "facts.json").write_text(json.dumps(facts))
        if folder.is_dir() and not is_kept(making.key):  # somebody began to delete it, or its data
            discard(folder)
        temporary.replace(folder)
    except OSError:  # another run was faster, and its result is the same; or the disk is full
        if not is_kept(making.key):
            raise
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    return facts


def digest(*parts: Any) -> str:
    """Return 24 hexadecimal digits over the parts."""
    text = json.dumps([FORMAT, *parts], default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:24]
