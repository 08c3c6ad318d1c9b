"""Techniques for tensor cores: what they store and compute on the host, and all on a real card."""

import copy
import dataclasses
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from bench import Refusal, Subject, registry
from bench.techniques.sparse import keep_two_of_four
from bench.techniques.tensor_cores import FP8, Fp8Linear, TwoOfFourLinear, require_card
from bench.training import tune_accuracy
from harness.measure.counts import count_macs
from harness.measure.tf32 import describe_tf32
from harness.measure.traffic import count_traffic
from harness.measure.weights import count_weights
from harness.prepare.kept import save_subject

registry.load_built_ins()
TECHNIQUES = ("tf32", "fp8", "sparse-2-4")


def apply(technique: str, subject: Subject) -> Subject:
    torch.manual_seed(0)
    made = registry.build("technique", technique, subject)
    assert isinstance(made, Subject)
    return made


@pytest.fixture
def subject() -> Subject:
    """Make a small model: two layers whose sizes are multiples of 16, and one of 10 outputs."""
    torch.manual_seed(0)
    module = nn.Sequential(
        nn.Linear(64, 128), nn.ReLU(), nn.Linear(128, 64, bias=False), nn.Linear(64, 10)
    )
    return Subject(module.eval(), (torch.randn(32, 64),))


def outputs(subject: Subject) -> Tensor:
    with torch.inference_mode():
        found: Tensor = subject.module(*subject.inputs)
    return found


def error(found: Tensor, expected: Tensor) -> float:
    norm = torch.linalg.vector_norm
    return float(norm(found.cpu() - expected) / norm(expected))


def two_of_four(subject: Subject) -> nn.Module:
    """Return the module with those weights set to zero that sparse-2-4 leaves out."""
    module = copy.deepcopy(subject.module)
    for layer in (module[0], module[2]):
        layer.weight.data *= keep_two_of_four(layer.weight.data)
    return module


# TF32


class Watching(nn.Module):
    """Returns its inputs and notes which products may be in TF32 meanwhile."""

    def __init__(self, fails: bool = False) -> None:
        super().__init__()
        self.layer, self.fails, self.seen = nn.Linear(2, 2), fails, ""

    def forward(self, inputs: Tensor) -> Tensor:
        self.seen = describe_tf32()
        if self.fails:
            raise ValueError("a fault of the model")
        return inputs


@pytest.fixture
def precision_kept() -> Iterator[None]:
    matmul = torch.backends.cuda.matmul
    before = matmul.fp32_precision
    yield
    matmul.fp32_precision = before


@pytest.mark.parametrize("setting", ["ieee", "tf32"])
def test_tf32_is_allowed_while_the_module_runs_and_not_longer(
    precision_kept: None, setting: str
) -> None:
    torch.backends.cuda.matmul.fp32_precision = setting
    before = describe_tf32()
    made = apply("tf32", Subject(Watching(), (torch.ones(1, 2),)))
    assert torch.equal(outputs(made), torch.ones(1, 2))
    assert made.module.module.seen == "matmul on, conv on, rnn on"
    assert describe_tf32() == before
    failing = apply("tf32", Subject(Watching(fails=True), (torch.ones(1, 2),)))
    with pytest.raises(ValueError, match="a fault of the model"):
        outputs(failing)
    assert describe_tf32() == before


def test_tf32_changes_neither_weights_nor_what_the_host_computes(subject: Subject) -> None:
    made = apply("tf32", subject)
    assert count_weights(made.module) == count_weights(subject.module)
    assert torch.equal(outputs(made), outputs(subject))


# fp8


def test_fp8_weights_are_off_by_a_sixteenth_at_most_and_the_largest_is_exact(
    subject: Subject,
) -> None:
    made = apply("fp8", subject).module.module
    for place in (0, 2):
        weight, layer = subject.module[place].weight.detach(), made[place]
        assert isinstance(layer, Fp8Linear)
        assert (layer.codes.dtype, layer.scale.dtype) == (FP8, torch.float32)
        found = layer.decode_weight()
        # A mantissa of three bits: half a step is 1/16 of a number, below 2⁻⁶ of the scale less.
        bound = (weight.abs() / 16).clamp(min=float(layer.scale) * 2**-10)
        assert ((found - weight).abs() <= 1.001 * bound).all()
        largest = weight.abs().argmax()
        assert float(found.flatten()[largest]) == pytest.approx(float(weight.flatten()[largest]))


