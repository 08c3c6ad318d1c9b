"""The libraries' own entry points beside ours: the same parameters, the same answers."""

import copy
import warnings
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils import prune

from bench import Subject, registry
from bench.training import scores
from harness.scores import wilson_interval

MODELS = ("digits-mlp", "mnist1d-cnn")
LAYERS = (nn.Linear, nn.Conv1d, nn.Conv2d)


def apply(technique: str, subject: Subject) -> Subject:
    torch.manual_seed(0)
    made: Subject = registry.build("technique", technique, subject)
    return made


def answers(module: nn.Module, subject: Subject) -> Tensor:
    assert subject.data is not None
    return scores(module, subject.data.test.inputs).argmax(1)


def hits(module: nn.Module, subject: Subject) -> int:
    assert subject.data is not None
    return int((answers(module, subject) == subject.data.test.labels).sum())


def agree_within_the_interval(ours: nn.Module, theirs: nn.Module, subject: Subject) -> bool:
    assert subject.data is not None
    interval = wilson_interval(hits(theirs, subject), len(subject.data.test))
    return interval.low <= hits(ours, subject) / len(subject.data.test) <= interval.high


@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize("sparsity", [0.5, 0.9])
def test_magnitude_pruning_beside_pytorchs(
    trained: Callable[[str], Subject], model: str, sparsity: float
) -> None:
    subject = trained(model)
    theirs = copy.deepcopy(subject.module)
    layers = [(layer, "weight") for layer in theirs.modules() if isinstance(layer, LAYERS)]
    prune.global_unstructured(layers, prune.L1Unstructured, amount=sparsity)
    ours = apply(f"prune-magnitude({sparsity})", subject).module
    assert torch.equal(answers(ours, subject), answers(theirs, subject))
    zeros = [sum(int((p == 0).sum()) for p in ours.parameters())]
    zeros.append(sum(int((layer.weight == 0).sum()) for layer, _ in layers))
    assert zeros[0] == zeros[1]


@pytest.mark.parametrize("model", MODELS)
def test_channel_pruning_beside_torch_prunings(
    trained: Callable[[str], Subject], model: str
) -> None:
    import torch_pruning

    subject = trained(model)
    theirs = copy.deepcopy(subject.module)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch_pruning.pruner.MagnitudePruner(
            theirs, subject.inputs[0][:2], pruning_ratio=0.5, ignored_layers=[theirs[-1]],
            importance=torch_pruning.importance.MagnitudeImportance(p=1),
        ).step()  # fmt: skip
    ours = apply("prune-channels(0.5, finetune_epochs=0)", subject).module
    counts = [sum(p.numel() for p in module.parameters()) for module in (ours, theirs)]
    assert counts[0] == counts[1]
    assert torch.equal(answers(ours, subject), answers(theirs, subject))


def test_dynamic_int8_beside_pytorchs(trained: Callable[[str], Subject]) -> None:
    subject = trained("digits-mlp")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        theirs = torch.ao.quantization.quantize_dynamic(
            copy.deepcopy(subject.module), {nn.Linear}, torch.qint8
        )
    assert torch.equal(
        answers(apply("int8-dynamic", subject).module, subject), answers(theirs, subject)
    )


@pytest.mark.parametrize("model", MODELS)
def test_static_int8_beside_pytorchs(trained: Callable[[str], Subject], model: str) -> None:
    from torch.ao.quantization import get_default_qconfig_mapping
    from torch.ao.quantization.quantize_fx import convert_fx, prepare_fx

    subject = trained(model)
    assert subject.data is not None
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        mapping = get_default_qconfig_mapping("x86")
        prepared = prepare_fx(copy.deepcopy(subject.module).eval(), mapping, subject.inputs)
        scores(prepared, subject.data.train.inputs[:256])
        theirs = convert_fx(prepared)
    ours = apply("int8-static", subject).module
    assert agree_within_the_interval(ours, theirs, subject)


def test_int8_weights_beside_torchaos(trained: Callable[[str], Subject]) -> None:
    torchao = pytest.importorskip("torchao.quantization", reason="torchao is not installed")
    subject = trained("digits-mlp")
    theirs = copy.deepcopy(subject.module)
    torchao.quantize_(theirs, torchao.Int8WeightOnlyConfig())
    ours = apply("int8-weight-only", subject).module
    assert agree_within_the_interval(ours, theirs, subject)
    for mine, original in zip(
        (m for m in ours.modules() if hasattr(m, "decode_weight")),
        (m for m in theirs.modules() if isinstance(m, nn.Linear)),
        strict=True,
    ):
        step = mine.decode_weight().abs().amax(1, keepdim=True) / 127
        difference = (mine.decode_weight() - original.weight.dequantize()).abs()
        assert (difference <= 1.01 * step).all()


def test_four_bits_by_groups_beside_torchaos(trained: Callable[[str], Subject]) -> None:
    theirs = pytest.importorskip(
        "torchao.quantization.quant_primitives", reason="torchao is not installed"
    )
    subject = trained("digits-mlp")
    ours, rounded = apply("int4-weight-only", subject).module, copy.deepcopy(subject.module)
    stored = [layer for layer in ours.modules() if hasattr(layer, "decode_weight")]
    layers = [layer for layer in rounded.modules() if isinstance(layer, nn.Linear)]
    for mine, layer in zip(stored, layers, strict=True):
        weight, size = layer.weight.detach(), (1, 32)
        step, zero = theirs.choose_qparams_affine(
            weight, theirs.MappingType.ASYMMETRIC, size, torch.uint8, 0, 15
        )
        codes = theirs.quantize_affine(weight, size, step, zero, torch.uint8, 0, 15)
        layer.weight.data = theirs.dequantize_affine(codes, size, step, zero, torch.uint8, 0, 15)
        errors = [
            float((one - weight).detach().norm()) for one in (mine.decode_weight(), layer.weight)
        ]
        assert errors[0] < 1.02 * errors[1]
    assert agree_within_the_interval(ours, rounded, subject)


def test_folding_beside_pytorchs(trained: Callable[[str], Subject]) -> None:
    from torch.fx.experimental.optimization import fuse

    subject = trained("mnist1d-cnn")
    theirs = fuse(copy.deepcopy(subject.module).eval())
    ours = apply("fuse", subject).module
    assert subject.data is not None
    inputs = subject.data.test.inputs[:200]
    with torch.no_grad():
        assert torch.allclose(ours(inputs), theirs(inputs), atol=1e-5)
