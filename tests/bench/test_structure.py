"""Structure and low rank: fewer layers and thinner ones, on models whose answer is known."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from bench import Refusal, SpecError, Subject, registry
from bench.techniques.low_rank import split_layer
from bench.training import tune_accuracy
from harness.measure.counts import count_macs
from harness.measure.weights import count_weights

registry.load_built_ins()


def apply(technique: str, subject: Subject) -> Subject:
    torch.manual_seed(0)
    made = registry.build("technique", technique, subject)
    assert isinstance(made, Subject)
    return made


def outputs(subject: Subject) -> Tensor:
    with torch.no_grad():
        return subject.module(*subject.inputs)


def params(subject: Subject) -> float:
    return count_weights(subject.module)["params"]


# Folding


def test_folding_keeps_the_outputs_and_leaves_no_batch_norm(
    trained: Callable[[str], Subject],
) -> None:
    subject = trained("mnist1d-cnn")
    made = apply("fuse", subject)
    assert torch.allclose(outputs(made), outputs(subject), atol=1e-4)
    assert not any(isinstance(m, nn.BatchNorm1d) for m in made.module.modules())
    assert any(isinstance(m, nn.BatchNorm1d) for m in subject.module.modules())
    assert params(made) < params(subject)


def test_a_batch_norm_behind_a_linear_layer_is_folded_too() -> None:
    torch.manual_seed(0)
    module = nn.Sequential(nn.Linear(4, 6), nn.BatchNorm1d(6), nn.ReLU()).train()
    for _ in range(20):
        module(2 + 3 * torch.randn(32, 4))
    subject = Subject(module.eval(), (torch.randn(8, 4),))
    made = apply("fuse", subject)
    assert isinstance(made.module[1], nn.Identity)
    assert torch.allclose(outputs(made), outputs(subject), atol=1e-5)


class Branches(nn.Module):
    """Reads a convolution's output twice: its batch norm cannot be folded into it."""

    def __init__(self) -> None:
        super().__init__()
        self.layer, self.norm = nn.Conv1d(2, 2, 3, padding=1), nn.BatchNorm1d(2)

    def forward(self, signal: Tensor) -> Tensor:
        found = self.layer(signal)
        return found + self.norm(found)


class Deciding(nn.Module):
    """Decides by its input: cannot be traced."""

    def forward(self, values: Tensor) -> Tensor:
        return values if values.sum() > 0 else -values


def test_what_cannot_be_folded_is_refused_with_the_reason() -> None:
    with pytest.raises(Refusal, match="no batch norm behind"):
        apply("fuse", Subject(Branches().eval(), (torch.randn(2, 2, 8),)))
    with pytest.raises(Refusal, match="cannot trace this model"):
        apply("fuse", Subject(Deciding(), (torch.randn(2, 2),)))


# Layers left out


def test_the_layer_that_does_nothing_is_dropped_first(trained: Callable[[str], Subject]) -> None:
    subject = trained("digits-mlp")
    idle = nn.Linear(128, 128)
    with torch.no_grad():
        idle.weight.copy_(torch.eye(128))
        idle.bias.zero_()
    layers = list(subject.module)
    longer = Subject(nn.Sequential(*layers[:3], idle, *layers[3:]), subject.inputs, subject.data)
    made = apply("drop-layers", longer)
    assert made.notes == ("without 3",)
    assert torch.equal(outputs(made), outputs(subject))
    assert params(made) == params(subject)
    assert isinstance(longer.module[3], nn.Linear), "the model itself is untouched"


@pytest.mark.slow
def test_whole_blocks_of_a_transformer_are_dropped(trained: Callable[[str], Subject]) -> None:
    subject = trained("mnist1d-transformer")
    made = apply("drop-layers", subject)
    assert made.notes[0] in ("without blocks.0", "without blocks.1")
    one = count_macs(subject.module.blocks[0], (torch.randn(1, 10, 64),))[0]
    before, after = (count_macs(s.module, s.inputs)[0] for s in (subject, made))
    assert after == before - one
    assert tune_accuracy(made) >= tune_accuracy(apply("drop-layers(2)", subject))


def test_more_layers_than_can_be_left_out_are_refused(trained: Callable[[str], Subject]) -> None:
    with pytest.raises(Refusal, match=r"drop-layers\(5\): only 1 layers return the shape"):
        apply("drop-layers(5)", trained("digits-mlp"))
    with pytest.raises(Refusal, match="needs training data"):
        apply("drop-layers", Subject(nn.Linear(4, 4), (torch.ones(1, 4),)))


# Low rank


def low(rank: int, rows: int, columns: int) -> Tensor:
    generator = torch.Generator().manual_seed(0)
    left, right = (
        torch.randn(rows, rank, generator=generator),
        torch.randn(rank, columns, generator=generator),
    )
    return left @ right


@pytest.mark.parametrize(
    ("layer", "inputs"),
    [
        (nn.Linear(40, 30), torch.randn(3, 40)),
        (nn.Linear(40, 30, bias=False), torch.randn(3, 40)),
        (nn.Conv1d(8, 30, 5, stride=2, padding=2), torch.randn(2, 8, 20)),
        (nn.Conv2d(4, 30, 3, padding=1, dilation=1), torch.randn(2, 4, 8, 8)),
    ],
)
def test_a_layer_of_low_rank_is_split_without_loss(layer: nn.Module, inputs: Tensor) -> None:
    with torch.no_grad():
        layer.weight.copy_(low(3, 30, layer.weight[0].numel()).view_as(layer.weight))
        expected = layer(inputs)
        made = split_layer(layer, energy=0.999999, rank=None)
        assert isinstance(made, nn.Sequential)
        assert made[0].weight.shape[0] == 3
        assert torch.allclose(made(inputs), expected, atol=1e-3)


def test_a_layer_that_would_not_become_smaller_stays() -> None:
    layer = nn.Linear(10, 10)
    assert split_layer(layer, energy=1.0, rank=None) is layer
    assert split_layer(layer, energy=0.9, rank=5) is layer
    assert split_layer(layer, energy=0.9, rank=4) is not layer
    with pytest.raises(Refusal, match="no layer that becomes smaller"):
        apply("low-rank(1.0)", Subject(nn.Sequential(layer), (torch.ones(1, 10),)))


def test_less_energy_takes_fewer_weights_and_training_wins_accuracy_back(
    trained: Callable[[str], Subject],
) -> None:
    subject = trained("mnist1d-cnn")
    sizes = [params(apply(f"low-rank({energy})", subject)) for energy in (0.95, 0.8, 0.5)]
    assert params(subject) > sizes[0] > sizes[1] > sizes[2]
    plain = tune_accuracy(apply("low-rank(0.5)", subject))
    assert tune_accuracy(apply("low-rank(0.5, finetune_epochs=3)", subject)) > plain + 0.05


@pytest.mark.parametrize(
    ("technique", "words"),
    [
        ("low-rank(1.2)", "energy must be from 0 to 1, got 1.2"),
        ("low-rank(rank=0)", "rank must be 1 or more"),
        ("drop-layers(0)", "layers must be 1 or more"),
    ],
)
def test_wrong_parameters_are_refused_before_anything_is_built(technique: str, words: str) -> None:
    with pytest.raises(SpecError) as raised:
        registry.find("technique", technique)
    assert words in str(raised.value)
