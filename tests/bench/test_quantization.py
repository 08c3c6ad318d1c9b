"""Quantization and weight sharing: the formulas, on weights whose answer is known."""

from collections.abc import Callable

import pytest
import torch
from sklearn.cluster import KMeans
from torch import Tensor, nn

from bench import Refusal, SpecError, Subject, registry
from bench.storage import StoredLayer
from bench.techniques.codes import AffineCode, PowerOfTwoCode, SharedCode, SymmetricCode, cluster
from bench.techniques.quantization import fewest_bits, per_channel, per_tensor
from bench.training import tune_accuracy

registry.load_built_ins()
PACKED = ("affine(4)", "affine('auto')", "power-of-two", "int8-weight-only", "int4-weight-only",
          "binary", "qat", "share-weights(16)")  # fmt: skip


@pytest.fixture
def weight() -> Tensor:
    return torch.randn(24, 40, generator=torch.Generator().manual_seed(0))


def error(coded: Tensor, weight: Tensor) -> float:
    return float(torch.linalg.vector_norm(coded - weight) / torch.linalg.vector_norm(weight))


def apply(technique: str, subject: Subject) -> Subject:
    torch.manual_seed(0)
    made = registry.build("technique", technique, subject)
    assert isinstance(made, Subject)
    return made


def stored(subject: Subject) -> list[StoredLayer]:
    return [layer for layer in subject.module.modules() if isinstance(layer, StoredLayer)]


def test_affine_is_the_formula_of_the_literature() -> None:
    weight = torch.tensor([[-1.0, -0.2, 0.4, 2.0]])
    # (w − min) / (max − min) · (2^2 − 1): 0, 0.8, 1.4, 3 are rounded to 0, 1, 1, 3
    assert torch.allclose(AffineCode(weight, 2, 4)(), torch.tensor([[-1.0, 0.0, 0.0, 2.0]]))
    # with one bit only the ends are left
    assert torch.allclose(AffineCode(weight, 1, 4)(), torch.tensor([[-1.0, -1.0, -1.0, 2.0]]))


@pytest.mark.parametrize("bits", range(1, 9))
def test_no_affine_weight_is_further_off_than_half_a_step(weight: Tensor, bits: int) -> None:
    code = per_tensor(weight, bits)
    step = float(weight.max() - weight.min()) / (2**bits - 1)
    assert float((code() - weight).abs().max()) <= step / 2 + 1e-6
    assert len(code().unique()) <= 2**bits


def test_a_weight_that_is_the_same_everywhere_survives_every_code() -> None:
    for value in (0.0, -3.5):
        same = torch.full((4, 8), value)
        for code in (per_tensor(same, 3), per_channel(same, 3), SharedCode(same, 4)):
            assert torch.allclose(code(), same)
    assert torch.equal(PowerOfTwoCode(torch.zeros(2, 2), 4)(), torch.zeros(2, 2))


def test_a_scale_for_each_channel_or_group_is_nearer_than_one_for_all(weight: Tensor) -> None:
    weight = weight * torch.logspace(-2, 0, 24)[:, None]  # channels of very different size
    whole = error(per_tensor(weight, 4)(), weight)
    channel = error(per_channel(weight, 4)(), weight)
    group = error(SymmetricCode(weight, 4, 8)(), weight)
    assert group < channel < whole
    nearest = error(AffineCode(weight, 4, 8)(), weight)
    short = error(AffineCode(weight, 4, 8, torch.bfloat16)(), weight)
    assert nearest < short < 1.1 * nearest < group


def test_the_scale_of_power_of_two_is_one_and_the_largest_weight_fits(weight: Tensor) -> None:
    code = PowerOfTwoCode(weight, 5)
    quotient = code() / 2.0 ** int(code.exponent)
    assert torch.equal(quotient, quotient.round())
    assert quotient.abs().max() <= 16
    assert error(code(), weight) < 0.2


def test_auto_takes_the_fewest_bits_that_are_near_enough(weight: Tensor) -> None:
    for limit in (0.3, 0.1, 0.03):
        code = fewest_bits(weight, limit)
        assert error(code(), weight) <= limit
        assert error(per_tensor(weight, code.bits - 1)(), weight) > limit
    assert fewest_bits(weight, 1e-9).bits == 8, "eight is the most there is"


