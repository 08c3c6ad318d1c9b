"""Restore: a prepared variant as it was, from the cache or built again by its steps."""

from __future__ import annotations

import dataclasses
from typing import Any

import torch

from bench.subject import Subject
from bench.training import train
from harness.prepare.build import Steps, apply_step, build_base, built
from harness.prepare.kept import (
    STATE,
    SUBJECT,
    load_dataset,
    mapped_bytes,
    read_facts,
    variant_folder,
)
from harness.prepare.seeding import seed_everything
from harness.prepare.state import restore_state

_restored: dict[str, Subject] = {}
"""Variants that were built again in this process, with the weights they had."""


def load_subject(variant: str, with_data: bool = False, mapped: bool = True) -> Subject:
    """Return a prepared subject; without its data it takes only the memory of the model.

    A large one is mapped, unless its weights are to be this process's own.
    """
    facts = read_facts(variant)
    subject = _rebuild(facts) if facts["rebuilt"] else _read(facts, mapped)
    if with_data and facts["data"]:
        subject = dataclasses.replace(subject, data=load_dataset(facts["data"]))
    return subject


def _read(facts: dict[str, Any], mapped: bool) -> Subject:
    variant = facts["variant"]
    path, mapped = variant_folder(variant) / SUBJECT, mapped and mapped_bytes(variant) > 0
    try:
        subject: Subject = torch.load(path, weights_only=False, mmap=mapped)
    except (ImportError, AttributeError):  # what only its function makes importable
        _remake(facts)
        subject = torch.load(path, weights_only=False, mmap=mapped)
    return subject


def _rebuild(facts: dict[str, Any]) -> Subject:
    """Return a variant made again by the steps that made it, with the weights it had.

    Once in a process: it is kept there, without its data.
    """
    variant = facts["variant"]
    if variant not in _restored:
        steps, subject = _remake(facts)
        if (variant_folder(variant) / STATE).is_file():
            restore_state(subject.module, variant_folder(variant) / STATE)
        elif facts["trained"] and not steps.base:
            seed_everything(steps.seed, "train")
            subject = train(subject, device=steps.device)
        _restored[variant] = built[steps] = dataclasses.replace(subject, data=None)
    return _restored[variant]


def _remake(facts: dict[str, Any]) -> tuple[Steps, Subject]:
    steps = Steps(**facts["steps"] | {"recipes": tuple(facts["steps"]["recipes"])})
    if steps.base and steps not in built:
        built[steps] = apply_step(load_subject(steps.base, with_data=True), steps)
    return steps, build_base(steps)
