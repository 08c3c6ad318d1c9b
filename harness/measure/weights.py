"""Weights: parameters, zeros, and the bytes in which they are stored."""

from __future__ import annotations

import io
from dataclasses import dataclass, field
from typing import IO, Any, cast

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from harness.measure.storages import Storages, find_parts, find_tensors, unpack


@dataclass
class Seen:
    """What was counted already: a weight that comes again, elsewhere, counts no more."""

    weights: Storages = field(default_factory=Storages)
    stored: Storages = field(default_factory=Storages)


def count_weights(
    module: nn.Module, seen: Seen | None = None, recurse: bool = True
) -> dict[str, float]:
    """Return parameters, non-zero parameters and the bytes of all stored tensors.

    Parameters are the numbers of distinct memory: tied ones count once, also over several calls
    with one `seen`. What a mask or parametrization of `torch.nn.utils` sets to zero is zero.
    Quantized layers keep their weights outside `parameters()`; they are counted from the state, of
    a module that stands in several places once. A layer that stores its weight in a form of its own
    gives it back by `decode_weight()`: its numbers count as parameters, its stored tensors as
    bytes. Not `recurse`: the module's own tensors without those of its parts.
    """
    seen = seen or Seen()
    parts = [Stored(part) for part in (module.modules() if recurse else [module])]
    kept = [tensor for part in parts for tensor in part.unpack()]
    masked = _find_masked(module)
    params = nonzero = 0
    for tensor in (*module.parameters(recurse), *kept):
        new = _take(tensor, seen.weights)
        params += new
        nonzero += min(new, _nonzero(masked.get(id(tensor), tensor))) if new else 0
    return {
        "params": float(params),
        "nonzero_params": float(nonzero),
        "weight_bytes": float(sum(part.count_bytes(seen.stored) for part in parts)),
    }


class Stored:
    """What a module would save, without the modules in it."""

    def __init__(self, module: nn.Module) -> None:
        state: dict[str, Any] = {}
        module._save_to_state_dict(state, "", keep_vars=True)
        self._module = module
        self._tensors = [tensor for value in state.values() for tensor in find_tensors(value)]
        kinds = [getattr(module, "weight_dtype", None), *map(_find_dtype, state.values())]
        self._half = torch.float16 in kinds

    def unpack(self) -> list[Tensor]:
        """Return the weights that are no parameters: decoded, or as quantized layers save them.

        Of these, what is no buffer either; of a single number it is a scale.
        """
        decode = getattr(self._module, "decode_weight", None)
        if callable(decode):
            return [decode()]
        plain = (*self._module.parameters(False), *self._module.buffers(False))
        known = {id(one) for one in plain}
        return [one for one in self._tensors if id(one) not in known and one.numel() > 1]

    def count_bytes(self, seen: Storages) -> float:
        """Return in how many bytes it is stored, those that were seen left out.

        PyTorch's dynamic layers in half precision unpack their weights to float32.
        """
        return sum(
            _take_bytes(tensor, seen) * (0.5 if self._half and tensor.dim() > 1 else 1.0)
            for tensor in self._tensors
        )


def _find_dtype(value: Any) -> torch.dtype | None:
    """Return the type of packed weights, where a module's state says it."""
    if isinstance(value, torch.ScriptObject):
        told = unpack(value)
        state = told[0] if isinstance(told, tuple) else None
        half = isinstance(state, tuple) and state[:1] == ("quantized_fp16",)
        return torch.float16 if half else None
    return value if isinstance(value, torch.dtype) else None


def _find_masked(module: nn.Module) -> dict[int, Tensor]:
    """By the id of a parameter, the weight that is made of it: by a mask or a parametrization."""
    found: dict[int, Tensor] = {}
    for part in module.modules():
        buffers = dict(part.named_buffers(recurse=False))
        for name, original in part.named_parameters(recurse=False):
            mask = buffers.get(name.removesuffix("_orig") + "_mask")
            if name.endswith("_orig") and mask is not None:
                found[id(original)] = original.detach() * mask
        if not isinstance(part, torch.jit.ScriptModule) and parametrize.is_parametrized(part):
            for name, chain in cast(nn.ModuleDict, part.parametrizations).items():
                only = getattr(chain, "original", None)
                with torch.no_grad():
                    made = getattr(part, name)
                if isinstance(only, Tensor) and only.shape == made.shape:
                    found[id(only)] = made
    return found


def disk_bytes(module: nn.Module) -> float:
    """Return the size of a file that holds the module's state, as torch.save writes it."""
    file = _Length()
    torch.save(module.state_dict(), cast(IO[bytes], file))
    return float(file.length)


class _Length(io.RawIOBase):
    """A file that keeps nothing but its length: a large model need not be in memory again."""

    length = 0

    def writable(self) -> bool:
        return True

    def write(self, content: Any) -> int:
        size = memoryview(content).nbytes
        self.length += size
        return size


def _take(tensor: Tensor, storages: Storages) -> int:
    """How many parameters a tensor adds: of a packed or sparse one, all that it stands for."""
    if type(tensor) in (Tensor, nn.Parameter) and tensor.layout is torch.strided:
        return storages.take(tensor)
    parts = [storages.take(part) for part in find_parts(tensor)]
    return tensor.numel() if any(parts) else 0


def _nonzero(tensor: Tensor) -> int:
    """How many numbers are not zero, of what is expanded each once."""
    plain = tensor.detach()
    if tensor.layout is not torch.strided:
        return int(torch.count_nonzero(list(find_parts(plain))[-1]))
    for axis, step in enumerate(plain.stride() if type(plain) in (Tensor, nn.Parameter) else ()):
        if step == 0 and plain.shape[axis] > 1:
            plain = plain.narrow(axis, 0, 1)
    if plain.is_quantized or type(plain) not in (Tensor, nn.Parameter):
        plain = plain.dequantize()
    return int(torch.count_nonzero(plain))


def _take_bytes(tensor: Tensor, storages: Storages) -> int:
    if tensor.is_quantized:
        new = storages.take(tensor)
        channels = tensor.qscheme() in (torch.per_channel_affine, torch.per_channel_symmetric)
        if not channels or not new:
            return new * tensor.element_size()
        scales = (tensor.q_per_channel_scales(), tensor.q_per_channel_zero_points())
        return new * tensor.element_size() + sum(one.nbytes for one in scales)
    return sum(storages.take(part) * part.element_size() for part in find_parts(tensor))
