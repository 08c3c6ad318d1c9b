"""Techniques: functions from a Subject to a smaller or faster one."""

from bench.techniques import (
    baseline,
    distillation,
    low_rank,
    precision,
    pruning,
    quantization,
    sharing,
    structure,
)

__all__ = [
    "baseline",
    "distillation",
    "low_rank",
    "precision",
    "pruning",
    "quantization",
    "sharing",
    "structure",
]
