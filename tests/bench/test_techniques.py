"""Techniques: a contract that all of them keep, and what is known of each."""

import collections
import copy
import dataclasses
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.ao.nn.quantized.dynamic import Linear as Quantized
from torch.ao.quantization import quantize_dynamic
from torch.nn.utils import parametrizations, prune, weight_norm

from bench import Refusal, SpecError, Subject, registry
from bench.data import Dataset, Split, load_dataset
from bench.subject import as_subject
from bench.techniques.precision import CastModule, cast
from bench.training import scores, train

registry.load_built_ins()

MODELS = ("digits-mlp", "mnist1d-cnn", "mnist1d-transformer")
WEIGHTED = (nn.Conv1d, nn.Conv2d, nn.Linear)


class Answers(nn.Module):
    """A model that gives its answer in many ways, and counts in whole numbers."""

    def __init__(self, way: str) -> None:
        super().__init__()
        self.way = way
        self.words = nn.Embedding(5, 4)
        self.layer = nn.Linear(4, 2)

    def forward(self, numbers: Tensor, values: Tensor) -> Any:
        scores = self.layer(self.words(numbers) + values)
        if self.way == "dict":
            return {"scores": scores, "numbers": numbers, "more": [scores]}
        if self.way == "numbered":
            return {0: scores, 1: numbers}
        if self.way == "named tuple":
            return collections.namedtuple("Named", "scores numbers")(scores, numbers)
        return (scores, numbers, None) if self.way == "tuple" else scores


def few(data: Dataset) -> Dataset:
    """Keep the first 200 examples of each split."""
    train, tune, test = (
        Split(split.inputs[:200], split.labels[:200])
        for split in (data.train, data.tune, data.test)
    )
    return Dataset(data.name, train, tune, test, data.classes)


def small(name: str) -> Subject:
    """Build an untrained model on few examples."""
    torch.manual_seed(0)
    data = few(load_dataset(name.split("-", maxsplit=1)[0]))
    subject = as_subject(registry.build("model", name, data), name)
    subject.module.eval()
    return subject


def apply(technique: str, subject: Subject, seed: int = 0) -> Subject:
    torch.manual_seed(seed)
    made = registry.build("technique", technique, subject)
    assert isinstance(made, Subject)
    return made


def bare(module: nn.Module, *inputs: Tensor) -> Subject:
    return Subject(module, inputs)


def weighted(module: nn.Module) -> list[Tensor]:
    return [layer.weight for layer in module.modules() if isinstance(layer, WEIGHTED)]


def count(tensors: list[Tensor]) -> int:
    return sum(tensor.numel() for tensor in tensors)


def zeros(module: nn.Module) -> int:
    return sum(int((weight == 0).sum()) for weight in weighted(module))


def outputs(subject: Subject) -> Tensor:
    with torch.no_grad():
        return subject.module(*subject.inputs)


def accuracy(module: nn.Module, data: Dataset) -> float:
    found = scores(module, data.test.inputs).argmax(1)
    return (found == data.test.labels).double().mean().item()


def register(monkeypatch: pytest.MonkeyPatch, factory: Callable[..., Subject]) -> None:
    """Register a model of this test under the name of its function."""
    name = factory.__name__
    entry = registry._make_entry("model", name, factory)
    monkeypatch.setitem(registry._entries, ("model", name), entry)


# What all of them keep


@pytest.mark.parametrize(
    "technique", ["prune-magnitude(0.5, finetune_epochs=1)", "prune-channels(0.5)"]
)
def test_fine_tuning_depends_on_the_seed(technique: str) -> None:
    subject = small("digits-mlp")
    first, second = (outputs(apply(technique, subject, seed)) for seed in (1, 2))
    assert not torch.equal(first, second)


@pytest.mark.parametrize("last", ["int8-dynamic", "bf16"])
@pytest.mark.parametrize("model", MODELS)
def test_lower_precision_follows_pruning(model: str, last: str) -> None:
    subject = small(model)
    pruned = apply("prune-magnitude(0.5)", apply("prune-channels(0.5)", subject))
    made = apply(last, pruned)
    close = (outputs(made) - outputs(pruned)).abs().max()
    assert 0 < close < 0.1 * outputs(pruned).abs().max()


