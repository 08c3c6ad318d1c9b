"""Conventions: what numbers in labels and outputs mean by agreement."""

IGNORED = -100
"""The label of what is not judged, such as the padding of a text (PyTorch's own convention)."""
PROBABILITY = 0.5
"""From here on a single output in 0 … 1 means the second class."""
