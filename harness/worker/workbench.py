"""The workbench: what a worker can be asked, and what it has loaded."""

from __future__ import annotations

import dataclasses
import os
import random
import resource
import time
from collections.abc import Callable, Sequence
from math import isnan
from typing import Any

import numpy as np
import torch

from bench import registry
from bench.cache import cache_folder
from harness.errors import WorkerRefusal
from harness.layer import Layer
from harness.likeness import write_work
from harness.measure import counts, memory, quality, settings, timing, traffic, weights
from harness.measure.allocator import keep_freed_memory
from harness.measure.behaviour import try_out
from harness.measure.devices import open_device
from harness.measure.disturbance import Watch
from harness.measure.energy import find_counter, measure_energy
from harness.measure.layers import list_layers
from harness.measure.macs import OUTSIDE
from harness.measure.page_cache import cached_share
from harness.measure.placement import shift_heap
from harness.measure.roofline import Roofs
from harness.measure.roofs import roofs_for
from harness.measure.runtimes import TRAINING, take_batch
from harness.prepare import imports, kept, make
from harness.prepare.lookup import look_up_model, look_up_technique
from harness.prepare.restore import load_subject
from harness.stats import Estimate
from harness.worker.loaded import Loaded, open_control, open_variant

COUNTED_EXAMPLES = 2
"""Batch norm cannot train on a single example."""


