"""Sparse weights: what is stored, and that nothing is lost."""

from collections.abc import Callable

import pytest
import torch
from torch import nn

from bench import Refusal, Subject, registry
from bench.techniques.sparse import SparseCode, SparseLinear, keep_two_of_four
from harness.measure.counts import count_macs
from harness.measure.weights import count_weights


def apply(technique: str, subject: Subject, seed: int = 0) -> Subject:
    torch.manual_seed(seed)
    made: Subject = registry.build("technique", technique, subject)
    return made


def sparse(*shape: int, share: float = 0.9) -> torch.Tensor:
    generator = torch.Generator().manual_seed(0)
    weight = torch.randn(*shape, generator=generator)
    return weight * (torch.rand(*shape, generator=generator) >= share)


@pytest.mark.parametrize("layout", ["csr", "csc"])
@pytest.mark.parametrize("shape", [(7, 5), (16, 3, 5), (4, 3, 3, 3), (1, 1), (3, 70_000)])
def test_a_sparse_weight_comes_back_as_it_was(layout: str, shape: tuple[int, ...]) -> None:
    weight = sparse(*shape)
    assert torch.equal(SparseCode(weight, layout)(), weight)
    assert torch.equal(SparseCode(torch.zeros(shape), layout)(), torch.zeros(shape))


def test_stored_are_values_their_places_and_where_rows_begin() -> None:
    weight = torch.zeros(10, 200)
    weight[3, 5], weight[3, 199], weight[9, 0] = 1.0, 2.0, 3.0
    rows = SparseCode(weight, "csr")
    assert rows.values.tolist() == [1, 2, 3]
    assert rows.places.tolist() == [5, 199, 0]
    assert rows.starts.tolist() == [0, 0, 0, 0, 2, 2, 2, 2, 2, 2, 3]
    assert rows.places.dtype == rows.starts.dtype == torch.uint8
    columns = SparseCode(weight, "csc")
    assert columns.places.tolist() == [9, 3, 3]
    assert len(columns.starts) == 201
    assert SparseCode(torch.ones(2, 300), "csr").places.dtype == torch.int16


def test_nine_of_ten_zeros_store_in_a_fifth_of_the_bytes(
    trained: Callable[[str], Subject],
) -> None:
    subject = apply("prune-magnitude(0.9)", trained("digits-mlp"))
    dense, packed = (
        count_weights(one.module) for one in (subject, apply("sparse-storage", subject))
    )
    assert packed["params"] == dense["params"]
    assert packed["nonzero_params"] == dense["nonzero_params"]
    # 4 + 1 bytes for each tenth weight, and a start of 2 bytes for each row
    assert 0.12 < packed["weight_bytes"] / dense["weight_bytes"] < 0.2


def test_without_zeros_sparse_storage_takes_more(trained: Callable[[str], Subject]) -> None:
    subject = trained("digits-mlp")
    packed = count_weights(apply("sparse-storage", subject).module)
    assert packed["weight_bytes"] > count_weights(subject.module)["weight_bytes"]


@pytest.mark.parametrize("shape", [(5,), (2, 5), (3, 4, 5)])
@pytest.mark.parametrize("bias", [True, False])
def test_a_sparse_linear_layer_gives_the_dense_ones_outputs(
    shape: tuple[int, ...], bias: bool
) -> None:
    layer = nn.Linear(5, 6, bias)
    with torch.no_grad():
        layer.weight.copy_(sparse(6, 5, share=0.5))
    inputs = torch.randn(shape)
    with torch.inference_mode():
        assert torch.allclose(SparseLinear(layer)(inputs), layer(inputs), atol=1e-6)


def test_sparse_kernels_multiply_only_what_is_not_zero(
    trained: Callable[[str], Subject],
) -> None:
    subject = apply("prune-magnitude(0.9)", trained("digits-mlp"))
    made = apply("sparse-kernels", subject)
    weights = [m.weight for m in subject.module.modules() if isinstance(m, nn.Linear)]
    present = sum(int(weight.count_nonzero()) for weight in weights)
    macs, _ = count_macs(made.module, made.inputs)
    assert macs == present
    with torch.no_grad():
        expected = subject.module(*subject.inputs)
        assert torch.allclose(made.module(*made.inputs), expected, atol=1e-4)


def test_sparse_kernels_need_a_linear_layer() -> None:
    with pytest.raises(Refusal, match="this model has none"):
        apply("sparse-kernels", Subject(nn.Conv1d(1, 2, 3), (torch.zeros(1, 1, 8),)))


def test_two_of_each_four_weights_are_kept_the_larger_ones() -> None:
    mask = keep_two_of_four(torch.tensor([[1.0, -3.0, 2.0, 0.5], [0.0, 0.1, -0.2, 0.3]]))
    assert mask.tolist() == [[0, 1, 1, 0], [0, 0, 1, 1]]


def test_two_of_four_stay_zero_through_fine_tuning(trained: Callable[[str], Subject]) -> None:
    made = apply("prune-2-4(finetune_epochs=1)", trained("digits-mlp"))
    for layer in (m for m in made.module.modules() if isinstance(m, nn.Linear)):
        zeros = (layer.weight.detach().reshape(-1, 4) == 0).sum(1)
        assert (zeros >= 2).all()