def test_auto_with_a_limit_of_accuracy_keeps_it(trained: Callable[[str], Subject]) -> None:
    subject = trained("digits-mlp")
    made = apply("affine('auto', max_loss=0.02)", subject)
    assert tune_accuracy(made) >= tune_accuracy(subject) - 0.02
    assert all(layer.code.bits < 8 for layer in stored(made))
    assert "bits chosen for a relative error of" in made.notes[-1]


def test_binary_weights_are_plus_or_minus_the_mean_of_their_channel(
    trained: Callable[[str], Subject],
) -> None:
    subject = trained("digits-mlp")
    made = apply("binary", subject)
    for layer, before in zip(stored(made), weights_of(subject), strict=True):
        after = layer.decode_weight()
        assert torch.equal(after >= 0, before >= 0)
        expected = before.abs().mean(1, keepdim=True).expand_as(before)
        assert torch.allclose(after.abs(), expected, rtol=1e-3)  # the scale has 16 bits


def weights_of(subject: Subject) -> list[Tensor]:
    layers = (m for m in subject.module.modules() if isinstance(m, nn.Linear | nn.Conv1d))
    return [layer.weight.detach() for layer in layers]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("trained_through", "as_it_is"),
    [
        ("binary(finetune_epochs=5)", "binary"),
        ("qat(2, finetune_epochs=5)", "qat(2, finetune_epochs=0)"),
        ("share-weights(3, finetune_epochs=5)", "share-weights(3)"),
    ],
)
def test_training_with_coded_weights_wins_back_accuracy(
    trained: Callable[[str], Subject], trained_through: str, as_it_is: str
) -> None:
    subject = trained("mnist1d-cnn")
    before = [weight.clone() for weight in weights_of(subject)]
    better, plain = apply(trained_through, subject), apply(as_it_is, subject)
    assert tune_accuracy(better) > tune_accuracy(plain) + 0.05
    assert all(map(torch.equal, before, weights_of(subject))), "the model itself is untouched"
    for one, other in zip(stored(better), stored(plain), strict=True):
        assert one.code.packed.numel() == other.code.packed.numel(), "the same storage"


def test_clusters_are_those_that_scikit_learn_finds_from_the_same_start(weight: Tensor) -> None:
    values = weight.flatten()
    centres, indices = cluster(values, 12)
    assert torch.all(centres.diff() > 0)
    start = torch.linspace(float(values.min()), float(values.max()), 12)[:, None].numpy()
    theirs = KMeans(12, init=start, n_init=1, tol=0, max_iter=10_000).fit(values[:, None].numpy())
    assert theirs.cluster_centers_[:, 0] == pytest.approx(centres.numpy(), rel=1e-4)
    nearest = (values[:, None] - centres).abs().argmin(1)
    assert torch.equal(nearest, indices)


def test_shared_weights_take_as_many_values_as_asked_and_are_no_parameters_of_their_own(
    trained: Callable[[str], Subject],
) -> None:
    made = apply("share-weights(16, finetune_epochs=1)", trained("mnist1d-cnn"))
    for layer in stored(made):
        assert len(layer.decode_weight().unique()) <= 16
        assert layer.code.bits <= 4
        assert not list(layer.code.parameters())


@pytest.mark.parametrize("technique", PACKED)
def test_a_model_without_such_layers_is_refused(technique: str) -> None:
    subject = Subject(nn.Sequential(nn.Tanh(), nn.Flatten()), (torch.ones(2, 3),))
    with pytest.raises(Refusal, match=r"linear layers and convolutions|needs training data"):
        apply(technique, subject)


@pytest.mark.parametrize(
    ("technique", "words"),
    [
        ("affine(9)", "bits must be from 1 to 8, got 9"),
        ("affine(0)", "bits must be from 1 to 8"),
        ("affine('atuo')", "bits must be one of 'auto', got 'atuo'. Did you mean 'auto'"),
        ("affine(2.5)", "bits must be a whole number or 'auto', got 2.5"),
        ("affine('auto', max_loss=2.0)", "max_loss must be from 0 to 1"),
        ("power-of-two(1)", "bits must be from 2 to 8"),
        ("int4-weight-only(0)", "group must be 2 or more"),
        ("binary(-1)", "finetune_epochs must be 0 or more"),
        ("share-weights(0)", "clusters must be from 2 to 256"),
        ("share-weights", "'clusters' is missing"),
        ("qat(16)", "bits must be from 2 to 8"),
    ],
)
def test_wrong_parameters_are_refused_before_anything_is_built(technique: str, words: str) -> None:
    with pytest.raises(SpecError) as raised:
        registry.find("technique", technique)
    assert words in str(raised.value)
