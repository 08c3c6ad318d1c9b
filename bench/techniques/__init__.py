"""Techniques: functions from a Subject to a smaller or faster one."""

from bench.techniques import baseline, distillation, precision, pruning

__all__ = ["baseline", "distillation", "precision", "pruning"]