def test_the_baseline_is_the_model_itself() -> None:
    subject = small("digits-mlp")
    assert apply("baseline", subject) is subject


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("prune-magnitude(1)", "sparsity must be from 0 to below 1, got 1."),
        ("prune-magnitude", "parameter 'sparsity' is missing"),
        ("prune-channels(-0.1)", "fraction must be from 0 to below 1, got -0.1."),
        ("prune-channels(0.5, finetune_epochs=-1)", "finetune_epochs must be 0 or more, got -1."),
        ("distill", "parameter 'student' is missing"),
        ("distill('digits-mlp', temperature=0)", "temperature must be 0.001 or more, got 0."),
        ("distill('digits-mlp', weight=2)", "weight must be from 0 to 1, got 2."),
        ("distill('digits-mpl')", "Unknown model 'digits-mpl'. Did you mean 'digits-mlp'?"),
    ],
)
def test_parameters_out_of_range_are_explained(text: str, message: str) -> None:
    with pytest.raises(SpecError) as caught:
        apply(text, small("digits-mlp"))
    assert message in str(caught.value)


# Magnitude pruning


@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize("sparsity", [0.0, 0.37, 0.8])
def test_magnitude_pruning_zeroes_exactly_the_share_asked_for(model: str, sparsity: float) -> None:
    subject = small(model)
    made = apply(f"prune-magnitude({sparsity})", subject)
    total = count(weighted(subject.module))
    assert abs(zeros(made.module) - sparsity * total) <= 1
    assert made.module.state_dict().keys() == subject.module.state_dict().keys()


def test_magnitude_pruning_zeroes_the_smallest_weights_and_leaves_the_others() -> None:
    subject = small("mnist1d-cnn")
    made = apply("prune-magnitude(0.8)", subject)
    before = torch.cat([weight.flatten() for weight in weighted(subject.module)])
    after = torch.cat([weight.flatten() for weight in weighted(made.module)])
    kept = after != 0
    assert torch.equal(after[kept], before[kept])
    assert before[~kept].abs().max() <= before[kept].abs().min()


def test_only_weights_of_layers_are_pruned_by_magnitude() -> None:
    subject = small("mnist1d-transformer")
    before = dict(subject.module.named_parameters())
    after = dict(apply("prune-magnitude(0.8)", subject).module.named_parameters())
    pruned = {
        f"{name}.weight"
        for name, layer in subject.module.named_modules()
        if isinstance(layer, WEIGHTED)
    }
    changed = {name for name in before if not torch.equal(before[name], after[name])}
    assert changed == pruned
    assert {"position", "norm.weight", "head.bias"} <= after.keys() - changed


@pytest.mark.parametrize("model", MODELS)
def test_zeros_survive_fine_tuning(model: str) -> None:
    subject = small(model)
    plain = apply("prune-magnitude(0.8)", subject)
    tuned = apply("prune-magnitude(0.8, finetune_epochs=2)", subject)
    for before, after in zip(weighted(plain.module), weighted(tuned.module), strict=True):
        assert torch.equal(before == 0, after == 0)
    assert not torch.equal(weighted(plain.module)[0], weighted(tuned.module)[0])


def test_magnitude_pruning_hurts_less_than_random_zeros(
    trained: Callable[[str], Subject],
) -> None:
    subject = trained("digits-mlp")
    assert subject.data is not None
    by_magnitude = accuracy(apply("prune-magnitude(0.5)", subject).module, subject.data)
    by_chance = []
    for seed in range(5):
        torch.manual_seed(seed)
        module = copy.deepcopy(subject.module)
        for weight in weighted(module):
            weight.data *= torch.rand_like(weight) >= 0.5
        by_chance.append(accuracy(module, subject.data))
    assert by_magnitude > max(by_chance)


def test_magnitude_pruning_refuses_a_model_without_weights() -> None:
    with pytest.raises(Refusal, match="pruning sets weights of linear layers"):
        apply("prune-magnitude(0.5)", bare(nn.ReLU(), torch.zeros(2, 3)))


def test_without_data_pruning_says_that_it_did_not_fine_tune() -> None:
    subject = dataclasses.replace(small("digits-mlp"), data=None)
    for technique in ("prune-magnitude(0.5, finetune_epochs=1)", "prune-channels(0.5)"):
        notes = apply(technique, subject).notes
        assert notes == ("not fine-tuned: the model has no training data",)


