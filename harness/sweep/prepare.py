"""Prepare variants: build, train, compress, and keep the result by the hash of what made it.

A variant is a folder in the cache: `facts.json`, and `subject.pt` (module and example inputs) where
that can be serialized. Where it cannot, workers build it again by the same steps, and take its
weights from `state.pt`. Data sets are kept once, by content. Runs in workers only.
"""

from __future__ import annotations

import dataclasses
import hashlib
import inspect
import json
import shutil
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import cloudpickle
import torch
from torch.nn.parameter import is_lazy

from bench import registry
from bench.cache import code_version
from bench.errors import Refusal, SpecError
from bench.spec import find_files
from bench.subject import Subject, as_subject, evaluating
from bench.training import train, updates_per_epoch
from harness.measure.runtimes import like_strides
from harness.measure.settings import read_global_settings
from harness.sweep.content import Unkeyable
from harness.sweep.footprint import compare_footprints, find_footprint
from harness.sweep.kept import load_dataset, read_facts, store_dataset, variant_folder
from harness.sweep.seeding import seed_everything
from harness.sweep.sources import digest_all, digest_sources
from harness.sweep.users import is_users

FORMAT = 3
"""Of a variant's folder; raise it when what is stored changes."""


@dataclass(frozen=True)
class Steps:
    """How a variant is made: by what is built again where it cannot be serialized.

    base: the variant that `technique` was applied to, or empty for a model with its recipes.
    """

    model: str = ""
    recipes: tuple[str, ...] = ()
    batch: int | None = None
    base: str = ""
    technique: str = ""
    seed: int = 0


def prepare_base(
    model: str, recipes: list[str], seed: int, token: str, batch: int | None = None
) -> dict[str, Any]:
    """Return the facts of a trained model: `variant`, `prepare_s`, `task`, `notes`.

    With `batch` it is trained in that batch, and `tune_quality` tells after each epoch how good it
    was on the tune split. The model is always built: its key contains all that it holds. What
    cannot be told by its content is kept for this run only, by `token`.
    """
    begin = time.perf_counter()
    steps = Steps(model=model, recipes=tuple(recipes), batch=batch, seed=seed)
    module = factory_module("model", model)
    before = find_footprint(module)
    subject = build_base(steps)
    changed = compare_footprints(before, find_footprint(module))
    data = store_dataset(subject.data) if subject.data else ""
    try:
        content = digest_all(dataclasses.replace(subject, data=None), module)
    except Unkeyable as why:
        content = token
        subject = subject.with_note(f"prepared anew in every run: {why}")
    key = digest(
        code_version(), content, model, recipes, seed, torch.__version__, torch.get_num_threads(),
        data, batch, read_global_settings(),
    )  # fmt: skip
    way: list[float] = []

    def make() -> tuple[Subject, str]:
        seed_everything(seed, "train")
        return train(subject, None if batch is None else way), data

    making = _Making(key, steps, subject.task(model), begin=begin, way=way, changed=changed)
    return _keep(making, make)


_built: dict[Steps, Subject] = {}
"""What was made in this process: a function that patches something runs once in it."""


def build_base(steps: Steps) -> Subject:
    """Return a model as its function and recipes make it, before it is trained."""
    if steps not in _built:
        _built[steps] = _build_base(steps)
    return _built[steps]


def _build_base(steps: Steps) -> Subject:
    model = steps.model
    seed_everything(steps.seed, model)
    subject = dataclasses.replace(as_subject(registry.build("model", model), model), origin=model)
    settle_shapes(subject)
    for recipe in steps.recipes:
        subject = registry.build("technique", recipe, subject)
    return subject if steps.batch is None else with_batch(subject, steps.batch, model)


def settle_shapes(subject: Subject) -> None:
    """Let lazy layers learn their shapes from the example inputs, in place."""
    if any(map(is_lazy, [*subject.module.parameters(), *subject.module.buffers()])):
        training = {part: part.training for part in subject.module.modules()}
        with torch.no_grad():
            evaluating(subject.module)(*(value.clone() for value in subject.inputs))
        for part, was in training.items():
            part.training = was


def with_batch(subject: Subject, batch: int, model: str) -> Subject:
    """Return the subject with a recipe of that batch; Refusal where it is not trained."""
    if subject.recipe is None or subject.data is None:
        raise Refusal(f"task = 'training' needs data and a recipe, and {model} has none")
    return dataclasses.replace(
        subject, recipe=dataclasses.replace(subject.recipe, batch_size=batch)
    )


def prepare_step(base: str, step: str, seed: int, token: str) -> dict[str, Any]:
    """Return the facts of a prepared variant with one more technique applied.

    A technique of the user's, or one that names a file of his, is applied anew in every run, by
    `token`: what it reads or calls cannot be known without applying it.
    """
    before = read_facts(base)
    module = factory_module("technique", step)
    own = is_users(module) or bool(find_files(step))
    key = digest(base, step, seed, code_version(), digest_sources([module]), token if own else "")
    steps = Steps(base=base, technique=step, seed=seed)
    making = _Making(key, steps, before["task"], before["prepare_s"])

    def make() -> tuple[Subject, str]:
        subject = load_subject(base, with_data=True)
        footprint = find_footprint(module)
        _built[steps] = made = apply_step(subject, steps)
        changed = compare_footprints(footprint, find_footprint(module))
        making.changed = before["changed"] or changed  # what its model's function changed, too
        if made.data is None or made.data is subject.data:
            return made, before["data"]
        return made, store_dataset(made.data)

    return _keep(making, make)


