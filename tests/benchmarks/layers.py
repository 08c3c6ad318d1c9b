"""Equal small layers, and techniques that add some: how much slower that is, is known."""

import dataclasses

import torch
from torch import nn

from bench.registry import technique
from bench.subject import Subject

WIDTH = 64
ROWS = 16


def stack(layers: int) -> tuple[nn.Module, torch.Tensor]:
    """Return so many linear layers of the same size."""
    torch.manual_seed(0)
    module = nn.Sequential(*(nn.Linear(WIDTH, WIDTH) for _ in range(layers)))
    return module.eval(), torch.randn(ROWS, WIDTH)


def layers_100() -> tuple[nn.Module, torch.Tensor]:
    """Return a hundred of them: one more is 1 %."""
    return stack(100)


def layers_200() -> tuple[nn.Module, torch.Tensor]:
    """Return two hundred: one more is 0.5 %."""
    return stack(200)


@technique("more-layers", realization="executed")
def more_layers(subject: Subject, count: int, copy: int = 0) -> Subject:
    """Add so many layers of the same size; `copy` tells equal ones apart."""
    added = (nn.Linear(WIDTH, WIDTH) for _ in range(count))
    return dataclasses.replace(subject, module=nn.Sequential(*subject.module, *added).eval())
