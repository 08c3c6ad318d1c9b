"""Codes: the forms in which a weight is stored in few bits."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from bench.storage import Code, pack_bits, unpack_bits


class AffineCode(Code):
    """w ≈ low + step · q, q in 0 … 2^bits − 1, from the least to the largest weight of each row.

    `low` and `step` are kept as `bounds`.
    """

    def __init__(
        self, weight: Tensor, bits: int, row_length: int, bounds: torch.dtype = torch.float32
    ) -> None:
        super().__init__()
        self.bits, self.shape = bits, weight.shape
        rows = cut_rows(weight.detach().float(), row_length)
        self.rows_shape = rows.shape
        low, high = rows.amin(1, keepdim=True).to(bounds), rows.amax(1, keepdim=True)
        step = _positive((high - low.float()) / (2**bits - 1)).to(bounds)
        self.low: Tensor
        self.step: Tensor
        self.packed: Tensor
        self.register_buffer("low", low)
        self.register_buffer("step", step)
        codes = ((rows - low.float()) / step.float()).round().clamp(0, 2**bits - 1)
        self.register_buffer("packed", pack_bits(codes, bits))

    def forward(self) -> Tensor:
        """Return low + step · q in the weight's shape."""
        codes = unpack_bits(self.packed, self.bits, self.rows_shape.numel()).view(self.rows_shape)
        rows: Tensor = self.low.float() + self.step.float() * codes
        return rows.flatten()[: self.shape.numel()].view(self.shape)


class SymmetricCode(Code):
    """w ≈ step · q, q in −2^(bits − 1) + 1 … 2^(bits − 1) − 1, one step for each row."""

    def __init__(self, weight: Tensor, bits: int, row_length: int) -> None:
        super().__init__()
        self.bits, self.shape = bits, weight.shape
        rows = cut_rows(weight.detach().float(), row_length)
        self.rows_shape = rows.shape
        self.zero = 2 ** (bits - 1)
        step = _positive(rows.abs().amax(1, keepdim=True) / (self.zero - 1))
        self.step: Tensor
        self.packed: Tensor
        self.register_buffer("step", step)
        self.register_buffer("packed", pack_bits((rows / step).round() + self.zero, bits))

    def forward(self) -> Tensor:
        """Return step · q in the weight's shape."""
        codes = unpack_bits(self.packed, self.bits, self.rows_shape.numel()).view(self.rows_shape)
        rows: Tensor = self.step * (codes.float() - self.zero)
        return rows.flatten()[: self.shape.numel()].view(self.shape)


class PowerOfTwoCode(Code):
    """w ≈ 2^exponent · q with q of so many bits; one exponent for the tensor."""

    def __init__(self, weight: Tensor, bits: int) -> None:
        super().__init__()
        self.bits, self.shape = bits, weight.shape
        largest = 2 ** (bits - 1) - 1
        values = weight.detach().float()
        peak = values.abs().max().clamp(min=torch.finfo(torch.float32).tiny)
        exponent = torch.ceil(torch.log2(peak / largest)).clamp(-126, 127)
        codes = (values / 2**exponent).round().clamp(-largest - 1, largest)
        self.exponent: Tensor
        self.packed: Tensor
        self.register_buffer("exponent", exponent.to(torch.int8))
        self.register_buffer("packed", pack_bits(codes + largest + 1, bits))

    def forward(self) -> Tensor:
        """Return 2^exponent · q in the weight's shape."""
        codes = unpack_bits(self.packed, self.bits, self.shape.numel()).float()
        weight: Tensor = (codes - 2 ** (self.bits - 1)) * torch.exp2(self.exponent.float())
        return weight.view(self.shape)


class BinaryCode(Code):
    """w ≈ scale · sign(w) with one scale, the mean of |w| in 16 bits, for each output channel."""

    def __init__(self, weight: Tensor) -> None:
        super().__init__()
        self.shape = weight.shape
        rows = weight.detach().float().flatten(1)
        self.scale: Tensor
        self.packed: Tensor
        self.register_buffer("scale", rows.abs().mean(1, keepdim=True).half())
        self.register_buffer("packed", pack_bits(rows >= 0, 1))

    def forward(self) -> Tensor:
        """Return ± scale in the weight's shape."""
        signs = unpack_bits(self.packed, 1, self.shape.numel()).float() * 2 - 1
        return (self.scale.float() * signs.view(self.shape[0], -1)).view(self.shape)


class SharedCode(Code):
    """w ≈ codebook[q]: every weight is one of a few values, found by k-means over the layer.

    `codebook` is trainable: its gradient is the sum over the weights that share a value.
    """

    def __init__(self, weight: Tensor, clusters: int) -> None:
        super().__init__()
        self.shape = weight.shape
        values = weight.detach().float().flatten()
        codebook, indices = cluster(values, clusters)
        self.bits = max(1, (len(codebook) - 1).bit_length())
        self.codebook = nn.Parameter(codebook)
        self.packed: Tensor
        self.register_buffer("packed", pack_bits(indices, self.bits))

    def forward(self) -> Tensor:
        """Return the codebook's values in the weight's shape."""
        indices = unpack_bits(self.packed, self.bits, self.shape.numel()).int()
        return self.codebook[indices].view(self.shape)

    def freeze(self) -> None:
        """Make the codebook part of the stored weight, no parameter of its own."""
        values = self.codebook.detach()
        del self.codebook
        self.register_buffer("codebook", values)


def cluster(values: Tensor, clusters: int) -> tuple[Tensor, Tensor]:
    """Return the centres of a k-means of single numbers, ascending, and each value's centre.

    Starts from evenly spaced values between the least and the largest: large weights are few and
    matter most (Han et al., "Deep Compression", arXiv:1510.00149). Centres that end without a
    value are left out.
    """
    ordered, order = values.double().sort()
    sums = torch.cat([torch.zeros(1, dtype=torch.double), ordered.cumsum(0)])
    centres = torch.linspace(float(ordered[0]), float(ordered[-1]), clusters, dtype=torch.double)
    while True:
        borders = torch.searchsorted(ordered, (centres[1:] + centres[:-1]) / 2)
        edges = torch.cat([torch.zeros(1, dtype=torch.long), borders,
                           torch.tensor([len(ordered)])])  # fmt: skip
        counts = edges.diff()
        kept = counts > 0
        means = sums[edges].diff()[kept] / counts[kept]
        if len(means) == len(centres) and torch.equal(means, centres):
            break
        centres = means
    indices = torch.empty(len(values), dtype=torch.long)
    indices[order] = torch.repeat_interleave(torch.arange(len(centres)), counts[kept])
    return centres.float(), indices


def cut_rows(weight: Tensor, length: int) -> Tensor:
    """Return the weight's values as rows of `length` at most; the last is filled up.

    It is filled with its own last value, which keeps its minimum and maximum.
    """
    flat = weight.flatten()
    length = min(length, len(flat))
    missing = -len(flat) % length
    return torch.cat([flat, flat[-1:].expand(missing)]).view(-1, length)


def _positive(step: Tensor) -> Tensor:
    """The step, or 1 where all weights of a row are equal."""
    return torch.where(step > 0, step, torch.ones_like(step))