def apply_step(subject: Subject, steps: Steps) -> Subject:
    """Return a subject with a technique applied; raise SpecError where it returns none."""
    seed_everything(steps.seed, steps.technique)
    made = registry.build("technique", steps.technique, subject)
    if not isinstance(made, Subject):
        raise SpecError(
            f"Technique {steps.technique!r} returned {type(made).__name__}; it must return a "
            "Subject."
        )
    return made


def load_subject(variant: str, with_data: bool = False) -> Subject:
    """Return a prepared subject; without its data it takes only the memory of the model."""
    folder, facts = variant_folder(variant), read_facts(variant)
    try:
        if facts["rebuilt"]:
            raise ImportError(facts["variant"])
        subject: Subject = torch.load(folder / "subject.pt", weights_only=False)
    except (ImportError, AttributeError):  # what only its function makes importable, too
        subject = dataclasses.replace(rebuild(facts, folder), data=None)
    if with_data and facts["data"]:
        subject = dataclasses.replace(subject, data=load_dataset(facts["data"]))
    return subject


def rebuild(facts: dict[str, Any], folder: Path) -> Subject:
    """Return a variant made again by the steps that made it, with the weights it had.

    Once in a process: it is kept there, without its data.
    """
    steps = Steps(**facts["steps"] | {"recipes": tuple(facts["steps"]["recipes"])})
    if steps.base and steps not in _built:
        _built[steps] = apply_step(load_subject(steps.base, with_data=True), steps)
    subject = build_base(steps)
    if (folder / "state.pt").is_file():
        state = torch.load(folder / "state.pt", weights_only=False)
        subject.module.load_state_dict(state["state"])
        for name, buffer in subject.module.named_buffers():  # those that are not saved as well
            buffer.copy_(state["buffers"][name])
    elif facts["trained"] and not steps.base:
        seed_everything(steps.seed, "train")
        subject = train(subject)
    _built[steps] = dataclasses.replace(subject, data=None)
    return subject


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


def _keep(making: _Making, make: Callable[[], tuple[Subject, str]]) -> dict[str, Any]:
    """Return the facts in the cache under a key, making the variant first if it is not there.

    `make` gives the subject and the key of its data.
    """
    folder = variant_folder(making.key)
    if (folder / "facts.json").is_file():
        return read_facts(making.key)
    subject, data = make()
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
    }
    folder.parent.mkdir(parents=True, exist_ok=True)
    temporary = Path(tempfile.mkdtemp(dir=folder.parent, prefix=".making-"))
    try:
        why = _save(subject, temporary, making.changed)
        if why:
            subject = subject.with_note(f"built again in each process: {why}")
        facts |= {"rebuilt": bool(why), "notes": list(subject.notes)}
        (temporary / "facts.json").write_text(json.dumps(facts))
        temporary.replace(folder)
    except OSError:  # another run was faster; its result is the same
        if not (folder / "facts.json").is_file():
            raise
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    return facts


def _save(subject: Subject, folder: Path, why: str) -> str:
    """Write a subject for other processes; or, for a reason, its weights, and return the reason.

    It is given, or is found when the subject cannot be written or read again.
    """
    # Cloned: a view of the training examples would bring all of them along.
    inputs = tuple(like_strides(value.detach().clone(), value) for value in subject.inputs)
    alone = dataclasses.replace(subject, data=None, inputs=inputs)
    try:
        if not why:
            save_subject(alone, folder / "subject.pt")
            torch.load(folder / "subject.pt", weights_only=False)
    except OSError:
        raise
    except Exception as error:
        (folder / "subject.pt").unlink(missing_ok=True)
        why = " ".join(f"{type(error).__name__}: {error}".split())[:200]
    if not why:
        return ""
    try:
        state = {
            "state": subject.module.state_dict(),
            "buffers": dict(subject.module.named_buffers()),
        }
        torch.save(state, folder / "state.pt")
    except Exception:  # then training is repeated, with the same seed
        (folder / "state.pt").unlink(missing_ok=True)
    return why


def save_subject(subject: Subject, path: Path) -> None:
    """Write a subject so that any worker can load it that has imported the same files."""
    torch.save(subject, path, pickle_module=cloudpickle)


def factory_module(kind: registry.Kind, text: str) -> str:
    """Return the name of the module in which a model or technique is defined."""
    entry, _ = registry.find(kind, text)
    return str(inspect.unwrap(entry.factory).__module__)


def digest(*parts: Any) -> str:
    """Return 24 hexadecimal digits over the parts."""
    text = json.dumps([FORMAT, *parts], default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:24]
