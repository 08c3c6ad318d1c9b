"""Traffic against closed forms: bytes, operators and types."""

import math
import warnings
from collections.abc import Callable
from typing import Any

import pytest
import torch
from hypothesis import assume, given
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.testing._internal.two_tensor import TwoTensor

from bench import registry
from bench.techniques.precision import bf16, int8_dynamic
from harness.measure.roofline import Traffic
from harness.measure.traffic import count_traffic

registry.load_built_ins()

BATCH, WIDE, NARROW = 4, 30, 20


class Calls(nn.Module):
    """A module that calls a function."""

    def __init__(self, call: Callable[..., Any]) -> None:
        super().__init__()
        self.call = call

    def forward(self, *inputs: Tensor) -> Any:
        return self.call(*inputs)


def traffic_of(call: Callable[..., Any], *inputs: Tensor) -> Traffic:
    return count_traffic(Calls(call), inputs)


def quantize(module: nn.Module, kinds: set[Any], dtype: torch.dtype = torch.qint8) -> nn.Module:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return torch.ao.quantization.quantize_dynamic(nn.Sequential(module).eval(), kinds, dtype)


def test_a_linear_layer_reads_inputs_weights_and_bias_and_writes_its_outputs() -> None:
    found = count_traffic(nn.Linear(WIDE, NARROW), (torch.ones(BATCH, WIDE),))
    elements = WIDE * BATCH + WIDE * NARROW + NARROW + NARROW * BATCH
    flops = 2 * BATCH * WIDE * NARROW
    assert found == Traffic(4 * elements, 1, {"float32": flops})


def test_a_convolution_reads_inputs_and_weights_and_writes_its_outputs() -> None:
    module = nn.Conv2d(3, 8, 5, padding=2, bias=False)
    elements = 2 * 3 * 100 + 3 * 8 * 25 + 2 * 8 * 100
    found = count_traffic(module, (torch.ones(2, 3, 10, 10),))
    assert found == Traffic(4 * elements, 1, {"float32": 2 * 2 * 8 * 100 * 3 * 25})


def test_an_addition_reads_and_writes_every_element_and_multiplies_nothing() -> None:
    assert traffic_of(lambda x: x + 1, torch.ones(100)) == Traffic(800, 1, {})


def test_an_operator_in_place_reads_and_writes_the_same_memory() -> None:
    assert count_traffic(nn.ReLU(inplace=True), (torch.ones(100),)) == Traffic(800, 1, {})


def test_an_output_that_is_given_is_written_and_not_read() -> None:
    target = torch.ones(100)
    assert traffic_of(lambda x: torch.neg(x, out=target), torch.ones(100)) == Traffic(800, 1, {})
    assert traffic_of(target.copy_, torch.ones(100)) == Traffic(800, 1, {})


def test_views_and_unwritten_memory_cost_nothing() -> None:
    assert traffic_of(lambda x: x.view(2, 50).t()[:10].unsqueeze(0), torch.ones(100)) == Traffic(
        0, 0, {}
    )
    assert traffic_of(torch.empty_like, torch.ones(100)) == Traffic(0, 0, {})
    assert count_traffic(nn.Flatten(), (torch.ones(2, 3, 4),)) == Traffic(0, 0, {})


def test_a_copy_is_no_view() -> None:
    assert traffic_of(lambda x: x.t().contiguous(), torch.ones(10, 10)) == Traffic(800, 1, {})


def test_a_tensor_that_occurs_twice_is_read_once() -> None:
    assert traffic_of(lambda x: x * x, torch.ones(100)).bytes_moved == 800
    assert traffic_of(lambda x: x * x.clone(), torch.ones(100)).bytes_moved == 800 + 1200
    assert traffic_of(lambda x: x @ x.t(), torch.ones(10, 10)).bytes_moved == 800


def test_expanded_dimensions_are_the_same_memory_again() -> None:
    found = traffic_of(lambda x: x.expand(50, 10) + 1, torch.ones(1, 10))
    assert found.bytes_moved == 4 * (10 + 500)


def test_a_look_up_reads_what_it_writes_and_not_the_whole_table() -> None:
    found = count_traffic(nn.Embedding(1000, 16), (torch.arange(5),))
    assert found == Traffic(5 * 8 + 2 * 4 * 5 * 16, 1, {})


