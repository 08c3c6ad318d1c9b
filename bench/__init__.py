"""What is measured: models, techniques and data. Knows nothing of how they are measured."""

from bench.errors import Refusal, SpecError
from bench.registry import dataset, model, technique
from bench.subject import Recipe, Subject

__all__ = ["Recipe", "Refusal", "SpecError", "Subject", "dataset", "model", "technique"]
