"""Sparse weights: stored without their zeros, and run by kernels that skip them."""

from __future__ import annotations

import copy
import dataclasses
from typing import Any, Literal

import torch
from torch import Tensor, nn

from bench.errors import Refusal
from bench.registry import PLAIN_LAYERS, PLAIN_LINEAR, technique
from bench.storage import Code, find_layers, replace_layers
from bench.subject import Subject, evaluating
from bench.techniques.parameters import IF_TUNED, Epochs
from bench.techniques.quantization import store
from bench.training import finetune

INDEX_TYPES = (torch.uint8, torch.int16, torch.int32)


@technique("sparse-storage", stage="execution", realization="packed", needs=(PLAIN_LAYERS,))
def sparse_storage(subject: Subject, layout: Literal["csr", "csc"] = "csr") -> Subject:
    """Weights stored without their zeros, by rows (CSR) or columns (CSC); unpacked for each call.

    For a weight as a matrix (outputs × rest): its values, the place of each in its row (column) in
    the smallest whole number that holds it, and where each row (column) begins. Smaller than dense
    storage above a sparsity of about one half. Follows a technique that makes zeros.
    Source: Tinney and Walker, Proc. IEEE 55 (1967); Saad, "Iterative Methods for Sparse Linear
    Systems", section 3.4.
    """
    return store(subject, "sparse-storage", lambda weight: SparseCode(weight, layout))


@technique(
    "sparse-kernels",
    stage="execution",
    realization="executed",
    needs=(PLAIN_LINEAR,),
    devices=("cpu",),
)
def sparse_kernels(subject: Subject) -> Subject:
    """Linear layers multiplied by kernels that skip zeros (CSR); other layers are as they are.

    y = (W·xᵀ)ᵀ + b with W in compressed rows. Faster than dense kernels only when most weights are
    zero and the batch is large; the measurement tells. Follows a technique that makes zeros.
    Source: PyTorch, `torch.sparse`; Gale et al., "Sparse GPU Kernels for Deep Learning",
    arXiv:2006.10901.
    """
    if not any(type(layer) is nn.Linear for layer in find_layers(subject.module)):
        raise Refusal("sparse-kernels runs linear layers, and this model has none")
    module = replace_layers(
        subject.module, lambda layer: SparseLinear(layer) if type(layer) is nn.Linear else layer
    )
    return dataclasses.replace(subject, module=evaluating(module))


@technique("prune-2-4", realization="simulated", needs=(PLAIN_LINEAR, *IF_TUNED))
def prune_2_4(subject: Subject, finetune_epochs: Epochs = 0) -> Subject:
    """In each four consecutive weights of a linear layer the two smallest set to zero.

    What the sparse tensor cores of NVIDIA cards skip (sparse-2-4); the kernels stay dense here.
    Source: Mishra et al., "Accelerating Sparse Deep Neural Networks", arXiv:2104.08378.
    """
    module = copy.deepcopy(subject.module)
    layers: list[Any] = [m for m in find_layers(module) if type(m) is nn.Linear]
    layers = [layer for layer in layers if layer.in_features % 4 == 0]
    if not layers:
        raise Refusal("prune-2-4 needs a linear layer whose inputs are a multiple of four")
    masks = [keep_two_of_four(layer.weight.detach()) for layer in layers]

    def apply_masks() -> None:
        with torch.no_grad():
            for layer, mask in zip(layers, masks, strict=True):
                layer.weight.mul_(mask)

    apply_masks()
    return finetune(dataclasses.replace(subject, module=module), finetune_epochs, apply_masks)


def keep_two_of_four(weight: Tensor) -> Tensor:
    """Return a mask that is 1 at the two largest |w| of each four consecutive weights of a row."""
    fours = weight.abs().reshape(-1, 4)
    mask = torch.zeros_like(fours).scatter_(1, fours.topk(2, dim=1).indices, 1.0)
    return mask.view_as(weight)


class SparseCode(Code):
    """A weight without its zeros: values, places in the smallest type, and where rows begin."""

    def __init__(self, weight: Tensor, layout: str) -> None:
        super().__init__()
        self.shape, self.layout = weight.shape, layout
        matrix = weight.detach().float().flatten(1)
        rows = matrix if layout == "csr" else matrix.T
        self.rows_shape = rows.shape
        present = rows != 0
        starts = torch.cat([torch.zeros(1, dtype=torch.long), present.sum(1).cumsum(0)])
        self.starts: Tensor
        self.places: Tensor
        self.values: Tensor
        self.register_buffer("starts", shrink(starts, int(starts[-1])))
        self.register_buffer("places", shrink(present.nonzero()[:, 1], rows.shape[1]))
        self.register_buffer("values", rows[present])

    def forward(self) -> Tensor:
        """Return the weight with its zeros."""
        count, length = self.rows_shape
        lengths = self.starts.long().diff()
        row = torch.repeat_interleave(torch.arange(count, device=lengths.device), lengths)
        flat = torch.zeros(count * length, dtype=self.values.dtype, device=self.values.device)
        flat[row * length + self.places.long()] = self.values
        rows = flat.view(count, length)
        matrix = rows if self.layout == "csr" else rows.T
        return matrix.reshape(self.shape)


def shrink(indices: Tensor, largest: int) -> Tensor:
    """Return whole numbers up to `largest` in the smallest type that holds them."""
    return indices.to(next(kind for kind in INDEX_TYPES if largest <= torch.iinfo(kind).max))


class SparseLinear(nn.Module):
    """A linear layer whose weight is in compressed rows, multiplied by sparse kernels."""

    def __init__(self, layer: nn.Linear) -> None:
        super().__init__()
        weight = layer.weight.detach().to_sparse_csr()
        self.size = (layer.out_features, layer.in_features)
        self.starts: Tensor
        self.places: Tensor
        self.values: Tensor
        self.bias: Tensor | None
        self.register_buffer("starts", weight.crow_indices().int())
        self.register_buffer("places", weight.col_indices().int())
        self.register_buffer("values", weight.values())
        self.register_buffer("bias", None if layer.bias is None else layer.bias.detach().clone())

    def forward(self, inputs: Tensor) -> Tensor:
        """Return the layer's outputs."""
        weight = torch.sparse_csr_tensor(
            self.starts, self.places, self.values, self.size, check_invariants=False
        )
        rows = inputs.reshape(-1, self.size[1])
        outputs = (weight @ rows.T).T
        if self.bias is not None:
            outputs = outputs + self.bias
        return outputs.reshape(*inputs.shape[:-1], self.size[0])

    def decode_weight(self) -> Tensor:
        """Return the weight with its zeros: what counts as its parameters."""
        weight = torch.sparse_csr_tensor(self.starts, self.places, self.values, self.size)
        return weight.to_dense()