# Channel pruning


@pytest.mark.parametrize("model", MODELS)
def test_channel_pruning_makes_tensors_smaller(model: str) -> None:
    subject = small(model)
    made = apply("prune-channels(0.5, finetune_epochs=0)", subject)
    before, after = weighted(subject.module), weighted(made.module)
    assert count(list(made.module.parameters())) < 0.7 * count(list(subject.module.parameters()))
    assert all(new.shape <= old.shape for old, new in zip(before, after, strict=True))
    assert sum(new.shape < old.shape for old, new in zip(before, after, strict=True)) >= 3
    assert after[-1].shape[0] == before[-1].shape[0] == 10
    assert zeros(made.module) == 0


def test_channel_pruning_halves_every_layer_of_a_convolutional_network() -> None:
    made = apply("prune-channels(0.5, finetune_epochs=0)", small("mnist1d-cnn"))
    assert [tuple(weight.shape) for weight in weighted(made.module)] == [
        (8, 1, 5), (16, 8, 3), (16, 16, 3), (64, 80), (10, 64),
    ]  # fmt: skip


def test_removing_neurons_that_do_nothing_changes_no_output() -> None:
    subject = small("digits-mlp")
    for first, second in ((1, 3), (3, 5)):
        incoming, outgoing = subject.module[first], subject.module[second]
        for tensor in (incoming.weight.data, incoming.bias.data, outgoing.weight.data.T):
            tensor[::2] = 0
    made = apply("prune-channels(0.5, finetune_epochs=0)", subject)
    assert [layer.shape[0] for layer in weighted(made.module)] == [64, 64, 10]
    torch.testing.assert_close(outputs(made), outputs(subject))


@pytest.mark.parametrize("module", [nn.Linear(4, 3), nn.Sequential(nn.Flatten(), nn.Linear(4, 3))])
def test_channel_pruning_refuses_a_single_linear_layer(module: nn.Module) -> None:
    with pytest.raises(Refusal, match="found nothing that can be removed"):
        apply("prune-channels(0.5)", bare(module, torch.zeros(2, 4)))


def test_channel_pruning_refuses_a_share_of_nothing_and_a_model_without_weights() -> None:
    for text, subject in (
        ("prune-channels(0.0)", small("digits-mlp")),
        ("prune-channels(0.5)", bare(nn.ReLU(), torch.zeros(2, 4))),
    ):
        with pytest.raises(Refusal, match="found nothing that can be removed"):
            apply(text, subject)


# Precision


def test_int8_dynamic_refuses_a_model_without_linear_layers() -> None:
    # The linear layer inside nn.MultiheadAttention is one that PyTorch does not quantize.
    for module, inputs in (
        (nn.Conv1d(1, 2, 3), (torch.zeros(2, 1, 8),)),
        (nn.MultiheadAttention(4, 2), (torch.zeros(3, 2, 4),) * 3),
    ):
        with pytest.raises(Refusal, match=r"quantizes nn\.Linear layers"):
            apply("int8-dynamic", bare(module, *inputs))


@pytest.mark.parametrize(
    ("module", "reason"),
    [
        (prune.l1_unstructured(nn.Linear(4, 4), "weight", 0.5), "prune.remove"),
        (weight_norm(nn.Linear(4, 4)), "remove_weight_norm"),
        (parametrizations.orthogonal(nn.Linear(4, 4)), "remove_parametrizations"),
        (
            nn.Sequential(nn.Linear(4, 4), parametrizations.weight_norm(nn.Linear(4, 4))),
            "remove_parametrizations",
        ),
        (nn.Linear(4, 4).double(), "float32; these are in float64"),
        (nn.Linear(4, 4).bfloat16(), "float32; these are in bfloat16"),
        (quantize_dynamic(nn.Sequential(nn.Linear(4, 4))), "quantized already"),
    ],
)
def test_int8_dynamic_refuses_layers_that_pytorch_cannot_quantize_and_says_why(
    module: nn.Module, reason: str
) -> None:
    with pytest.raises(Refusal, match=reason):
        apply("int8-dynamic", bare(module, torch.zeros(2, 4)))
    if not any(isinstance(part, Quantized) for part in module.modules()):
        with pytest.raises(Refusal, match=reason):
            apply("int8-dynamic", bare(nn.Sequential(nn.ReLU(), module), torch.zeros(2, 4)))


