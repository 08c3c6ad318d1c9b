"""A worker: a forked process that answers the runner's requests, one at a time."""

from __future__ import annotations

import os
import resource
import traceback
from pathlib import Path
from typing import Any

import torch

from bench.errors import Refusal, SpecError
from harness.errors import WorkerRefusal
from harness.worker.channel import Channel
from harness.worker.workbench import Workbench

OUT_OF_MEMORY = ("can't allocate memory", "not enough memory", "out of memory")


def serve(channel: Channel) -> None:
    """Answer requests until the runner hangs up; then end the process."""
    bench = Workbench()
    while True:
        try:
            operation, arguments = channel.receive()
        except (EOFError, ConnectionError):
            os._exit(0)
        channel.send(answer(bench, operation, arguments))


def answer(bench: Workbench, operation: str, arguments: dict[str, Any]) -> tuple[Any, ...]:
    """Return ("ok", result), ("refused", why) or ("failed", kind, message)."""
    try:
        return ("ok", getattr(bench, operation)(**arguments))
    except (Refusal, WorkerRefusal) as error:
        return ("refused", str(error))
    except SpecError as error:
        return ("failed", "usage", str(error))
    except (MemoryError, torch.OutOfMemoryError) as error:
        return ("failed", "out-of-memory", describe_shortage(error))
    except Exception as error:
        if any(words in str(error) for words in OUT_OF_MEMORY):
            return ("failed", "out-of-memory", describe_shortage(error))
        return ("failed", "exception", describe(error))


def describe(error: BaseException) -> str:
    """Return the exception in one line, with the place where it was raised."""
    place = traceback.extract_tb(error.__traceback__)[-1]
    text = " ".join(str(error).split())[:500]
    told = f"{type(error).__name__}: {text}" if text else type(error).__name__
    return f"{told} ({Path(place.filename).name}:{place.lineno})"


def describe_shortage(error: BaseException) -> str:
    """Return the exception in one line, with the limit that this worker has."""
    limit_bytes, _ = resource.getrlimit(resource.RLIMIT_DATA)
    if limit_bytes == resource.RLIM_INFINITY:
        return describe(error)
    return (
        f"{describe(error)}. A worker may take {limit_bytes:,} bytes: max_memory_bytes in [budget]"
    )
