"""Model factories. Each returns an untrained Subject with data and a recipe."""

from bench.models import convolution, mlp, transformer

__all__ = ["convolution", "mlp", "transformer"]
