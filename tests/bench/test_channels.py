"""Channels, neurons and input features really removed, and by which measure."""

from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
from torch import nn

from bench import Refusal, Subject, registry
from bench.data import Dataset, Split
from bench.techniques.inputs import prune_inputs


def apply(technique: str, subject: Subject, seed: int = 0) -> Subject:
    torch.manual_seed(seed)
    made: Subject = registry.build("technique", technique, subject)
    return made


def shapes(module: nn.Module) -> list[tuple[int, ...]]:
    kinds = (nn.Conv1d, nn.Conv2d, nn.Linear)
    return [tuple(m.weight.shape) for m in module.modules() if isinstance(m, kinds)]


def three_neurons() -> Subject:
    """Four hidden neurons; the second does nothing for any class, but its weights are large."""
    generator = torch.Generator().manual_seed(0)
    inputs = torch.randn(200, 3, generator=generator)
    split = Split(inputs, (inputs[:, 0] > 0).long())
    module = nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 2))
    torch.manual_seed(0)
    for layer in (module[0], module[2]):
        nn.init.normal_(layer.weight)
    with torch.no_grad():
        module[0].weight[1] = 50.0
        module[0].bias[1] = -1e6  # never above zero
        module[2].weight[:, 1] = 50.0
    return Subject(module.eval(), (inputs[:4],), Dataset("signs", split, split, split, 2))


@pytest.mark.slow
@pytest.mark.parametrize("importance", ["l1", "random", "gradient", "batch-norm"])
def test_every_importance_removes_the_same_number(
    trained: Callable[[str], Subject], importance: str
) -> None:
    subject = trained("mnist1d-cnn")
    made = apply(f"prune-channels(0.5, 0, importance={importance!r})", subject)
    halves = [(8, 1, 5), (16, 8, 3), (16, 16, 3)]
    # Linear layers have no batch norm behind them: that measure leaves them whole.
    last = [(128, 80), (10, 128)] if importance == "batch-norm" else [(64, 80), (10, 64)]
    assert shapes(made.module) == [*halves, *last]
    parameters = list(made.module.parameters())
    assert all(parameter.grad is None for parameter in parameters)


def test_by_gradient_a_dead_neuron_goes_first_and_by_size_it_stays() -> None:
    subject = three_neurons()
    by_gradient = apply("prune-neurons(0.25, 0, importance='gradient')", subject)
    by_size = apply("prune-neurons(0.25, 0)", subject)
    assert shapes(by_gradient.module) == shapes(by_size.module) == [(3, 3), (2, 3)]
    assert by_gradient.module[0].bias.min() > -1e5
    assert by_size.module[0].bias.min() == -1e6
    with torch.no_grad():
        expected = subject.module(*subject.inputs)
        assert torch.allclose(by_gradient.module(*subject.inputs), expected, atol=1e-5)


@pytest.mark.slow
def test_neurons_are_removed_and_channels_stay(trained: Callable[[str], Subject]) -> None:
    made = apply("prune-neurons(0.5, 0)", trained("mnist1d-cnn"))
    assert shapes(made.module) == [(16, 1, 5), (32, 16, 3), (32, 32, 3), (64, 160), (10, 64)]


def test_by_batch_norm_the_channels_with_the_least_scale_go(
    trained: Callable[[str], Subject],
) -> None:
    subject = trained("mnist1d-cnn")
    scales = subject.module[1].weight.detach().abs()
    made = apply("prune-channels(0.25, 0, importance='batch-norm')", subject)
    kept = made.module[1].weight.detach().abs()
    assert torch.allclose(kept.sort().values, scales.sort().values[4:])


def test_what_has_nothing_to_remove_is_refused(trained: Callable[[str], Subject]) -> None:
    with pytest.raises(Refusal, match="needs a batch norm"):
        apply("prune-channels(0.5, importance='batch-norm')", trained("digits-mlp"))
    with pytest.raises(Refusal, match="found nothing that can be removed"):
        apply("prune-neurons(0.5)", Subject(nn.Linear(4, 3), (torch.zeros(2, 4),)))
    with pytest.raises(Refusal, match="this model has none"):
        apply("prune-neurons(0.5)", Subject(nn.Conv1d(1, 2, 3), (torch.zeros(2, 1, 8),)))


# Input features


def features() -> Subject:
    """Ten features: one never changes, one is ignored, the others count."""
    generator = torch.Generator().manual_seed(0)
    inputs = torch.randn(300, 10, generator=generator)
    inputs[:, 2] = 5.0
    split = Split(inputs, (inputs[:, 0] > 0).long())
    torch.manual_seed(0)
    module = nn.Sequential(nn.Flatten(), nn.Linear(10, 4), nn.ReLU(), nn.Linear(4, 2))
    with torch.no_grad():
        module[1].weight[:, 7] = 0
    data = Dataset("signs", split, split, split, 2)
    return Subject(module.eval(), (inputs[:6],), data)


def test_features_that_say_nothing_go_first_and_no_output_changes() -> None:
    subject = features()
    made = apply("prune-inputs(0.2, finetune_epochs=0)", subject)
    assert made.data is not None
    assert subject.data is not None
    kept = [0, 1, 3, 4, 5, 6, 8, 9]
    for name in ("train", "tune", "test"):
        before, after = (getattr(one.data, name) for one in (subject, made))
        assert torch.equal(after.inputs, before.inputs[:, kept])
        assert torch.equal(after.labels, before.labels)
    assert torch.equal(made.inputs[0], subject.inputs[0][:, kept])
    assert shapes(made.module) == [(4, 8), (2, 4)]
    with torch.no_grad():
        expected = subject.module(*subject.inputs)
        assert torch.allclose(made.module(*made.inputs), expected, atol=1e-5)
    assert made.notes == ("reads 8 of 10 features",)


def test_the_model_and_its_data_are_left_as_they_were() -> None:
    subject = features()
    prune_inputs(subject, 0.5, finetune_epochs=0)
    assert subject.data is not None
    assert subject.data.train.inputs.shape == (300, 10)
    assert shapes(subject.module) == [(4, 10), (2, 4)]


def test_a_model_that_does_not_read_all_features_first_is_refused() -> None:
    for name in ("mnist1d-cnn", "mnist1d-transformer"):
        with pytest.raises(Refusal, match="reads all input features first"):
            apply("prune-inputs(0.5)", registry.build("model", name))


class Twice(nn.Module):
    """Reads its input in two places, or in one and by its length."""

    def __init__(self, other: nn.Module) -> None:
        super().__init__()
        self.first, self.other = nn.Linear(10, 2), other

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        read: torch.Tensor = self.first(x) + self.other(x)
        return read


class Length(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x.norm(dim=1, keepdim=True)


@pytest.mark.parametrize("other", [nn.Linear(10, 2), Length(), nn.LayerNorm(10)])
def test_an_input_that_is_read_in_two_places_is_refused(other: nn.Module) -> None:
    torch.manual_seed(0)
    module = Twice(other if not isinstance(other, nn.LayerNorm) else nn.Sequential(other, Length()))
    with pytest.raises(Refusal, match="prune-inputs needs a"):
        apply("prune-inputs(0.5, finetune_epochs=0)", replace(features(), module=module.eval()))


def test_images_become_rows_of_the_pixels_that_are_kept(
    trained: Callable[[str], Subject],
) -> None:
    made = apply("prune-inputs(0.5, finetune_epochs=1)", trained("digits-mlp"))
    assert made.data is not None
    assert made.data.shape == (32,)
    assert made.data.name == "digits"
    with torch.no_grad():
        assert made.module(*made.inputs).shape == (64, 10)