@pytest.mark.parametrize("model", MODELS)
def test_int8_dynamic_stores_weights_of_8_bits(model: str) -> None:
    subject = small(model)
    made = apply("int8-dynamic", subject).module
    layers = {
        name: layer for name, layer in subject.module.named_modules() if type(layer) is nn.Linear
    }
    assert layers
    for name, layer in layers.items():
        weight = made.get_submodule(name).weight()
        assert weight.dtype == torch.qint8
        assert weight.int_repr().dtype == torch.int8
        largest = layer.weight.abs().max().item()
        assert weight.q_scale() == pytest.approx(largest / 127.5, rel=1e-4)
        error = (weight.dequantize() - layer.weight).abs().max().item()
        assert error <= 1.01 * weight.q_scale()
    assert not any(type(layer) is nn.Linear for layer in made.modules())


def test_int8_dynamic_leaves_convolutions_as_they_are() -> None:
    subject = small("mnist1d-cnn")
    made = apply("int8-dynamic", subject).module
    assert torch.equal(made[0].weight, subject.module[0].weight)
    assert made[0].weight.dtype == torch.float32


def test_int8_dynamic_quantizes_a_model_that_is_a_linear_layer_itself() -> None:
    made = apply("int8-dynamic", bare(nn.Linear(4, 3), torch.randn(2, 4)))
    assert made.module.weight().dtype == torch.qint8
    assert outputs(made).shape == (2, 3)


@pytest.mark.parametrize("technique", ["int8-dynamic", "bf16"])
def test_lower_precision_costs_little_accuracy(
    trained: Callable[[str], Subject], technique: str
) -> None:
    subject = trained("digits-mlp")
    assert subject.data is not None
    made = apply(technique, subject)
    before, after = (accuracy(one.module, subject.data) for one in (subject, made))
    assert abs(after - before) <= 0.01


@pytest.mark.parametrize("model", MODELS)
def test_bf16_computes_in_16_bits_behind_an_interface_of_32(model: str) -> None:
    subject = small(model)
    made = apply("bf16", subject)
    assert isinstance(made.module, CastModule)
    assert {parameter.dtype for parameter in made.module.parameters()} == {torch.bfloat16}
    assert {value.dtype for value in made.inputs} == {torch.float32}
    found = outputs(made)
    assert found.dtype == torch.float32
    assert torch.equal(found, found.bfloat16().float())
    for old, new in zip(subject.module.parameters(), made.module.parameters(), strict=True):
        assert torch.equal(old.bfloat16(), new)


@pytest.mark.parametrize("way", ["tensor", "tuple", "named tuple", "dict", "numbered"])
def test_bf16_gives_outputs_of_32_bits_in_whatever_they_come(way: str) -> None:
    inputs = (torch.tensor([1, 4]), torch.randn(2, 4))
    plain = Answers(way)
    made = apply("bf16", bare(plain, *inputs)).module(*inputs)
    expected = plain(*inputs)
    if way == "tensor":
        made, expected = (made,), (expected,)
    assert len(made) == len(expected)
    if isinstance(made, dict):
        assert list(made) == list(expected)
        made, expected = made.values(), expected.values()
    elif way == "named tuple":
        assert made.scores is made[0]
    for found, value in zip(made, expected, strict=True):
        if isinstance(value, list):
            assert [item.dtype for item in found] == [torch.float32]
        elif value is None:
            assert found is None
        else:
            assert found.dtype == value.dtype
            torch.testing.assert_close(found, value, atol=0.05, rtol=0.05)


# Distillation


def test_distillation_gives_the_architecture_of_the_student() -> None:
    teacher = small("mnist1d-cnn")
    made = apply("distill('mnist1d-mlp(width=8)')", teacher)
    student = registry.build("model", "mnist1d-mlp(width=8)")
    assert str(made.module) == str(student.module)
    assert made.data is teacher.data
    assert made.recipe == student.recipe
    assert made.notes == ("student of the model: mnist1d-mlp(width=8)",)


def test_a_student_shares_no_tensor_with_its_teacher() -> None:
    teacher = small("digits-mlp")
    made = apply("distill('digits-mlp')", teacher)
    owned, learned = (
        {tensor.data_ptr() for tensor in one.module.state_dict().values()}
        for one in (teacher, made)
    )
    assert len(owned) == len(learned) == 6
    assert not owned & learned


