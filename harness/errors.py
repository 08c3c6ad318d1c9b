"""What can go wrong, and with which exit code the command then ends."""

from __future__ import annotations

from enum import IntEnum


class ExitCode(IntEnum):
    """Exit codes of the command; documented in the README."""

    FINE = 0
    USAGE = 2
    SOME_FAILED = 3
    NOTHING_MEASURED = 5
    INTERRUPTED = 130


class UserError(Exception):
    """A mistake of the user's: the message says what, where and what would work."""


class WorkerFailure(Exception):
    """A worker could not answer; its cell fails with this kind and message."""

    def __init__(self, kind: str, message: str) -> None:
        super().__init__(message)
        self.kind = kind
        self.message = message


class WorkerRefusal(Exception):
    """What was asked for does not exist here; the cell is skipped with this reason."""