@pytest.mark.parametrize("kind", ["sum", "mean", "max"])
def test_a_bag_of_words_reads_the_rows_that_it_adds_up(kind: str) -> None:
    words = torch.arange(6).view(2, 3)
    found = [count_traffic(nn.EmbeddingBag(size, 16, mode=kind), (words,)) for size in (1000, 2000)]
    assert found[0].bytes_moved == found[1].bytes_moved
    assert 4 * 16 * (6 + 2) <= found[0].bytes_moved < 4 * 16 * (6 + 2) + 2 * 16 * 16


def test_a_table_that_is_quantized_is_looked_up_row_by_row() -> None:
    words, starts = torch.arange(5), torch.tensor([0, 2])
    table = torch.ao.nn.quantized.Embedding(1000, 16)
    assert count_traffic(table, (words,)) == Traffic(5 * 8 + 5 * 16 + 4 * 5 * 16, 1, {})
    bag = torch.ao.nn.quantized.EmbeddingBag(1000, 16)
    found = count_traffic(bag, (words, starts))
    assert found == Traffic(5 * 8 + 2 * 8 + 5 * 16 + 4 * 2 * 16, 1, {})


SLOT, PLACES = torch.tensor([5, 2]), torch.tensor([[5, 2], [1, 0]])
PAIR, SQUARE, COLUMNS = torch.ones(2, 8), torch.ones(2, 2), torch.ones(100, 2)
ODD = torch.arange(100) % 50 == 1
IN_PARTS: dict[str, tuple[Callable[[Tensor], Any], int]] = {
    "index_copy_": (lambda x: x.index_copy_(0, SLOT, PAIR), 2 * 8 + 4 * 2 * 16),
    "index_copy_ of columns": (lambda x: x.index_copy_(1, SLOT, COLUMNS),
                               2 * 8 + 4 * 2 * 200),
    "index_fill_": (lambda x: x.index_fill_(0, SLOT, 1.0), 2 * 8 + 4 * 16),
    "index_put_": (lambda x: x.index_put_((SLOT,), PAIR), 2 * 8 + 4 * 2 * 16),
    "index_put_ of one number": (lambda x: x.__setitem__((SLOT, SLOT), PAIR[0, :2]),
                                 2 * 8 + 4 * 2 * 2),
    "index_put_ of columns": (lambda x: x.__setitem__((slice(None), SLOT), COLUMNS),
                              2 * 8 + 4 * 2 * 200),
    "index_put_ where it is so": (lambda x: x.index_put_((ODD,), PAIR), 100 + 4 * 2 * 16),
    "index_put_ added": (lambda x: x.index_put_((SLOT,), PAIR, accumulate=True),
                         2 * 8 + 4 * 3 * 16),
    "index_add_": (lambda x: x.index_add_(0, SLOT, PAIR), 2 * 8 + 4 * 3 * 16),
    "index_reduce_": (lambda x: x.index_reduce_(0, SLOT, PAIR, "amax"), 2 * 8 + 4 * 3 * 16),
    "scatter_": (lambda x: x.scatter_(0, PLACES, SQUARE), 4 * 8 + 4 * 2 * 4),
    "scatter_ of a number": (lambda x: x.scatter_(0, PLACES, 1.0), 4 * 8 + 4 * 4),
    "scatter_ added": (lambda x: x.scatter_(0, PLACES, SQUARE, reduce="add"),
                       4 * 8 + 4 * 3 * 4),
    "scatter_add_": (lambda x: x.scatter_add_(0, PLACES, SQUARE), 4 * 8 + 4 * 3 * 4),
    "scatter_reduce_": (lambda x: x.scatter_reduce_(0, PLACES, SQUARE, "amax"),
                        4 * 8 + 4 * 3 * 4),
    "put_": (lambda x: x.put_(SLOT, PAIR[0, :2]), 2 * 8 + 4 * 2 * 2),
    "put_ added": (lambda x: x.put_(SLOT, PAIR[0, :2], accumulate=True), 2 * 8 + 4 * 3 * 2),
    "masked_scatter_": (lambda x: x.masked_scatter_(ODD[:, None], PAIR), 100 + 4 * 2 * 16),
    "fill_diagonal_": (lambda x: x.fill_diagonal_(1.0), 4 * 8),
    "a slice": (lambda x: x[5:7].copy_(PAIR), 4 * 2 * 16),
    "take": (lambda x: x.take(SLOT), 2 * 8 + 4 * 2 * 2),
}  # fmt: skip


