"""Static quantization: weights and activations in int8, multiplied by int8 kernels."""

from __future__ import annotations

import copy
import dataclasses
import warnings
from collections import Counter
from dataclasses import dataclass
from math import isfinite
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch.nn import functional

from bench.errors import Refusal
from bench.registry import PLAIN_LAYERS, technique
from bench.storage import find_layers, put_layers
from bench.subject import Subject, evaluating
from bench.techniques.parameters import Count
from bench.techniques.structure import fuse
from bench.training import scores

KERNELS: dict[Any, tuple[str, int]] = {
    nn.Linear: ("linear", 2), nn.Conv1d: ("conv1d", 3), nn.Conv2d: ("conv2d", 4),
}  # fmt: skip
"""Layers with int8 kernels: their names in `torch.ops.quantized`, the dimensions they need."""
IDLE = (nn.Identity, nn.Dropout, nn.Dropout1d, nn.Dropout2d)  # in evaluation
RELUS: tuple[Any, ...] = (nn.ReLU, torch.relu, functional.relu, "relu", "relu_")
PASSING: tuple[Any, ...] = (
    *RELUS, nn.Flatten, nn.MaxPool1d, nn.MaxPool2d, nn.AvgPool1d, nn.AvgPool2d,
    nn.AdaptiveAvgPool1d, nn.AdaptiveAvgPool2d, torch.flatten, functional.max_pool1d,
    functional.max_pool2d, functional.adaptive_avg_pool1d, functional.adaptive_avg_pool2d,
    "flatten", "reshape", "view", "contiguous",
)  # fmt: skip
"""Modules, functions and methods that take int8 and return it in the same steps."""
SMALLEST = 1e-20  # a range below this is taken for zero: its step would leave 32 bits
Parts = dict[str, nn.Module]


def check_static(subject: Subject, examples: int = 256) -> None:
    """Raise Refusal where there is nothing to quantize or nothing to calibrate with."""
    if not find_eligible(subject.module):
        layers = "linear layers and convolutions (1d, 2d) of 32 bits"
        raise Refusal(f"int8-static quantizes {layers}, and this model has none")
    if subject.data is None:
        raise Refusal(f"int8-static calibrates with {examples} training examples; there is no data")


