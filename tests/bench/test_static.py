"""Static int8: exact where it can be, near elsewhere, run in int8, and kept in small files."""

import copy
import dataclasses
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from bench import Refusal, Subject, registry
from bench.data import Dataset, Split
from bench.techniques.static import StaticLayer
from bench.training import scores
from harness.measure.counts import count_macs
from harness.measure.layers import list_layers
from harness.measure.macs import MacCounter
from harness.measure.traffic import count_traffic
from harness.measure.weights import count_weights
from harness.prepare.kept import save_subject

pytestmark = pytest.mark.slow

registry.load_built_ins()
MODELS = ("digits-mlp", "mnist1d-cnn", "digits-cnn", "mnist1d-transformer")
LAYERS = (nn.Linear, nn.Conv1d, nn.Conv2d)
ALONE = "quantized.linear_with_input_q_dq_qweight_dq_output_fp32"
LOADER = """
import sys, torch
subject = torch.load(sys.argv[1], weights_only=False)
with torch.inference_mode():
    torch.save(subject.module.eval()(*subject.inputs), sys.argv[2])
"""


def apply(technique: str, subject: Subject) -> Subject:
    torch.manual_seed(0)
    made = registry.build("technique", technique, subject)
    assert isinstance(made, Subject)
    return made


def static(module: nn.Module, inputs: Tensor) -> Subject:
    """Apply the technique to a module that is calibrated with its inputs."""
    split = Split(inputs, torch.zeros(len(inputs), dtype=torch.long))
    data = Dataset("a user's data", split, split, split, 2)
    return apply("int8-static", Subject(module.eval(), (inputs,), data))


def fresh(name: str) -> Subject:
    torch.manual_seed(0)
    subject: Subject = registry.build("model", name)
    subject.module.eval()
    return subject


def outputs(subject: Subject) -> Tensor:
    with torch.inference_mode():
        found: Tensor = subject.module(*subject.inputs)
    return found


def ran(subject: Subject) -> set[str]:
    with MacCounter() as names:
        outputs(subject)
    return {str(packet) for packet in names.seen}


def quantized(module: nn.Module) -> list[StaticLayer]:
    return [layer for layer in module.modules() if isinstance(layer, StaticLayer)]


def noise(*shape: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(1))


def error(made: Subject, module: nn.Module) -> float:
    with torch.no_grad():
        expected = module(*made.inputs)
    norm = torch.linalg.vector_norm
    return float(norm(outputs(made) - expected) / norm(expected))


# Known truths