@pytest.mark.parametrize("name", IN_PARTS)
def test_of_a_large_tensor_what_is_touched_is_moved(name: str) -> None:
    call, wanted = IN_PARTS[name]
    assert traffic_of(call, torch.zeros(100, 8)).bytes_moved == wanted


@given(
    shape=st.lists(st.integers(1, 5), min_size=1, max_size=4),
    data=st.data(),
    adds=st.booleans(),
)
def test_what_is_put_into_a_tensor_moves_what_would_be_taken_from_it(
    shape: list[int], data: st.DataObject, adds: bool
) -> None:
    table = torch.zeros(shape)
    many = data.draw(st.integers(0, 3))
    kinds = data.draw(st.lists(st.sampled_from(["all", "some", "mask"]), max_size=len(shape)))
    index = [
        {"all": None, "some": torch.arange(many) % size, "mask": torch.arange(size) < many}[kind]
        for kind, size in zip(kinds, shape, strict=False)
    ]
    found = [one for one in index if one is not None]
    lengths = {int(one.sum()) if one.dtype is torch.bool else many for one in found}
    assume(found and len(lengths) == 1)
    part = torch.ops.aten.index(table, index)
    moved = traffic_of(lambda x: torch.ops.aten.index_put_(x, index, part, adds), table).bytes_moved
    names = sum({one.data_ptr(): one.nbytes for one in found if one.numel()}.values())
    touched = min(part.nbytes, table.nbytes)
    assert moved == names + part.nbytes + touched * (2 if adds else 1)


def test_a_sparse_product_reads_the_values_that_are_stored() -> None:
    weight = torch.eye(8).to_sparse_csr()
    found = traffic_of(lambda x: weight @ x, torch.ones(8, 3))
    assert found == Traffic(8 * (9 + 8) + 4 * 8 + 2 * 4 * 24, 1, {"float32": 2 * 8 * 3})


def test_a_quantized_layer_reads_a_byte_a_weight_and_multiplies_in_int8() -> None:
    found = count_traffic(
        quantize(nn.Linear(WIDE, NARROW), {nn.Linear}), (torch.ones(BATCH, WIDE),)
    )
    weights = WIDE * NARROW + 4 * NARROW
    flops = 2 * BATCH * WIDE * NARROW
    assert found == Traffic(4 * BATCH * (WIDE + NARROW) + weights, 1, {"int8": flops})


def test_a_layer_with_half_precision_weights_is_not_taken_for_int8() -> None:
    module = quantize(nn.Linear(WIDE, NARROW), {nn.Linear}, torch.float16)
    assert count_traffic(module, (torch.ones(BATCH, WIDE),)).dtypes == ("float32",)


def test_a_quantized_recurrent_layer_is_seen_through_its_packed_cells() -> None:
    sequence = torch.randn(5, 2, WIDE)
    plain = count_traffic(nn.LSTM(WIDE, NARROW), (sequence,))
    packed = count_traffic(quantize(nn.LSTM(WIDE, NARROW), {nn.LSTM}), (sequence,))
    weights = 4 * NARROW * (WIDE + NARROW)
    assert plain.dtypes == ("float32",)
    assert packed.dtypes == ("int8",)
    assert weights < packed.bytes_moved < plain.bytes_moved - 2 * weights


def test_fused_attention_is_one_operator_whose_products_never_reach_memory() -> None:
    heads = torch.randn(3, 2, 4, 10, 8).unbind()
    found = traffic_of(nn.functional.scaled_dot_product_attention, *heads)
    outside = 4 * 4 * heads[0].numel()
    sums = 4 * 2 * 4 * 10  # of the exponentials, kept for a backward pass
    assert found == Traffic(outside + sums, 1, {"float32": 2 * 2 * 4 * 2 * 10 * 10 * 8})


def test_a_mask_is_no_factor() -> None:
    heads = torch.randn(3, 2, 4, 10, 8).unbind()
    mask = torch.ones(10, 10, dtype=torch.bool)
    found = traffic_of(nn.functional.scaled_dot_product_attention, *heads, mask)
    assert found.dtypes == ("float32",)


