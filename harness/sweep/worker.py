"""A worker: a forked process that answers the runner's requests, one at a time."""

from __future__ import annotations

import os
import resource
import sys
import traceback
from collections.abc import Callable
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import numpy as np
import torch

from bench import registry
from bench.errors import Refusal, SpecError
from bench.spec import parse_pipeline
from bench.subject import Subject, as_subject
from harness.errors import WorkerRefusal
from harness.measure import counts, memory, quality, settings, timing
from harness.measure.devices import Device, open_device
from harness.measure.runtimes import Program, bind_inputs, build_program, take_batch
from harness.sweep import prepare

STAGES = ("recipe", "compression", "execution")
OUT_OF_MEMORY = ("can't allocate memory", "not enough memory", "out of memory")


def serve(connection: Connection) -> None:
    """Answer requests until the runner hangs up; then end the process."""
    bench = Workbench()
    while True:
        try:
            operation, arguments = connection.recv()
        except (EOFError, ConnectionError):
            os._exit(0)
        connection.send(answer(bench, operation, arguments))


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


class Workbench:
    """What a worker can be asked; each public method is an operation of the protocol."""

    def __init__(self) -> None:
        self._subject: Subject | None = None
        self._program: Program | None = None
        self._device: Device | None = None
        self._call: Callable[[], Any] | None = None
        self._pace: timing.Pace | None = None

    def catalog(self, plugins: list[str]) -> list[dict[str, Any]]:
        """Return every registered model, technique and data set, plugins included."""
        registry.load_plugins(plugins)
        return registry.catalog()

    def resolve_technique(self, text: str, plugins: list[str]) -> dict[str, Any]:
        """Return a pipeline in canonical form, with what is known of its steps."""
        registry.load_plugins(plugins)
        found = [registry.find("technique", str(call)) for call in parse_pipeline(text)]
        stages = [STAGES.index(entry.stage) for entry, _ in found]
        if stages != sorted(stages):
            raise SpecError(
                f"{text!r}: the steps are in the wrong order. First recipes (how a model is "
                "trained), then compressions, then executions (precision, layout)."
            )
        kept = [(entry, call) for entry, call in found if entry.name != "baseline"] or found[:1]
        devices = [set(entry.devices) for entry, _ in kept if entry.devices]
        return {
            "text": " + ".join(str(call) for _, call in kept),
            "devices": sorted(set.intersection(*devices)) if devices else [],
            "realization": "+".join(dict.fromkeys(e.realization for e, _ in kept if e.realization)),
            "recipes": sum(entry.stage == "recipe" for entry, _ in kept),
        }

    def resolve_model(self, text: str, plugins: list[str]) -> dict[str, Any]:
        """Return a model's canonical name, after building it once to find mistakes early."""
        registry.load_plugins(plugins)
        entry, call = registry.find("model", text)
        try:
            as_subject(entry.factory(*call.args, **dict(call.kwargs)), text)
        except SpecError:
            raise
        except Exception:  # a model that cannot be built becomes failed cells, with its message
            pass
        return {"text": str(call)}

    def probe_device(self, device: str) -> dict[str, Any]:
        """Return what is known of a device; refused with the reason where there is none."""
        return open_device(device).describe()

    def prepare_base(
        self, model: str, recipes: list[str], seed: int, plugins: list[str], threads: int
    ) -> dict[str, Any]:
        """Build and train a model, or find it in the cache; return its facts."""
        torch.set_num_threads(threads)
        registry.load_plugins(plugins)
        return prepare.prepare_base(model, recipes, seed)

    def prepare_step(
        self, base: str, step: str, seed: int, plugins: list[str], threads: int
    ) -> dict[str, Any]:
        """Apply one technique to a prepared variant, or find the result in the cache."""
        torch.set_num_threads(threads)
        registry.load_plugins(plugins)
        return prepare.prepare_step(base, step, seed)

    def set_up(self, limit_bytes: int, folders: list[str]) -> None:
        """Let allocations beyond a limit (0: none) fail; make the user's own files importable."""
        if limit_bytes:
            resource.setrlimit(resource.RLIMIT_DATA, (limit_bytes, limit_bytes))
        sys.path.extend(folder for folder in folders if folder not in sys.path)

    def load(self, variant: str, device: str, runtime: str, threads: int, batch: int, pin: bool,
             wait_policy: str) -> dict[str, Any]:  # fmt: skip
        """Load a variant, warm it up, and return the settings in effect and the pace."""
        settings.apply_threads(threads, pin)
        self._open(variant, device, runtime, batch)
        assert self._call is not None and self._subject is not None
        with torch.inference_mode():
            self._pace = timing.warm_up(self._call)
            device_s = self._device.device_time_s(self._call) if self._device else None
        found = settings.read_settings(self._subject.module)
        wanted = {"threads": threads, "wait_policy": wait_policy}
        return {
            "settings": found,
            "warnings": settings.compare_settings(wanted, found),
            "loops": self._pace.loops,
            "device_latency_s": device_s,
        }

    def answers(
        self, variant: str, batch: int, known: np.ndarray | None = None
    ) -> dict[str, np.ndarray] | None:
        """Return the loaded variant's answers, or None if those known from another batch hold."""
        assert self._program is not None and self._device is not None
        subject = prepare.load_subject(variant, with_data=True)
        return quality.collect_answers(subject, self._program, self._device, batch, known)

    def block(self, block_s: float) -> timing.Block:
        """Return one block of samples of the loaded variant."""
        assert self._call is not None and self._pace is not None
        with torch.inference_mode():
            return timing.time_block(self._call, self._pace, block_s)

    def measure_memory(self, variant: str, device: str, runtime: str, threads: int,
                       batch: int) -> dict[str, float]:  # fmt: skip
        """Return memory metrics of loading and calling a variant, in this fresh process."""
        settings.apply_threads(threads, pin=False)
        opened = open_device(device)
        memory.prime(opened.place)

        def load() -> Callable[[], Any]:
            opened.reset_peak()
            self._open(variant, device, runtime, batch)
            assert self._call is not None
            return self._call

        return memory.measure_memory(load) | opened.memory()

    def count(self, variant: str) -> dict[str, Any]:
        """Return parameters, bytes and multiply-accumulates of a variant."""
        subject = prepare.load_subject(variant)
        macs, uncounted = counts.count_macs(subject.module, subject.inputs)
        found = counts.count_weights(subject.module)
        found["disk_bytes"] = counts.disk_bytes(subject.module)
        return {"metrics": found | {"macs": macs}, "uncounted_ops": uncounted}

    def _open(self, variant: str, device: str, runtime: str, batch: int) -> None:
        self._device = open_device(device)
        self._subject = prepare.load_subject(variant)
        module = self._device.place(self._subject.module)
        self._program = build_program(module, runtime)
        rows = take_batch(self._subject.inputs, batch)
        inputs = tuple(self._device.place(value) for value in rows)
        self._call = bind_inputs(self._program, inputs, self._device)
