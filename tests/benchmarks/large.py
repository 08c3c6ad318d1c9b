"""Two models of usual size with random weights: ResNet-18, and a BERT of 12 layers."""

from itertools import pairwise

import torch
from torch import nn
from torch.nn import functional

VOCABULARY, TOKENS = 30_522, 32


class Residual(nn.Module):
    """Two convolutions, added to what they read. Source: He et al., arXiv:1512.03385."""

    def __init__(self, before: int, after: int, stride: int) -> None:
        super().__init__()
        self.first = nn.Conv2d(before, after, 3, stride, 1, bias=False)
        self.second = nn.Conv2d(after, after, 3, 1, 1, bias=False)
        self.norms = nn.ModuleList(nn.BatchNorm2d(after) for _ in range(2))
        self.shortcut = nn.Identity() if before == after else nn.Sequential(
            nn.Conv2d(before, after, 1, stride, bias=False), nn.BatchNorm2d(after)
        )  # fmt: skip

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        inner = functional.relu(self.norms[0](self.first(images)))
        return functional.relu(self.norms[1](self.second(inner)) + self.shortcut(images))


def resnet18() -> tuple[nn.Module, torch.Tensor]:
    """Return a ResNet-18 and two images of 224 × 224."""
    torch.manual_seed(0)
    layers: list[nn.Module] = [
        nn.Conv2d(3, 64, 7, 2, 3, bias=False), nn.BatchNorm2d(64), nn.ReLU(),
        nn.MaxPool2d(3, 2, 1),
    ]  # fmt: skip
    for before, after in pairwise((64, 64, 128, 256, 512)):
        layers += [Residual(before, after, 1 if before == after else 2), Residual(after, after, 1)]
    layers += [nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(512, 1000)]
    return nn.Sequential(*layers).eval(), torch.randn(2, 3, 224, 224)


class Layer(nn.Module):
    """Attention and a feed-forward part. Source: Devlin et al., arXiv:1810.04805."""

    def __init__(self, width: int = 768, heads: int = 12) -> None:
        super().__init__()
        self.heads = heads
        self.queries, self.keys, self.values = (nn.Linear(width, width) for _ in range(3))
        self.project = nn.Linear(width, width)
        self.widen, self.narrow = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)
        self.first, self.second = nn.LayerNorm(width), nn.LayerNorm(width)

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        batch, length, width = tokens.shape
        parts = [
            part(tokens).reshape(batch, length, self.heads, -1).transpose(1, 2)
            for part in (self.queries, self.keys, self.values)
        ]
        seen = functional.scaled_dot_product_attention(*parts)
        seen = self.project(seen.transpose(1, 2).reshape(batch, length, width))
        tokens = self.first(tokens + seen)
        return self.second(tokens + self.narrow(functional.gelu(self.widen(tokens))))


class Bert(nn.Module):
    """Embeddings, twelve layers, and a head on the first token."""

    def __init__(self) -> None:
        super().__init__()
        self.words, self.places = nn.Embedding(VOCABULARY, 768), nn.Embedding(512, 768)
        self.norm, self.layers = nn.LayerNorm(768), nn.Sequential(*(Layer() for _ in range(12)))
        self.head = nn.Linear(768, 2)

    def forward(self, words: torch.Tensor) -> torch.Tensor:
        places = torch.arange(words.shape[1])
        tokens = self.layers(self.norm(self.words(words) + self.places(places)))
        return self.head(tokens[:, 0])


def bert() -> tuple[nn.Module, torch.Tensor]:
    """Return a BERT and two sequences of 32 tokens."""
    torch.manual_seed(0)
    return Bert().eval(), torch.randint(VOCABULARY, (2, TOKENS))