def test_fp8_leaves_other_sizes_in_bfloat16_behind_an_interface_of_32_bits(
    subject: Subject,
) -> None:
    made = apply("fp8", subject)
    head = made.module.module[3]
    assert type(head) is nn.Linear and head.weight.dtype == torch.bfloat16
    counted, before = count_weights(made.module), count_weights(subject.module)
    assert counted["params"] == before["params"]
    wide, narrow = 2 * 64 * 128, 64 * 10
    assert counted["weight_bytes"] == wide + 2 * 4 + 2 * (128 + narrow + 10)
    assert outputs(made).dtype == torch.float32


def test_fp8_gives_what_its_rounded_numbers_give(subject: Subject) -> None:
    found = outputs(apply("fp8", subject))
    assert 0 < error(found, outputs(subject)) < 0.08
    layer = Fp8Linear(nn.Linear(16, 16).bfloat16())
    whole = torch.arange(-8, 8).repeat(16, 1).float()
    whole[:, 0], layer.codes = 448, torch.eye(16).to(FP8)
    layer.scale, layer.bias = torch.tensor(2.0), None
    with torch.no_grad():
        assert torch.equal(layer(whole.bfloat16()).float(), 2 * whole)


@pytest.mark.slow
def test_fp8_multiplies_as_often_as_before_in_fp8(subject: Subject) -> None:
    made = apply("fp8", subject)
    assert count_macs(made.module, made.inputs)[0] == count_macs(subject.module, subject.inputs)[0]
    assert count_traffic(made.module, made.inputs).dtypes == ("bfloat16", "float8_e4m3fn")


# Two of each four


def test_two_of_each_four_weights_are_stored_in_half_precision_with_their_places(
    subject: Subject,
) -> None:
    made = apply("sparse-2-4", subject)
    pruned = two_of_four(subject)
    for place in (0, 2):
        layer = made.module.module[place]
        assert isinstance(layer, TwoOfFourLinear)
        assert torch.equal(layer.decode_weight(), pruned[place].weight.half())
    counted = count_weights(made.module)
    wide, narrow = 2 * 64 * 128, 64 * 10
    assert counted["params"] == count_weights(subject.module)["params"]
    assert counted["nonzero_params"] == pytest.approx(wide / 2 + 128 + narrow + 10, abs=5)
    assert counted["weight_bytes"] == wide / 2 * 2.25 + 2 * (128 + narrow + 10)


def test_on_the_host_two_of_four_multiply_like_the_dense_weight_with_zeros(
    subject: Subject,
) -> None:
    found = outputs(apply("sparse-2-4", subject))
    half = two_of_four(subject).half()
    with torch.inference_mode():
        assert torch.equal(found, half(subject.inputs[0].half()).float())


def test_zeros_that_prune_2_4_has_left_are_those_left_out(subject: Subject) -> None:
    pruned = apply("prune-2-4", subject)
    layer = apply("sparse-2-4", pruned).module.module[0]
    assert torch.equal(layer.decode_weight(), pruned.module[0].weight.half())


# What all keep


@pytest.mark.parametrize("technique", TECHNIQUES)
def test_files_and_copies_give_the_same_outputs(
    subject: Subject, technique: str, tmp_path: Path
) -> None:
    before = copy.deepcopy(subject.module.state_dict())
    made = apply(technique, subject)
    save_subject(made, tmp_path / "subject.pt")
    loaded = torch.load(tmp_path / "subject.pt", weights_only=False)
    copied = dataclasses.replace(made, module=copy.deepcopy(made.module))
    assert torch.equal(outputs(loaded), outputs(made))
    assert torch.equal(outputs(copied), outputs(made))
    after = subject.module.state_dict()
    assert all(torch.equal(after[name], before[name]) for name in before)


@pytest.mark.parametrize("technique", ["fp8", "sparse-2-4"])
def test_sizes_that_the_kernels_do_not_take_are_refused(technique: str) -> None:
    for module, inputs in (
        (nn.Linear(64, 10), torch.ones(2, 64)),
        (nn.Conv1d(16, 16, 1), torch.ones(2, 16, 8)),
    ):
        with pytest.raises(Refusal, match="sizes are multiples of 16"):
            apply(technique, Subject(module, (inputs,)))


