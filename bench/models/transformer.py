"""A small transformer for signals, with attention written out so that every product is seen."""

from __future__ import annotations

from typing import Annotated

import torch
from torch import Tensor, nn

from bench.data import Dataset, load_dataset
from bench.errors import Refusal
from bench.registry import model
from bench.spec import Range
from bench.subject import Recipe, Subject

Size = Annotated[int, Range(1)]


@model("mnist1d-transformer")
def mnist1d_transformer(
    data: str | Dataset = "mnist1d",
    width: Size = 64,
    depth: Size = 2,
    heads: Size = 4,
    patch: Size = 4,
) -> Subject:
    """Transformer encoder over patches of a signal; takes (channels, samples), whole patches."""
    examples = load_dataset(data)
    if len(examples.shape) != 2 or examples.shape[1] % patch:
        raise Refusal(
            f"mnist1d-transformer needs signals (channels, samples) with samples divisible by "
            f"{patch}; {examples.name} has the shape {examples.shape}."
        )
    if width % heads:
        raise Refusal(f"mnist1d-transformer: width {width} is not divisible by heads {heads}.")
    module = SignalTransformer(
        examples.shape[0], examples.shape[1], examples.classes, width, depth, heads, patch
    )
    recipe = Recipe(epochs=25, batch_size=200, learning_rate=4e-3)
    return Subject(module, (examples.train.inputs[:64],), examples, recipe)


class SignalTransformer(nn.Module):
    """Patches of a signal, a learned position, pre-norm encoder blocks, mean, linear head."""

    def __init__(
        self,
        channels: int,
        samples: int,
        classes: int,
        width: int,
        depth: int,
        heads: int,
        patch: int,
    ) -> None:
        super().__init__()
        self.embedding = nn.Conv1d(channels, width, patch, patch)
        self.position = nn.Parameter(torch.randn(1, samples // patch, width) * 0.02)
        self.blocks = nn.Sequential(*(EncoderBlock(width, heads) for _ in range(depth)))
        self.norm = nn.LayerNorm(width)
        self.head = nn.Linear(width, classes)

    def forward(self, signal: Tensor) -> Tensor:
        """Return class scores (batch, classes) of signals (batch, channels, samples)."""
        tokens = self.embedding(signal).transpose(1, 2) + self.position
        scores: Tensor = self.head(self.norm(self.blocks(tokens)).mean(dim=1))
        return scores


class EncoderBlock(nn.Module):
    """Self-attention and a two-layer perceptron, each behind a layer norm and a residual."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.attention_norm = nn.LayerNorm(width)
        self.query = nn.Linear(width, width)
        self.key = nn.Linear(width, width)
        self.value = nn.Linear(width, width)
        self.merge = nn.Linear(width, width)
        self.hidden_norm = nn.LayerNorm(width)
        self.hidden = nn.Sequential(
            nn.Linear(width, 2 * width), nn.GELU(), nn.Linear(2 * width, width)
        )

    def forward(self, tokens: Tensor) -> Tensor:
        """Return tokens of the same shape (batch, tokens, width)."""
        attended = tokens + self.attend(self.attention_norm(tokens))
        changed: Tensor = attended + self.hidden(self.hidden_norm(attended))
        return changed

    def attend(self, tokens: Tensor) -> Tensor:
        """Return scaled dot-product self-attention over the tokens."""
        split = (
            layer(tokens).unflatten(-1, (self.heads, -1)).transpose(1, 2)
            for layer in (self.query, self.key, self.value)
        )
        mixed = nn.functional.scaled_dot_product_attention(*split)
        merged: Tensor = self.merge(mixed.transpose(1, 2).flatten(-2))
        return merged
