"""A worker: a forked process that answers the runner's requests, one at a time."""

from __future__ import annotations

import os
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
        return ("failed", "out-of-memory", describe(error))
    except Exception as error:
        short = any(words in str(error) for words in OUT_OF_MEMORY)
        return ("failed", "out-of-memory" if short else "exception", describe(error))


def describe(error: BaseException) -> str:
    """Return the exception in one line, with the place where it was raised."""
    place = traceback.extract_tb(error.__traceback__)[-1]
    text = " ".join(str(error).split())[:500]
    return f"{type(error).__name__}: {text} ({Path(place.filename).name}:{place.lineno})"
