"""Save: a prepared subject for other processes, or what it learned where it is built again."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import torch
from torch import nn

from bench.subject import Subject
from harness.measure.runtimes import like_strides
from harness.prepare.kept import STATE, SUBJECT, save_subject
from harness.prepare.state import find_differences, find_lost, save_state


def save_prepared(
    subject: Subject, folder: Path, why: str, untrained: nn.Module | None = None
) -> str:
    """Write a subject for other processes; or, for a reason, its weights, and return the reason.

    It is given, or is found when the subject cannot be written or read again as it is.
    """
    # Cloned: a view of the training examples would bring all of them along.
    inputs = tuple(like_strides(value.detach().clone(), value) for value in subject.inputs)
    alone = dataclasses.replace(subject, data=None, inputs=inputs)
    try:
        if not why:
            save_subject(alone, folder / SUBJECT)
            read = torch.load(folder / SUBJECT, weights_only=False, mmap=True)
            lost = [*find_differences(alone.module, read.module)]
            why = f"{lost[0]} is another when it is read again" if lost else ""
    except OSError:
        raise
    except Exception as error:
        raise_full_disk(error)
        why = " ".join(f"{type(error).__name__}: {error}".split())[:200]
    if not why:
        return ""
    (folder / SUBJECT).unlink(missing_ok=True)
    return why + _save_weights(subject.module, folder / STATE, untrained)


def _save_weights(module: nn.Module, path: Path, untrained: nn.Module | None) -> str:
    """Write what a module has learned, if that is all; otherwise say that training is repeated.

    That is done with the same seed.
    """
    try:
        save_state(module, path)
        lost = find_lost(module, untrained, path) if untrained is not None else ""
    except Exception as error:
        raise_full_disk(error)
        lost = f"what it learns ({type(error).__name__})"
    if not lost:
        return ""
    path.unlink(missing_ok=True)
    if untrained is None:
        return ""
    return f"; trained again in each, as {lost} cannot be kept: register it as a buffer"


def raise_full_disk(error: BaseException | None) -> None:
    """Raise the OSError at the root of an error, if there is one.

    PyTorch's writer covers it with a complaint of its own, as if the content were to blame.
    """
    while error is not None:
        if isinstance(error, OSError):
            raise error
        error = error.__cause__ or error.__context__
