"""The control workload: the same work in every heat of every run, to tell machine from model.

Nothing in it depends on the model, the grid or the seed of a run. With any change of it goes one of
CONTROL_VERSION.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from harness.measure.devices import Device

SEED = 1
ROWS, WIDTH, CHANNELS = 16, 128, 16


class Control(nn.Module):
    """Two dense layers, a convolution and elementwise work: what models are made of."""

    def __init__(self) -> None:
        super().__init__()
        self.dense = nn.Sequential(nn.Linear(WIDTH, WIDTH), nn.ReLU(), nn.Linear(WIDTH, WIDTH))
        self.convolution = nn.Conv1d(1, CHANNELS, 5)

    def forward(self, rows: Tensor) -> Tensor:
        """Return one number a row."""
        return torch.tanh(self.convolution(self.dense(rows).unsqueeze(1))).mean((1, 2))


def build_control(device: Device) -> tuple[nn.Module, Tensor]:
    """Return the control and its rows on a device; weights and rows are always the same."""
    generator = torch.Generator().manual_seed(SEED)
    control = Control().eval()
    with torch.no_grad():
        for weights in control.parameters():
            weights.copy_(torch.randn(weights.shape, generator=generator) / WIDTH**0.5)
    rows = torch.randn(ROWS, WIDTH, generator=generator)
    return device.place(control), device.place(rows)