def test_distillation_that_ignores_the_teacher_is_ordinary_training() -> None:
    teacher = small("mnist1d-cnn")
    made = apply("distill('mnist1d-mlp(width=8)', weight=0)", teacher)
    factory = registry.find("model", "mnist1d-mlp")[0].factory
    torch.manual_seed(0)
    alone = train(factory(teacher.data, width=8))
    assert torch.equal(outputs(made), outputs(alone))


def test_distillation_that_ignores_the_labels_needs_none() -> None:
    teacher = small("mnist1d-cnn")
    assert teacher.data is not None
    train_split = teacher.data.train
    mixed = Split(train_split.inputs, train_split.labels.flip(0))
    other = dataclasses.replace(teacher, data=dataclasses.replace(teacher.data, train=mixed))
    technique = "distill('mnist1d-mlp(width=8)', weight=1)"
    first, second = (outputs(apply(technique, one)) for one in (teacher, other))
    assert torch.equal(first, second)


def test_a_student_answers_as_its_teacher_does(trained: Callable[[str], Subject]) -> None:
    teacher = trained("digits-mlp")
    assert teacher.data is not None
    made = apply("distill('digits-mlp(width=32)', weight=1)", teacher)
    inputs = teacher.data.test.inputs
    agreed = scores(made.module, inputs).argmax(1) == scores(teacher.module, inputs).argmax(1)
    assert agreed.double().mean() > 0.93


def test_distillation_refuses_a_teacher_without_data() -> None:
    teacher = dataclasses.replace(small("digits-mlp"), data=None)
    with pytest.raises(Refusal, match="needs training data"):
        apply("distill('digits-mlp')", teacher)


@pytest.mark.parametrize(
    ("student", "message"),
    [
        ("digits-cnn", "digits-cnn needs images"),
        ('mnist1d-mlp(data="digits")', "does not take the teacher's data"),
    ],
)
def test_distillation_refuses_a_student_of_other_data(student: str, message: str) -> None:
    with pytest.raises(Refusal, match=message):
        apply(f"distill({student!r})", small("mnist1d-cnn"))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"recipe": None}, "the student 'other' has no training recipe"),
        ({"data": None}, "does not take the teacher's data"),
    ],
)
def test_distillation_refuses_a_student_that_cannot_be_trained(
    changes: dict[str, None], message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    teacher = small("digits-mlp")

    def other() -> Subject:
        return dataclasses.replace(small("digits-mlp"), **changes)

    register(monkeypatch, other)
    with pytest.raises(Refusal, match=message):
        apply("distill('other')", teacher)


def test_distillation_refuses_a_student_of_other_classes(
    make_data: Callable[..., Dataset], monkeypatch: pytest.MonkeyPatch
) -> None:
    def other() -> Subject:
        return registry.build("model", "digits-mlp", make_data(1, 8, 8, classes=3))

    register(monkeypatch, other)
    with pytest.raises(Refusal, match="does not take the teacher's data"):
        apply("distill('other')", small("digits-mlp"))


def test_a_student_gets_the_teachers_data_whatever_its_first_parameter_is(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    teacher = small("digits-mlp")
    seen = []

    def other(width: int, data: Any = "digits") -> Subject:
        seen.append(data)
        return registry.find("model", "digits-mlp")[0].factory(data, width)

    register(monkeypatch, other)
    apply("distill('other(8)')", teacher)
    assert seen
    assert all(data is teacher.data for data in seen)


@dataclasses.dataclass
class Halved:
    logits: torch.Tensor
    classes: int = dataclasses.field(init=False)

    def __post_init__(self) -> None:
        self.logits = self.logits / 2
        self.classes = self.logits.shape[-1]


def test_outputs_in_another_type_are_the_same_object_with_the_same_fields() -> None:
    outputs = cast(Halved(torch.full((1, 4), 8.0)), torch.bfloat16)
    assert (type(outputs), outputs.classes, outputs.logits.dtype) == (Halved, 4, torch.bfloat16)
    assert outputs.logits.tolist() == [[4.0] * 4]
    assert cast([{"a": outputs}], torch.float32)[0]["a"].logits.dtype == torch.float32
