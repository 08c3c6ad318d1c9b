"""Variants: what a worker prepares for a cell, and what is counted of it."""

from __future__ import annotations

from dataclasses import dataclass, field
from math import isnan
from typing import Any
from uuid import uuid4

from bench.spec import split_pipeline
from harness.errors import UserError, WorkerFailure, WorkerRefusal
from harness.grid import BASELINE, TRAINING, Cell
from harness.layer import Layer
from harness.measure.work import UNTOLD, Work
from harness.record import Record
from harness.sweep.launcher import Launcher
from harness.sweep.plan import Plan, imports_of
from harness.sweep.remote import Worker

Variant = tuple[str, str, int]


@dataclass(frozen=True)
class Prepared:
    """A variant in the cache with what was counted of it, or why there is none.

    tune_quality: on the tune split after each epoch, where a training was asked for.
    """

    variant: str = ""
    task: str = ""
    metrics: dict[str, float] = field(default_factory=dict)
    work: Work | None = None
    uncounted_ops: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    tune_quality: tuple[float, ...] = ()
    updates_per_epoch: int = 0
    mapped_bytes: float = 0.0
    """How much of it its processes share."""
    problem: WorkerFailure | WorkerRefusal | None = None


def variant_of(cell: Cell) -> Variant:
    """Return what a cell shares with those that are prepared alike."""
    return (cell.model, cell.technique, cell.batch if cell.runtime == TRAINING else 0)


def prepare_variant(worker: Worker, plan: Plan, cell: Cell, token: str) -> dict[str, Any]:
    """Return the facts of a cell's variant, which is in the cache then.

    `token` belongs to the run: what cannot be told apart by its content is made anew in each.
    """
    steps = [] if cell.technique == BASELINE else list(split_pipeline(cell.technique))
    recipes = steps[: plan.techniques[cell.technique].recipes]
    prepare = plan.grid.prepare
    common = {"seed": cell.seed, "threads": prepare.threads, "token": token}
    batch = cell.batch if cell.runtime == TRAINING else None
    timeout_s = plan.grid.budget.prepare_timeout_s
    facts: dict[str, Any] = worker.call(
        "prepare_base",
        timeout_s,
        model=cell.model,
        recipes=recipes,
        batch=batch,
        device=prepare.device,
        **common,
    )
    for step in steps[len(recipes) :]:
        base = facts["variant"]
        facts = worker.call("prepare_step", timeout_s, base=base, step=step, **common)
    return facts


def find_key(worker: Worker, plan: Plan, cell: Cell, token: str) -> str:
    """Return the key that a cell's variant would have, without making it."""
    steps = [] if cell.technique == BASELINE else list(split_pipeline(cell.technique))
    recipes = plan.techniques[cell.technique].recipes
    key: str = worker.call(
        "find_key",
        plan.grid.budget.prepare_timeout_s,
        model=cell.model,
        recipes=steps[:recipes],
        steps=steps[recipes:],
        batch=cell.batch if cell.runtime == TRAINING else None,
        device=plan.grid.prepare.device,
        seed=cell.seed,
        threads=plan.grid.prepare.threads,
        token=token,
    )
    return key


def count_variant(worker: Worker, plan: Plan, cell: Cell, facts: dict[str, Any]) -> Prepared:
    """Return a prepared variant with what is counted of it."""
    counted = worker.call(
        "count",
        plan.grid.budget.timeout_s,
        variant=facts["variant"],
        runtime=cell.runtime,
        batches=_find_batches(plan, cell),
    )
    return Prepared(
        variant=facts["variant"],
        task=facts["task"],
        metrics={**counted["metrics"], "prepare_s": facts["prepare_s"]},
        work=counted["work"],
        uncounted_ops=tuple(counted["uncounted_ops"]),
        notes=tuple(facts["notes"]),
        tune_quality=tuple(facts["tune_quality"]),
        updates_per_epoch=facts["updates_per_epoch"],
        mapped_bytes=counted["mapped_bytes"],
    )


def _find_batches(plan: Plan, cell: Cell) -> list[int]:
    """Return the batches of the cells that share a cell's variant."""
    variant = variant_of(cell)
    return sorted({one.batch for one in plan.grid.expand() if variant_of(one) == variant})


def describe_variant(record: Record, found: Prepared, target: float | None) -> Record:
    """Return the record with what is known of its variant, and the epoch that reached a target."""
    uncounted = list(found.uncounted_ops)
    if found.work is not None:
        macs = found.work.for_one(record.cell.batch)
        record = record.measured(macs=macs)
        uncounted = uncounted or ([UNTOLD] if isnan(macs) else [])
    record = record.measured(**found.metrics).under(
        uncounted_ops=uncounted, notes=list(found.notes)
    )
    if not found.tune_quality:
        return record
    record = record.under(
        tune_quality=list(found.tune_quality), updates_per_epoch=found.updates_per_epoch
    )
    qualities = enumerate(found.tune_quality, 1)
    arrived = [epoch for epoch, quality in qualities if target is not None and quality >= target]
    return record.measured(epochs_to_target=arrived[0]) if arrived else record


def list_variant(plan: Plan, launcher: Launcher) -> list[Layer]:
    """Return the layers of the last cell of a plan; raise UserError where it cannot be made."""
    cell = plan.grid.expand()[-1]
    refused = plan.refusals.get(cell.model, {}).get(cell.technique)
    if refused:
        raise UserError(f"{cell.technique} of {cell.model}: {refused}.")
    try:
        with launcher.worker(imports_of(plan.grid, cell)) as worker:
            facts = prepare_variant(worker, plan, cell, token=uuid4().hex)
            layers: list[Layer] = worker.call(
                "inspect", plan.grid.budget.timeout_s, variant=facts["variant"]
            )
    except WorkerRefusal as refusal:
        raise UserError(f"{cell.technique} of {cell.model}: {refusal}.") from None
    except WorkerFailure as failure:
        raise UserError(f"{cell.model} cannot be inspected: {failure.message}") from None
    return layers
