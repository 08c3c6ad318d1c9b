"""Restore: a prepared variant as it was, from the cache or built again by its steps."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import torch

from bench.subject import Subject
from bench.training import train
from harness.sweep.build import Steps, apply_step, build_base, built
from harness.sweep.kept import load_dataset, read_facts, variant_folder
from harness.sweep.seeding import seed_everything


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
    if steps.base and steps not in built:
        built[steps] = apply_step(load_subject(steps.base, with_data=True), steps)
    subject = build_base(steps)
    if (folder / "state.pt").is_file():
        state = torch.load(folder / "state.pt", weights_only=False)
        subject.module.load_state_dict(state["state"])
        for name, buffer in subject.module.named_buffers():  # those that are not saved as well
            buffer.copy_(state["buffers"][name])
    elif facts["trained"] and not steps.base:
        seed_everything(steps.seed, "train")
        subject = train(subject)
    built[steps] = dataclasses.replace(subject, data=None)
    return subject
