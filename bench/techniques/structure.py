"""Structure: layers folded into others, layers left out."""

from __future__ import annotations

import copy
import dataclasses
from collections import Counter
from typing import Annotated, Any

import torch
from torch import Tensor, nn
from torch.nn.utils import fuse_conv_bn_eval, fuse_linear_bn_eval

from bench.errors import Refusal, SpecError
from bench.registry import technique
from bench.spec import Range
from bench.storage import STORABLE
from bench.subject import Subject, evaluating
from bench.techniques.channels import NORMS, remove_outputs
from bench.techniques.parameters import Count, Epochs
from bench.training import finetune, train, tune_accuracy


@technique("fuse", realization="executed")
def fuse(subject: Subject) -> Subject:
    """Batch norms folded into the layers before them: the same outputs from fewer layers.

    W' = W · γ/√(σ² + ε) and b' = (b − μ) · γ/√(σ² + ε) + β, with the running mean and variance.
    Source: Jacob et al., arXiv:1712.05877, section 3.2; PyTorch, `torch.nn.utils.fusion`.
    """
    pairs = _foldable(subject.module)
    if not pairs:
        raise Refusal("fuse found no batch norm behind a convolution or a linear layer")
    module = evaluating(copy.deepcopy(subject.module))
    for before, norm in pairs:
        layer: Any = module.get_submodule(before)
        merge: Any = fuse_linear_bn_eval if isinstance(layer, nn.Linear) else fuse_conv_bn_eval
        module.set_submodule(before, merge(layer, module.get_submodule(norm)))
        module.set_submodule(norm, nn.Identity())
    return dataclasses.replace(subject, module=module)


def _foldable(module: nn.Module) -> list[tuple[str, str]]:
    """Names of layers and the batch norms that alone read their outputs, each used once."""
    try:
        nodes = list(torch.fx.symbolic_trace(module).graph.nodes)
    except Exception as error:  # tracing fails in many ways on what it cannot follow
        raise Refusal(f"fuse cannot trace this model: {error}") from None
    uses = Counter(node.target for node in nodes if node.op == "call_module")
    pairs = []
    for node in nodes:
        before = node.args[0] if node.args else None
        if not (node.op == "call_module" and isinstance(before, torch.fx.Node)):
            continue
        if before.op != "call_module" or len(before.users) > 1:
            continue
        first, second = (module.get_submodule(str(n.target)) for n in (before, node))
        once = uses[before.target] == uses[node.target] == 1
        known = getattr(second, "running_mean", None) is not None  # a norm may keep none
        plain = type(first) in STORABLE and "weight" in first._parameters
        if once and known and plain and type(second) in NORMS:
            pairs.append((str(before.target), str(node.target)))
    return pairs


@technique("drop-layers", realization="executed", needs=("training data",))
def drop_layers(
    subject: Subject,
    layers: Count = 1,
    finetune_epochs: Epochs = 0,
) -> Subject:
    """So many layers or blocks left out: those whose absence costs the least on the tune split.

    Only what returns the shape that it takes can be left out; one after the other is tried, the
    best is dropped, and so on. Source: Elhoushi et al., "What Matters In Transformers", arXiv:
    2406.15786; Fan et al., "Reducing Transformer Depth on Demand", arXiv:1909.11556.
    """
    module = evaluating(copy.deepcopy(subject.module))
    dropped: list[str] = []
    for _ in range(layers):
        candidates = _droppable(module, subject.inputs)
        if not candidates:
            raise Refusal(
                f"drop-layers({layers}): only {len(dropped)} layers return the shape they take"
            )
        best = max(candidates, key=lambda name: tune_accuracy(_without(subject, module, name)))
        module = _without(subject, module, best).module
        dropped.append(best)
    made = dataclasses.replace(subject, module=module).with_note(f"without {', '.join(dropped)}")
    return finetune(made, finetune_epochs)


def check_size(subject: Subject, width: float = 1.0, depth: int = 0) -> None:
    """Raise SpecError where nothing would shrink."""
    if width == 1 and not depth:
        raise SpecError("nothing shrinks: give a width below 1, or a depth.")


@technique("shrink", realization="executed", needs=("training data",), check=check_size)
def shrink(
    subject: Subject, width: Annotated[float, Range(0.01, 1)] = 1.0, depth: Epochs = 0
) -> Subject:
    """A smaller model of the same kind, trained from scratch: what the full one has to beat.

    `width` is the share of channels and neurons that each layer keeps, `depth` the number of layers
    or blocks left out, the last ones first. Weights begin anew and learn by the model's recipe.
    Source: Howard et al., "MobileNets", arXiv:1704.04861 (width multiplier).
    """
    return train(shrink_untrained(subject, width, depth))


def shrink_untrained(subject: Subject, width: float = 1.0, depth: int = 0) -> Subject:
    """Return the subject with fewer channels and layers and with fresh weights."""
    made = dataclasses.replace(subject, module=evaluating(copy.deepcopy(subject.module)))
    for _ in range(depth):
        candidates = _droppable(made.module, made.inputs)
        if not candidates:
            raise Refusal(f"shrink: fewer than {depth} layers return the shape they take")
        made = _without(made, made.module, candidates[-1])
    if width < 1:
        made = remove_outputs(made, 1 - width, "l1", STORABLE)
    for part in made.module.modules():
        if callable(reset := getattr(part, "reset_parameters", None)):
            reset()
    return made


def _without(subject: Subject, module: nn.Module, name: str) -> Subject:
    shorter = copy.deepcopy(module)
    shorter.set_submodule(name, nn.Identity())
    return dataclasses.replace(subject, module=shorter)


def _droppable(module: nn.Module, inputs: tuple[Tensor, ...]) -> list[str]:
    """Names of modules with weights that return a tensor of the shape they take, outermost only."""
    shapes: dict[str, bool] = {}

    def note(name: str) -> Any:
        def hook(_: nn.Module, given: tuple[Any, ...], returned: Any) -> None:
            kept = len(given) == 1 and isinstance(returned, Tensor)
            shapes[name] = kept and given[0].shape == returned.shape and shapes.get(name, True)

        return hook

    named = [(name, part) for name, part in module.named_modules() if name]
    hooks = [part.register_forward_hook(note(name)) for name, part in named]
    with torch.no_grad():
        module(*inputs)
    for hook in hooks:
        hook.remove()
    weighted = {
        name for name, part in named if any(isinstance(m, STORABLE) for m in part.modules())
    }
    keeping = [name for name, keeps in shapes.items() if keeps and name in weighted]
    # A container that keeps its shape is not dropped whole while its parts can be.
    found = [
        name
        for name in keeping
        if not isinstance(module.get_submodule(name), nn.Sequential | nn.ModuleList)
        or not any(_is_inside(other, name) for other in keeping)
    ]
    return [name for name in found if not any(_is_inside(name, other) for other in found)]


def _is_inside(name: str, other: str) -> bool:
    return name.startswith(f"{other}.")