def test_an_encoder_layer_that_torch_fuses_is_counted_as_it_runs() -> None:
    layer = nn.TransformerEncoderLayer(16, 2, 64, batch_first=True).eval()
    found = count_traffic(layer, (torch.ones(2, 5, 16),))
    weights = sum(parameter.numel() for parameter in layer.parameters())
    assert (found.bytes_moved, found.operators) == (4 * (weights + 2 * 2 * 5 * 16), 1)
    assert found.dtypes == ("float32",)
    assert math.isnan(found.products["float32"]), "what it computes inside is not seen here"


def test_weights_in_int8_beside_floats_are_multiplied_as_floats() -> None:
    """In sizes that torch's kernel takes: it crashes with others."""
    weight = torch.ones(32, 64, dtype=torch.int8)
    scales, rows = (torch.ones(*shape, dtype=torch.bfloat16) for shape in ((32,), (4, 64)))
    found = traffic_of(lambda x: torch._weight_int8pack_mm(x, weight, scales), rows)
    assert found.products == {"bfloat16": 2 * 4 * 64 * 32}


def test_factors_in_int8_are_multiplied_in_int8_and_their_layer_in_floats_stays_apart() -> None:
    """Half of a model quantized: each product is of its own type."""
    layer = nn.Linear(WIDE, WIDE, bias=False)
    both = nn.Sequential(quantize(nn.Linear(WIDE, WIDE), {nn.Linear}), layer, layer)
    found = count_traffic(both, (torch.ones(BATCH, WIDE),))
    one = 2 * BATCH * WIDE * WIDE
    assert found.products == {"int8": one, "float32": 2 * one}


def test_a_tensor_made_of_others_is_counted_by_what_it_is_made_of() -> None:
    pair = TwoTensor(torch.ones(10), torch.ones(10))
    assert traffic_of(lambda x: x + 1, pair) == Traffic(160, 2, {})


def test_traffic_grows_with_the_batch_by_the_activations_only() -> None:
    subject = registry.build("model", "digits-mlp")
    one, two, three = (
        count_traffic(subject.module, (subject.inputs[0][:batch],)).bytes_moved
        for batch in (1, 2, 3)
    )
    weights = 4 * sum(parameter.numel() for parameter in subject.module.parameters())
    assert three - two == two - one > 0
    assert one - (two - one) == weights


@pytest.mark.slow
@pytest.mark.parametrize("model", ["digits-mlp", "mnist1d-cnn", "mnist1d-transformer"])
def test_the_models_are_counted_in_every_precision(model: str) -> None:
    subject = registry.build("model", model)
    plain = count_traffic(subject.module, subject.inputs)
    half = count_traffic(bf16(subject).module, subject.inputs)
    packed = count_traffic(int8_dynamic(subject).module, subject.inputs)
    assert plain.dtypes == ("float32",)
    assert half.dtypes == ("bfloat16",)
    assert set(packed.dtypes) <= {"int8", "float32"}
    assert "int8" in packed.dtypes
    assert half.operators == plain.operators + 2, "the two conversions"
    assert packed.operators == plain.operators
    assert 0.5 < half.bytes_moved / plain.bytes_moved < 0.7
    assert packed.bytes_moved < plain.bytes_moved


def test_what_multiplies_nothing_computes_in_no_type() -> None:
    words = nn.EmbeddingBag(10, 4)
    module = nn.Sequential(words, nn.Linear(4, 4).bfloat16())
    module[1].register_forward_pre_hook(lambda _, given: (given[0].bfloat16(),))
    assert count_traffic(module, (torch.arange(6).view(2, 3),)).dtypes == ("bfloat16",)


def test_nothing_is_known_of_a_call_that_fails_only_where_its_operators_are_seen() -> None:
    def unseen(x: Tensor) -> Tensor:
        if torch._C._len_torch_dispatch_stack():
            raise RuntimeError("as a compiler that sees a mode")
        return x + 1

    found = traffic_of(unseen, torch.ones(2))
    assert math.isnan(found.bytes_moved)
    assert found.dtypes == ()
    with pytest.raises(ValueError, match="its own"):
        traffic_of(lambda x: (_ for _ in ()).throw(ValueError("its own")), torch.ones(2))
