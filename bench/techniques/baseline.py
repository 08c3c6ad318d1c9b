"""The variant that everything else is compared with."""

from __future__ import annotations

from bench.registry import technique
from bench.subject import Subject


@technique("baseline")
def baseline(subject: Subject) -> Subject:
    """The trained model as it is, in 32-bit floating point."""
    return subject