@pytest.mark.parametrize("kind", LAYERS)
def test_a_layer_whose_numbers_are_whole_multiples_of_the_steps_is_exact(kind: Any) -> None:
    size = 6
    layer = nn.Linear(size, size) if kind is nn.Linear else kind(size, size, 3, padding=1)
    centre = layer.weight.data.zero_().view(size, size, -1)
    centre[torch.arange(size), torch.randperm(size), centre.shape[-1] // 2] = 127  # steps of 1
    layer.bias.data.zero_()
    values = torch.arange(2 * size * 64) % 128  # steps of 1; outputs have steps of 127
    shape = {nn.Linear: (-1, size), nn.Conv1d: (-1, size, 8), nn.Conv2d: (-1, size, 4, 4)}[kind]
    inputs = values.float()[torch.randperm(len(values))].view(shape)
    made = static(layer, inputs)
    assert len(quantized(made.module)) == 1
    assert torch.equal(made.module(inputs), layer(inputs))
    assert torch.equal(quantized(made.module)[0].decode_weight(), layer.weight)


@pytest.mark.parametrize("kind", LAYERS)
def test_no_weight_is_further_off_than_half_a_step_of_its_channel(kind: Any) -> None:
    layer = nn.Linear(12, 8) if kind is nn.Linear else kind(12, 8, 3, groups=2)
    layer.weight.data *= torch.logspace(-2, 1, 8).view(-1, *(1 for _ in layer.weight.shape[1:]))
    shape = {nn.Linear: (64, 12), nn.Conv1d: (64, 12, 9), nn.Conv2d: (64, 12, 5, 5)}[kind]
    made = static(layer, noise(*shape))
    found = quantized(made.module)[0].decode_weight()
    assert found.shape == layer.weight.shape
    half = layer.weight.detach().flatten(1).abs().amax(1) / 127 / 2
    assert ((found - layer.weight).flatten(1).abs().amax(1) <= 1.001 * half).all()
    assert 0 < error(made, layer) < 0.05


def test_batch_norms_are_folded_and_relus_are_part_of_the_kernel_before() -> None:
    made = apply("int8-static", fresh("mnist1d-cnn"))
    assert not any(isinstance(part, nn.BatchNorm1d | nn.ReLU) for part in made.module.modules())
    assert [layer.relu for layer in quantized(made.module)] == [True, True, True, True, False]
    names = ran(made)
    assert {"quantized.conv1d_relu", "quantized.linear_relu", "quantized.linear"} <= names
    assert not names & {"aten.convolution", "aten.addmm", "aten.relu"}


@pytest.mark.parametrize("model", ["digits-mlp", "mnist1d-cnn", "digits-cnn"])
def test_between_layers_in_a_row_numbers_stay_in_int8(model: str) -> None:
    made = apply("int8-static", fresh(model))
    calls = [str(node.target) for node in made.module.graph.nodes]
    assert sum("quantize_per_tensor" in call for call in calls) == 1
    assert calls.count("dequantize") == 1
    assert calls.index("dequantize") == len(calls) - 2


@pytest.mark.parametrize("model", ["digits-mlp", "mnist1d-cnn", "mnist1d-transformer"])
def test_a_trained_model_loses_at_most_a_point_of_accuracy(
    trained: Callable[[str], Subject], model: str
) -> None:
    subject = trained(model)
    assert subject.data is not None
    test = subject.data.test
    before, after = (
        float((scores(one.module, test.inputs).argmax(1) == test.labels).double().mean())
        for one in (subject, apply("int8-static", subject))
    )
    assert after >= before - 0.01


# What is counted


@pytest.mark.parametrize("model", MODELS)
def test_multiplications_are_as_many_as_before_and_bytes_a_quarter(model: str) -> None:
    subject = fresh(model)
    made = apply("int8-static", subject)
    assert count_macs(made.module, made.inputs)[0] == count_macs(subject.module, subject.inputs)[0]
    before, after = count_weights(subject.module), count_weights(made.module)
    assert 0.25 < after["weight_bytes"] / before["weight_bytes"] < 0.32
    norms = [m for m in subject.module.modules() if isinstance(m, nn.BatchNorm1d | nn.BatchNorm2d)]
    assert after["params"] == before["params"] - sum(norm.num_features for norm in norms)
    assert sum(layer.macs for layer in list_layers(made.module, made.inputs)) == round(
        count_macs(made.module, made.inputs)[0]
    )


@pytest.mark.parametrize("model", MODELS)
def test_products_are_in_int8_and_move_fewer_bytes(model: str) -> None:
    subject = fresh(model)
    plain = count_traffic(subject.module, subject.inputs)
    found = count_traffic(apply("int8-static", subject).module, subject.inputs)
    attention = model == "mnist1d-transformer"
    assert found.dtypes == (("float32", "int8") if attention else ("int8",))
    if not attention:  # there most numbers leave int8 at once
        assert found.bytes_moved < 0.3 * plain.bytes_moved


# How it is kept


@pytest.mark.parametrize("model", MODELS)
def test_a_fresh_process_loads_the_small_file_and_gives_the_same_outputs(
    model: str, tmp_path: Path
) -> None:
    subject = fresh(model)
    made = apply("int8-static", subject)
    sizes = []
    for one in (subject, made):
        alone = dataclasses.replace(one, data=None, inputs=(one.inputs[0][:4].clone(),))
        save_subject(alone, tmp_path / "subject.pt")
        sizes.append((tmp_path / "subject.pt").stat().st_size)
    assert sizes[1] < count_weights(made.module)["weight_bytes"] + 40_000
    assert sizes[1] < sizes[0]
    command = [sys.executable, "-P", "-c", LOADER, "subject.pt", "outputs.pt"]
    subprocess.run(command, cwd=tmp_path, check=True, timeout=120)
    assert torch.equal(torch.load(tmp_path / "outputs.pt"), outputs(made)[:4])


@pytest.mark.parametrize("model", MODELS)
def test_the_state_holds_each_weight_once_and_as_int8(model: str) -> None:
    made = apply("int8-static", fresh(model)).module
    layers = list(quantized(made))
    codes = [tensor for tensor in made.state_dict().values() if tensor.dtype == torch.int8]
    assert len(codes) == len(layers) > 0
    assert sum(map(torch.numel, codes)) == sum(layer.decode_weight().numel() for layer in layers)


def test_copies_give_the_same_outputs_and_the_model_itself_is_untouched() -> None:
    subject = fresh("mnist1d-cnn")
    before = copy.deepcopy(subject.module.state_dict())
    made, again = (apply("int8-static", subject) for _ in range(2))
    copied = dataclasses.replace(made, module=copy.deepcopy(made.module))
    assert torch.equal(outputs(made), outputs(again))
    assert torch.equal(outputs(made), outputs(copied))
    after = subject.module.state_dict()
    assert all(torch.equal(after[name], before[name]) for name in before)


def test_calibration_looks_at_no_label_and_at_examples_from_the_whole_train_split() -> None:
    subject = fresh("digits-mlp")
    assert subject.data is not None
    train = subject.data.train
    blind = dataclasses.replace(train, labels=torch.zeros_like(train.labels))
    unlabelled = dataclasses.replace(subject, data=dataclasses.replace(subject.data, train=blind))
    assert torch.equal(
        outputs(apply("int8-static", subject)), outputs(apply("int8-static", unlabelled))
    )
    inputs = torch.linspace(0, 1, 100)[:, None].expand(100, 4).contiguous()  # sorted
    split = Split(inputs, torch.zeros(100))
    layer = nn.Linear(4, 4)
    data = Dataset("sorted", split, split, split, 2)
    few = apply("int8-static(4)", Subject(layer, (inputs,), data))
    step, _ = quantized(few.module)[0].entry
    assert step * 127 == pytest.approx(75 / 99)  # of examples 0, 25, 50, 75


# Models of other kinds


class Branching(nn.Module):
    """Chooses by its numbers, so that it cannot be traced."""

    def __init__(self) -> None:
        super().__init__()
        self.convolution, self.layer = nn.Conv1d(2, 4, 3), nn.Linear(24, 3)

    def forward(self, inputs: Tensor) -> Tensor:
        found = self.convolution(inputs).relu()
        if found.sum() < 0:
            found = found * 2
        return self.layer(found.flatten(1))


def test_a_model_that_cannot_be_traced_is_quantized_layer_by_layer() -> None:
    module = Branching()
    made = static(module, noise(64, 2, 8))
    assert made.notes == ("int8 layer by layer: what is between them cannot be traced",)
    assert isinstance(made.module.layer, StaticLayer)
    assert {"quantized.conv1d", ALONE} <= ran(made)
    assert 0 < error(made, module) < 0.05
    assert count_macs(made.module, made.inputs)[0] == count_macs(module, made.inputs)[0]


class Shared(nn.Module):
    """Calls a layer twice, adds what went around it, and reads another's weight by itself."""

    def __init__(self) -> None:
        super().__init__()
        self.twice, self.read, self.once = nn.Linear(8, 8), nn.Linear(8, 8), nn.Linear(8, 8)

    def forward(self, inputs: Tensor) -> Tensor:
        found = self.twice(torch.relu(self.twice(inputs))) + inputs
        found = nn.functional.linear(self.read(found), self.read.weight.t())
        return self.once(nn.functional.relu(found.view(found.size(0), -1)))


def test_shared_layers_are_one_and_a_layer_whose_weight_is_read_elsewhere_stays() -> None:
    torch.manual_seed(0)
    module = Shared()
    made = static(module, noise(256, 8))
    assert not made.notes
    assert len(quantized(made.module)) == 2
    assert 0 < error(made, module) < 0.08
    assert count_macs(made.module, made.inputs)[0] == 5 * 64


class Overwriting(nn.Module):
    """Overwrites what it reads again."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.relu, self.last = nn.Linear(8, 8), nn.ReLU(inplace=True), nn.Linear(8, 8)

    def forward(self, inputs: Tensor) -> Tensor:
        found = self.first(inputs)
        self.relu(found)
        return self.last(found)


def test_what_is_overwritten_between_layers_is_read_as_it_then_is() -> None:
    torch.manual_seed(0)
    module = Overwriting()
    assert 0 < error(static(module, noise(256, 8)), module) < 0.05


def test_layers_without_int8_kernels_stay_in_32_bits() -> None:
    torch.manual_seed(0)
    module = nn.Sequential(
        nn.Conv1d(2, 4, 3, padding="same"), nn.Conv1d(4, 4, 3, padding=1, padding_mode="circular"),
        nn.Conv1d(4, 4, 3), nn.Tanh(), nn.Flatten(), nn.Linear(24, 3),
    )  # fmt: skip
    made = static(module, noise(64, 2, 8))
    assert [layer.kind for layer in quantized(made.module)] == ["conv1d", "linear"]
    assert sum(isinstance(part, nn.Conv1d) for part in made.module.modules()) == 2
    assert 0 < error(made, module) < 0.05


def test_a_single_layer_and_one_that_only_ever_returns_zero_are_quantized() -> None:
    layer = nn.Linear(4, 2, bias=False)
    assert 0 < error(static(layer, noise(64, 4)), layer) < 0.05
    nothing = nn.Linear(4, 2)
    for parameter in nothing.parameters():
        parameter.data.zero_()
    assert torch.equal(outputs(static(nothing, noise(64, 4))), torch.zeros(64, 2))


def test_it_is_refused_without_data_layers_or_finite_numbers() -> None:
    layer, inputs = nn.Linear(4, 2), noise(8, 4)
    with pytest.raises(Refusal, match="there is no data"):
        apply("int8-static", Subject(layer, (inputs,)))
    for module in (nn.ReLU(), nn.Conv3d(1, 1, 1), nn.TransformerEncoderLayer(4, 2, 8)):
        with pytest.raises(Refusal, match="this model has none"):
            static(module, inputs)
    with pytest.raises(Refusal, match="finite numbers"):
        static(layer, torch.full((8, 4), torch.inf))