def test_a_device_that_is_no_card_is_not_asked_for_its_capability() -> None:
    require_card(torch.device("cpu"), (99, 0), "this")


# On a real card

needs_card = pytest.mark.skipif(
    not torch.cuda.is_available(), reason="needs a CUDA card; none here"
)
CAPABILITY = {"tf32": (8, 0), "fp8": (8, 9), "sparse-2-4": (8, 0)}
TOLERANCE = {"tf32": 0.002, "fp8": 0.08, "sparse-2-4": 0.01}


def on_card(technique: str, subject: Subject) -> Subject:
    """Bring what a technique makes to the card; skip where the card has no such tensor cores."""
    if torch.cuda.get_device_capability() < CAPABILITY[technique]:
        pytest.skip(f"the card has no tensor cores for {technique}")
    made = apply(technique, subject)
    inputs = tuple(value.cuda() for value in made.inputs)
    return dataclasses.replace(made, module=made.module.cuda(), inputs=inputs)


@needs_card
@pytest.mark.parametrize("batch", [1, 7, 32])
@pytest.mark.parametrize("technique", TECHNIQUES)
def test_on_a_card_outputs_are_near_those_of_the_host(
    subject: Subject, technique: str, batch: int
) -> None:
    made = on_card(technique, dataclasses.replace(subject, inputs=(subject.inputs[0][:batch],)))
    module = two_of_four(subject) if technique == "sparse-2-4" else subject.module
    with torch.inference_mode():
        expected = module(subject.inputs[0][:batch])
    found = outputs(made)
    assert (found.dtype, found.shape) == (torch.float32, expected.shape)
    assert error(found, expected) < TOLERANCE[technique]


@needs_card
@pytest.mark.parametrize(
    ("technique", "dtypes"),
    [("fp8", ("bfloat16", "float8_e4m3fn")), ("sparse-2-4", ("float16",))],
)
def test_on_a_card_products_are_counted_in_their_types(
    subject: Subject, technique: str, dtypes: tuple[str, ...]
) -> None:
    made = on_card(technique, subject)
    assert count_traffic(made.module, made.inputs).dtypes == dtypes
    macs = count_macs(subject.module, subject.inputs)[0]
    assert count_macs(made.module, made.inputs)[0] == macs


@needs_card
def test_on_a_card_tf32_products_differ_from_those_of_32_bits(subject: Subject) -> None:
    made = on_card("tf32", subject)
    with torch.inference_mode():
        exact = made.module.module(*made.inputs)
    assert not torch.equal(outputs(made), exact)


@needs_card
def test_on_a_card_the_dense_weight_is_not_kept_and_files_hold_the_packed_one(
    subject: Subject, tmp_path: Path
) -> None:
    made = on_card("sparse-2-4", subject)
    counted = count_weights(made.module)
    assert (
        counted["weight_bytes"]
        == count_weights(apply("sparse-2-4", subject).module)["weight_bytes"]
    )
    layer = made.module.module[0]
    assert isinstance(layer.sparse, torch.sparse.SparseSemiStructuredTensor)
    assert layer.values.device.type == "cpu"
    copied = dataclasses.replace(made, module=copy.deepcopy(made.module))
    assert torch.equal(outputs(copied), outputs(made))
    save_subject(made, tmp_path / "subject.pt")
    loaded = torch.load(tmp_path / "subject.pt", weights_only=False, map_location="cpu")
    back = dataclasses.replace(loaded, module=loaded.module.cuda(), inputs=made.inputs)
    assert torch.equal(outputs(back), outputs(made))


@needs_card
@pytest.mark.parametrize("technique", TECHNIQUES)
def test_on_a_card_a_trained_model_keeps_its_accuracy(
    trained: Callable[[str], Subject], technique: str
) -> None:
    subject = trained("digits-mlp")
    assert subject.data is not None
    made = on_card(technique, subject)
    tune = subject.data.tune
    with torch.inference_mode():
        found = made.module(tune.inputs.cuda()).argmax(1).cpu()
    accuracy = float((found == tune.labels).double().mean())
    assert accuracy >= tune_accuracy(subject) - (0.05 if technique == "sparse-2-4" else 0.01)