class Workbench:
    """What a worker can be asked; each public method is an operation of the protocol."""

    def __init__(self) -> None:
        self._loaded: Loaded | None = None
        self._pace: timing.Pace | None = None
        self._watch: Watch | None = None
        self._flush: Callable[[], None] | None = None
        self._processors = os.sched_getaffinity(0)  # before any pinning
        self._places = random.Random()
        self._shift: list[torch.Tensor] = []

    def catalog(self, plugins: list[str]) -> list[dict[str, Any]]:
        """Return every registered model, technique and data set, plugins included."""
        registry.load_plugins(plugins)
        return registry.catalog()

    def resolve_technique(self, text: str, plugins: list[str]) -> dict[str, Any]:
        """Return a pipeline in canonical form, with what is known of its steps."""
        registry.load_plugins(plugins)
        return look_up_technique(text)

    def resolve_model(
        self, text: str, plugins: list[str], techniques: Sequence[str] = ()
    ) -> dict[str, Any]:
        """Return a model's canonical name, its task, and which pipelines do not suit it."""
        registry.load_plugins(plugins)
        return look_up_model(text, techniques)

    def probe_device(self, device: str) -> dict[str, Any]:
        """Return what is known of a device; refused with the reason where there is none."""
        opened = open_device(device)
        counter = find_counter(opened)
        source = {"no_energy": counter} if isinstance(counter, str) else {"energy": counter.name}
        free = opened.free_memory_bytes()
        known = settings.describe_build() | opened.describe() | source
        return known | ({} if free is None else {"free_memory_bytes": free})

    def energy(self, variant: str, device: str, runtime: str, threads: int, batch: int,
               pin: bool, near: int | None) -> Estimate:  # fmt: skip
        """Return the energy of one call beyond idling, measured in this process alone."""
        self._prepare_process(threads, pin, near)
        loaded = open_variant(variant, device, runtime, batch)
        counter = find_counter(loaded.device)
        if isinstance(counter, str):
            raise WorkerRefusal(counter)
        with loaded.mode():
            timing.warm_up(loaded.call, refresh=loaded.refresh)
            return measure_energy(loaded.call_afresh, counter)

    def roofs(self, device: str, threads: int, pin: bool, machine: dict[str, Any],
              near: int | None = None) -> Roofs:  # fmt: skip
        """Return what a device can reach with so many threads, as known or measured now."""
        settings.apply_threads(threads, pin, near)
        return roofs_for(open_device(device), threads, machine, cache_folder() / "roofs")

    def prepare_base(
        self, model: str, recipes: list[str], seed: int, threads: int, token: str,
        batch: int | None = None, device: str = "cpu",
    ) -> dict[str, Any]:  # fmt: skip
        """Build and train a model, or find it in the cache; return its facts."""
        torch.set_num_threads(threads)
        return make.prepare_base(model, recipes, seed, token, batch, device)

    def prepare_step(
        self, base: str, step: str, seed: int, threads: int, token: str
    ) -> dict[str, Any]:
        """Apply one technique to a prepared variant, or find the result in the cache."""
        torch.set_num_threads(threads)
        return make.prepare_step(base, step, seed, token)

    def find_key(
        self, model: str, recipes: list[str], steps: list[str], seed: int, threads: int,
        token: str, batch: int | None = None, device: str = "cpu",
    ) -> str:  # fmt: skip
        """Return the key of a variant, built and not made."""
        torch.set_num_threads(threads)
        built = make.build_keyed(model, recipes, seed, token, batch, device)
        key = make.key_by_reads(built.key)
        for step in steps:
            key = make.key_by_reads(make.step_key(key, step, seed, token))
        return key

    def limit_memory(self, limit_bytes: int) -> None:
        """Let allocations beyond a limit (0: none) fail."""
        if limit_bytes:
            resource.setrlimit(resource.RLIMIT_DATA, (limit_bytes, limit_bytes))

    def bring_in(self, folders: list[str], plugins: list[str], files: list[str]) -> None:
        """Import the user's files in this worker, where no template could."""
        imports.bring_in(folders, plugins, files)

    def load(self, variant: str, device: str, runtime: str, threads: int, batch: int, pin: bool,
             wait_policy: str, flush_cache: bool, cold: bool,
             near: int | None = None) -> dict[str, Any]:  # fmt: skip
        """Load a variant and warm it up; return the `pace_s` of a call.

        `near` is the memory node of the device, where threads are pinned to it. With `cold`, as the
        first of a cell's processes is loaded, the start is timed, with weights that are this
        process's own, and `metrics`, `conditions` and `traffic` are returned as well.
        """
        self._prepare_process(threads, pin, near)
        file = kept.variant_folder(variant) / kept.SUBJECT
        cached = cached_share(file) if cold else float("nan")
        begin = time.perf_counter()
        loaded = open_variant(variant, device, runtime, batch, mapped=not cold)
        with loaded.mode():
            loaded.call()
        metrics = {"cold_start_s": time.perf_counter() - begin} if cold else {}
        if cold and kept.mapped_bytes(variant):
            del loaded
            loaded = open_variant(variant, device, runtime, batch)
        pace = self._warm_up(loaded, flush_cache, pin)
        if not cold:
            return {"pace_s": pace.call_s}
        loaded.renew()
        moved = traffic.count_traffic(loaded.program, loaded.inputs)
        found = settings.read_settings(moved.dtypes, pace.processors_used)
        wanted = {"threads": threads, "pin": pin, "wait_policy": wait_policy}
        return {
            "pace_s": pace.call_s,
            "metrics": {**metrics, **loaded.device_times()},
            "conditions": {
                **found,
                **loaded.device.settings(),
                "warnings": [
                    *settings.compare_settings(wanted, found),
                    *settings.compare_global_settings(kept.read_facts(variant)["settings"]),
                    *loaded.behaviour.explain(),
                ],
                "file_cached_share": cached,
                "loops": pace.loops,
                "warm_up_calls": pace.warm_up_calls,
                "call_examples": len(loaded.inputs[0]),
                "operators": write_work(moved.shares),
            },
            "traffic": moved,
        }

    def load_control(self, device: str, threads: int, pin: bool, near: int | None = None) -> None:
        """Load the control workload instead of a variant, and warm it up."""
        self._prepare_process(threads, pin, near)
        self._warm_up(open_control(device), flush_cache=False, pin=pin)

    def _prepare_process(self, threads: int, pin: bool, near: int | None) -> None:
        settings.apply_threads(threads, pin, near)
        keep_freed_memory()

    def _warm_up(self, loaded: Loaded, flush_cache: bool, pin: bool) -> timing.Pace:
        self._loaded = loaded
        self._watch = Watch(loaded.device.read_state, self._processors)
        self._flush = loaded.device.flush_cache if flush_cache else None
        with loaded.mode():
            self._pace = timing.warm_up(loaded.call, not flush_cache, loaded.refresh)
        if pin:
            settings.pin_pool(torch.get_num_threads())
        return self._pace

    def answers(
        self, variant: str, batch: int, known: np.ndarray | None = None
    ) -> dict[str, np.ndarray] | None:
        """Return the loaded variant's answers, or None if those known from another batch hold."""
        assert self._loaded is not None and self._loaded.subject is not None
        key = kept.read_facts(variant)["data"]
        data = kept.load_dataset(key) if key else None
        subject = dataclasses.replace(self._loaded.subject, data=data)
        program, device = self._loaded.answering_program(), self._loaded.device
        mode = self._loaded.behaviour.mode
        return quality.collect_answers(subject, program, device, batch, known, mode)

    def block(self, block_s: float) -> timing.Block:
        """Return one block of samples of what is loaded, its buffers somewhere else than before."""
        assert self._loaded is not None and self._pace is not None and self._watch is not None
        self._shift.clear()
        self._shift += shift_heap(self._places)
        with self._loaded.mode():
            return timing.time_block(
                self._loaded.call, self._pace, block_s, self._watch, self._flush,
                self._loaded.refresh,
            )  # fmt: skip

    def measure_memory(self, variant: str, device: str, runtime: str, threads: int,
                       batch: int) -> dict[str, float]:  # fmt: skip
        """Return memory metrics of loading and calling a variant, in this fresh process."""
        settings.apply_threads(threads, pin=False)
        opened = open_device(device)
        memory.prime(opened.place)

        def load() -> tuple[Callable[[], Any], memory.Mode, Callable[[], None]]:
            opened.reset_peak()
            loaded = open_variant(variant, device, runtime, batch, mapped=False)
            return loaded.call, loaded.mode, loaded.renew

        return memory.measure_memory(load) | opened.memory()

    def count(self, variant: str, runtime: str, batches: Sequence[int] = ()) -> dict[str, Any]:
        """Return parameters, bytes and multiply-accumulates of a variant; note its behaviour.

        The multiply-accumulates are those of calls of these `batches`, if of any.
        """
        known = kept.read_counts(variant, runtime, batches)
        if known is not None:
            return known
        loaded = open_variant(variant, "cpu", runtime, batch=COUNTED_EXAMPLES)
        assert loaded.subject is not None
        examples = loaded.subject.inputs

        def call_of(count: int) -> counts.Call:
            if runtime != TRAINING:
                return loaded.program, take_batch(examples, count)
            one = open_variant(variant, "cpu", runtime, count)  # a step changes the weights
            return one.program, one.inputs

        found = weights.count_weights(loaded.module)  # before calls leave something in its buffers
        found["disk_bytes"] = weights.disk_bytes(loaded.module)
        few = counts.SEVERAL if runtime == TRAINING else (*counts.SEVERAL, 1)  # norms train on two
        work, uncounted = counts.count_work(call_of, (*few, len(examples[0])), batches)
        kept.keep_behaviour(variant, try_out(loaded.module, examples))
        if found["params"] == 0 and any(name.startswith(OUTSIDE) for name in uncounted):
            found = {}  # its weights are where it computes
        counted = {
            "metrics": found,
            "work": work,
            "uncounted_ops": uncounted,
            "mapped_bytes": kept.mapped_bytes(variant),
        }
        if not any(isnan(macs) for _, macs in work.counted):  # or what failed may go well again
            kept.keep_counts(variant, runtime, batches, counted)
        return counted

    def inspect(self, variant: str) -> list[Layer]:
        """Return the layers of a variant."""
        subject = load_subject(variant)
        return list_layers(subject.module, subject.inputs)