@technique(
    "int8-static", stage="execution", realization="executed", devices=("cpu",),
    needs=(PLAIN_LAYERS, "calibration data",), check=check_static,
)  # fmt: skip
def int8_static(subject: Subject, examples: Count = 256) -> Subject:
    """Linear layers and convolutions in int8, activations included, run by int8 kernels.

    w ≈ s·q with q in −127..127 and s = max|w| / 127 of the output channel. x ≈ s·(q − z), with s
    and z from the least and largest value that so many training examples (without their labels)
    bring; q in 0..127 on x86, whose kernels add pairs of products in 16 bits. Batch norms are
    folded in, ReLUs fused, and between layers in a row numbers stay in int8. All else, attention's
    products too, stays in 32 bits.
    Source: Jacob et al., arXiv:1712.05877; Krishnamoorthi, arXiv:1806.08342.
    """
    assert subject.data is not None
    try:
        folded = fuse(subject).module
    except Refusal:  # there is nothing to fold
        folded = evaluating(copy.deepcopy(subject.module))
    whole = nn.Sequential(folded)  # the model itself may be a layer
    train = subject.data.train
    count = min(examples, len(train))
    ranges = calibrate(whole, train.inputs[torch.arange(count) * len(train) // count])
    if not ranges:
        raise Refusal("int8-static: no layer took finite numbers in a shape that int8 kernels take")
    traced = trace(whole, subject.inputs[0])
    if traced is not None and quantize_graph(traced, ranges):
        return dataclasses.replace(subject, module=traced.eval())
    alone = {layer: StaticLayer(layer, found, relu=False) for layer, found in ranges.items()}
    put_layers(whole, alone)
    note = "int8 layer by layer: what is between them cannot be traced"
    return dataclasses.replace(subject, module=evaluating(whole[0])).with_note(note)


def find_eligible(module: nn.Module) -> list[Any]:
    """Return the layers that int8 kernels can replace."""
    # Encoder layers read the weights of their layers themselves.
    closed = [part for part in module.modules() if isinstance(part, nn.TransformerEncoderLayer)]
    inside = {child for part in closed for child in part.children()}
    return [layer for layer in find_layers(module) if layer not in inside and _is_eligible(layer)]


def _is_eligible(layer: Any) -> bool:
    zeros = getattr(layer, "padding_mode", "zeros") == "zeros"
    known = type(layer) in KERNELS and zeros and not isinstance(getattr(layer, "padding", 0), str)
    return known and layer.weight.dtype == torch.float32 and bool(layer.weight.isfinite().all())


@dataclass
class Ranges:
    """The least and the largest number that entered and left a layer; 0 is always between."""

    inputs: tuple[float, float]
    outputs: tuple[float, float]


def calibrate(module: nn.Module, inputs: Tensor) -> dict[nn.Module, Ranges]:
    """Return what enters and leaves each layer that int8 kernels can replace, on these inputs."""
    seen: dict[nn.Module, list[list[float]]] = {}

    def note(layer: nn.Module, given: tuple[Any, ...], returned: Tensor) -> None:
        values = given[0] if given else returned.new_empty(0)
        fits = values.dim() >= KERNELS[type(layer)][1] and values.numel() > 0
        fits = fits and values.dtype == returned.dtype == torch.float32
        ends = [*values.aminmax(), *returned.aminmax()] if fits else [torch.nan]
        seen.setdefault(layer, []).append([float(end) for end in ends])

    hooks = [layer.register_forward_hook(note) for layer in find_eligible(module)]
    scores(module, inputs)
    for hook in hooks:
        hook.remove()
    found = {}
    for layer, calls in seen.items():
        if all(isfinite(end) for call in calls for end in call):
            low, high, low_out, high_out = zip(*calls, strict=True)
            found[layer] = Ranges(
                (min(0.0, *low), max(0.0, *high)), (min(0.0, *low_out), max(0.0, *high_out))
            )
    return found


def choose_step(low: float, high: float) -> tuple[float, int]:
    """Return s and z of x ≈ s·(q − z) so that low..high takes all q, and 0 is exact."""
    # Without VNNI, x86 kernels add two products of 8 bits in 16: with 7 bits they cannot overflow.
    levels = 255 if torch.backends.quantized.engine == "qnnpack" else 127
    step = (high - low) / levels if high - low > SMALLEST else 1.0
    return step, round(-low / step)


class StaticLayer(nn.Module):
    """A linear layer or convolution in int8, a ReLU behind it included.

    Returns what it takes: quantized numbers, or numbers of 32 bits, which it quantizes. Kernels
    keep weights packed in a form of the processor's; files hold them as plain int8.
    """

    def __init__(self, layer: Any, ranges: Ranges, relu: bool) -> None:
        super().__init__()
        self.kind, self.relu = KERNELS[type(layer)][0], relu
        names = ("stride", "padding", "dilation", "groups")  # which a linear layer does not have
        self.geometry = [getattr(layer, name) for name in names if hasattr(layer, name)]
        self.bias = copy.deepcopy(layer.bias)
        self.requires_grad_(False)  # the kernel has a copy
        self.entry = choose_step(*ranges.inputs)
        self.step = choose_step(0.0 if relu else ranges.outputs[0], ranges.outputs[1])
        weight = layer.weight.detach()
        steps = weight.abs().amax(tuple(range(1, weight.dim())), keepdim=True) / 127
        steps[steps <= SMALLEST] = 1.0
        self._pack((weight / steps).round().to(torch.int8), steps)

    def forward(self, inputs: Tensor) -> Tensor:
        """Return the layer's outputs, quantized where the inputs are."""
        outputs: Tensor
        if inputs.is_quantized:
            outputs = self.kernel(inputs, self.packed, *self.step)
        elif self.direct is not None:
            outputs = self.direct(inputs, *self.entry, self.packed)
        else:
            codes = torch.quantize_per_tensor(inputs, *self.entry, torch.quint8)
            outputs = self.kernel(codes, self.packed, *self.step).dequantize()
        return outputs

    def decode_weight(self) -> Tensor:
        """Return the weight in 32 bits: what counts as its parameters, with the bias."""
        codes, steps = self._unpack()
        return codes * steps

    def _pack(self, codes: Tensor, steps: Tensor) -> None:
        zeros, scales = torch.zeros(len(steps), dtype=torch.long), steps.double().flatten()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # such tensors are deprecated since 2.13
            weight = torch._make_per_channel_quantized_tensor(codes, scales, zeros, 0)
        kernels, relu = torch.ops.quantized, "_relu" * self.relu
        prepack = getattr(kernels, f"{self.kind}_prepack")
        self.packed: Any = prepack(weight, self.bias, *self.geometry)
        self.kernel: Any = getattr(kernels, self.kind + relu)
        direct = f"linear_with_input_q_dq_qweight_dq{relu}_output_fp32"
        known = self.kind == "linear" and torch.backends.quantized.engine in ("x86", "fbgemm")
        self.direct: Any = getattr(kernels, direct) if known else None

    def _unpack(self) -> tuple[Tensor, Tensor]:
        """The weight as int8, and each output channel's step in a shape that multiplies it."""
        weight = getattr(torch.ops.quantized, f"{self.kind}_unpack")(self.packed)[0]
        steps = weight.q_per_channel_scales().float()
        return weight.int_repr().contiguous(), steps.view(-1, *(1 for _ in weight.shape[1:]))

    def _save_to_state_dict(self, destination: Any, prefix: str, keep_vars: bool) -> None:
        super()._save_to_state_dict(destination, prefix, keep_vars)
        destination[f"{prefix}weight"], destination[f"{prefix}weight_step"] = self._unpack()

    def __getstate__(self) -> dict[str, Any]:
        return {**vars(self), "packed": self._unpack(), "kernel": None, "direct": None}

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__(state)  # type: ignore[no-untyped-call]  # torch leaves it untyped
        self._pack(*self.packed)


def trace(module: nn.Module, inputs: Tensor) -> fx.GraphModule | None:
    """Return the module as a graph, or None where that cannot be done safely."""
    try:
        traced = fx.symbolic_trace(module)
        with torch.no_grad():
            pairs = [(traced(part), module(part)) for part in (inputs, inputs[:1])]
        same = all(torch.equal(one, other) for one, other in pairs)
    except Exception:  # tracing fails in many ways on what it cannot follow
        return None
    parts = dict(traced.named_modules(remove_duplicate=False))
    for node in traced.graph.nodes:
        written = getattr(parts.get(str(node.target)), "inplace", node.kwargs.get("inplace"))
        written = written or getattr(node.target, "__name__", str(node.target)).endswith("_")
        # What is overwritten while others read it cannot be held in two forms.
        same = same and not (written and any(len(n.users) > 1 for n in node.all_input_nodes))
    return traced if same else None


def quantize_graph(traced: fx.GraphModule, ranges: dict[nn.Module, Ranges]) -> bool:
    """Put the graph's layers into int8, in place; return whether it calls any of them."""
    graph, parts = traced.graph, dict(traced.named_modules(remove_duplicate=False))
    calls = [node for node in graph.nodes if node.op == "call_module"]
    for node in calls:
        if isinstance(parts[node.target], IDLE):
            _skip(graph, node)
    owners = (str(node.target).rpartition(".")[0] for node in graph.find_nodes(op="get_attr"))
    read = {parts.get(owner) for owner in owners}  # whose weights are used apart from the layer
    uses = Counter(parts[node.target] for node in calls)
    layers: dict[fx.Node, Ranges] = {}
    made: dict[nn.Module, StaticLayer] = {}
    for node in calls:
        layer = parts[node.target]
        if layer not in ranges or layer in read:
            continue
        readers = list(node.users)
        relu = len(readers) == uses[layer] == 1 and _is_one_of(readers[0], RELUS, parts)
        if relu:
            _skip(graph, readers[0])
        made[layer] = made.get(layer) or StaticLayer(layer, ranges[layer], relu)
        traced.set_submodule(node.target, made[layer])
        layers[node] = ranges[layer]
    _convert_between(graph, layers, parts)
    traced.delete_all_unused_submodules()
    traced.recompile()
    return bool(made)


def _skip(graph: fx.Graph, node: fx.Node) -> None:
    """Give what a node takes to those that read what it returns."""
    source: Any = node.args[0]
    node.replace_all_uses_with(source)
    graph.erase_node(node)


def _is_one_of(node: fx.Node, targets: tuple[Any, ...], parts: Parts) -> bool:
    part = parts.get(str(node.target)) if node.op == "call_module" else None
    if getattr(part, "return_indices", False) or node.kwargs.get("return_indices"):
        return False
    return node.op.startswith("call_") and (node.target if part is None else type(part)) in targets


def _convert_between(graph: fx.Graph, layers: dict[fx.Node, Ranges], parts: Parts) -> None:
    """Bring numbers to int8 before layers, and back before what can only read 32 bits."""
    in_int8: set[fx.Node] = set()
    entered: dict[fx.Node, fx.Node] = {}
    left: dict[fx.Node, fx.Node] = {}
    for node in list(graph.nodes):
        first: Any = node.args[0] if node.args else None
        with graph.inserting_before(node):
            if node in layers:
                joins = (one in layers or _is_one_of(one, PASSING, parts) for one in node.users)
                linear = isinstance(parts[str(node.target)], nn.Linear)
                if linear and first not in in_int8 and not any(joins):
                    continue  # alone: its kernel takes and returns 32 bits
                in_int8.add(node)
                if first not in in_int8 and first not in entered:
                    step = choose_step(*layers[node].inputs)
                    entered[first] = graph.call_function(
                        torch.quantize_per_tensor, (first, *step, torch.quint8)
                    )
                node.replace_input_with(first, entered.get(first, first))
            elif _is_one_of(node, PASSING, parts) and first in in_int8:
                in_int8.add(node)
            elif not _is_one_of(node, ("size", "dim", getattr), parts):  # only the shape is read
                for source in (one for one in node.all_input_nodes if one in in_int8):
                    left[source] = left.get(source) or graph.call_method("dequantize", (source,))
                    node.replace_input_with(source, left[source])
