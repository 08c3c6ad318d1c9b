"""Three small models and, of each, cells that are not alike: what people compare."""

from itertools import pairwise

import torch
from torch import nn
from torch.nn import functional

ROWS = 64


def mlp() -> tuple[nn.Module, torch.Tensor]:
    """Return three linear layers."""
    torch.manual_seed(0)
    module = nn.Sequential(
        nn.Linear(256, 512), nn.ReLU(), nn.Linear(512, 512), nn.ReLU(), nn.Linear(512, 10)
    )
    return module.eval(), torch.randn(ROWS, 256)


def convolutions() -> tuple[nn.Module, torch.Tensor]:
    """Return three convolutions with batch norm, and a linear layer."""
    torch.manual_seed(0)
    channels, layers = (3, 16, 32, 32), []
    for before, after in pairwise(channels):
        layers += [nn.Conv2d(before, after, 3, stride=2, padding=1), nn.BatchNorm2d(after),
                   nn.ReLU()]  # fmt: skip
    module = nn.Sequential(*layers, nn.Flatten(), nn.Linear(32 * 4 * 4, 10))
    return module.eval(), torch.randn(ROWS, 3, 32, 32)


class Block(nn.Module):
    """Attention and a feed-forward part, each added to what it reads."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.mix, self.project = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.widen, self.narrow = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)
        self.first, self.second = nn.LayerNorm(width), nn.LayerNorm(width)

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        batch, length, width = tokens.shape
        parts = self.mix(self.first(tokens)).chunk(3, -1)
        queries, keys, values = (
            part.reshape(batch, length, self.heads, -1).transpose(1, 2) for part in parts
        )
        seen = functional.scaled_dot_product_attention(queries, keys, values)
        tokens = tokens + self.project(seen.transpose(1, 2).reshape(batch, length, width))
        return tokens + self.narrow(functional.gelu(self.widen(self.second(tokens))))


def transformer() -> tuple[nn.Module, torch.Tensor]:
    """Return two blocks over 32 tokens."""
    torch.manual_seed(0)
    module = nn.Sequential(Block(128, 4), Block(128, 4), nn.Flatten(), nn.Linear(32 * 128, 10))
    return module.eval(), torch.randn(ROWS, 32, 128)


WORKLOADS = {
    "mlp": ("bf16", "int8-dynamic", "low-rank(0.5)"),
    "convolutions": ("bf16", "fuse", "low-rank(0.5)"),
    "transformer": ("bf16", "int8-dynamic", "prune-magnitude(0.9) + sparse-kernels"),
}
"""What is compared with each model's baseline."""
BATCH = 8
