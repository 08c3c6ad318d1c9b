"""Techniques: functions from a Subject to a smaller or faster one."""

from bench.techniques import (
    baseline,
    channels,
    distillation,
    inputs,
    low_rank,
    precision,
    pruning,
    quantization,
    recipes,
    sharing,
    sparse,
    static,
    structure,
    tensor_cores,
    transfer,
)

__all__ = [
    "baseline",
    "channels",
    "distillation",
    "inputs",
    "low_rank",
    "precision",
    "pruning",
    "quantization",
    "recipes",
    "sharing",
    "sparse",
    "static",
    "structure",
    "tensor_cores",
    "transfer",
]
