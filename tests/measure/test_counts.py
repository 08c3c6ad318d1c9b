"""Counts against closed forms."""

import copy
import gc
import math
import warnings
import weakref
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any, get_args

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from bench.subject import Optimizer, Recipe
from harness.measure.counts import count_macs
from harness.measure.macs import MacCounter, count_call
from harness.measure.runtimes import TrainingStep
from harness.measure.weights import count_weights, disk_bytes


def test_a_linear_layer_has_in_times_out_macs_and_a_bias() -> None:
    module = nn.Linear(30, 20)
    assert count_macs(module, (torch.ones(4, 30),)) == (30 * 20, [])
    counted = count_weights(module)
    assert counted["params"] == 30 * 20 + 20
    assert counted["weight_bytes"] == 4 * (30 * 20 + 20)


@pytest.mark.parametrize(("stride", "groups"), [(1, 1), (2, 1), (1, 4)])
def test_a_convolution_has_kernel_times_outputs_macs(stride: int, groups: int) -> None:
    module = nn.Conv2d(8, 16, 3, stride=stride, padding=1, groups=groups, bias=False)
    side = 12 // stride
    macs, uncounted = count_macs(module, (torch.ones(2, 8, 12, 12),))
    assert macs == side * side * 16 * (8 // groups) * 9
    assert uncounted == []
    assert count_weights(module)["params"] == 16 * (8 // groups) * 9


def test_a_one_dimensional_convolution_is_counted() -> None:
    macs, _ = count_macs(nn.Conv1d(3, 5, 7, padding=3), (torch.ones(1, 3, 40),))
    assert macs == 40 * 5 * 3 * 7


@pytest.mark.parametrize("written", ["torch", "by hand"])
def test_attention_has_four_projections_and_two_products(written: str) -> None:
    width, tokens = 32, 10

    class Attention(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner = nn.MultiheadAttention(width, 4, batch_first=True)
            self.layers = nn.ModuleList(nn.Linear(width, width) for _ in range(4))

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            if written == "torch":
                return self.inner(x, x, x, need_weights=False)[0]
            q, k, v = (layer(x).unflatten(-1, (4, -1)).transpose(1, 2) for layer in self.layers[:3])
            mixed = nn.functional.scaled_dot_product_attention(q, k, v)
            return self.layers[3](mixed.transpose(1, 2).flatten(-2))

    macs, _ = count_macs(Attention(), (torch.ones(3, tokens, width),))
    assert macs == 4 * tokens * width * width + 2 * tokens * tokens * width


def test_an_encoder_layer_is_counted_although_torch_would_fuse_it() -> None:
    module = nn.TransformerEncoderLayer(16, 2, 64, batch_first=True).eval()
    macs, uncounted = count_macs(module, (torch.ones(1, 5, 16),))
    assert macs == 4 * 5 * 16 * 16 + 2 * 5 * 5 * 16 + 2 * 5 * 16 * 64
    assert uncounted == []
    assert torch.backends.mha.get_fastpath_enabled()


class Calls(nn.Module):
    """Calls a function of its inputs and of one matrix."""

    def __init__(self, call: Callable[..., torch.Tensor], *shape: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(shape))
        self.call = call

    def forward(self, *inputs: torch.Tensor) -> torch.Tensor:
        return self.call(*inputs, self.weight)


def recurrent(kind: Callable[..., nn.Module], **options: Any) -> nn.Module:
    return kind(6, 5, batch_first=True, **options)


ROWS = torch.randn(2, 7, 6)
CLOSED_FORMS: dict[str, tuple[nn.Module, tuple[torch.Tensor, ...], int]] = {
    "lstm": (recurrent(nn.LSTM), (ROWS,), 7 * 4 * 5 * (6 + 5)),
    "gru": (recurrent(nn.GRU), (ROWS,), 7 * 3 * 5 * (6 + 5)),
    "rnn": (recurrent(nn.RNN), (ROWS,), 7 * 5 * (6 + 5)),
    "two layers, both directions": (
        recurrent(nn.LSTM, num_layers=2, bidirectional=True), (ROWS,),
        7 * 2 * 4 * 5 * (6 + 5) + 7 * 2 * 4 * 5 * (10 + 5),
    ),
    "projected lstm": (
        recurrent(nn.LSTM, proj_size=3), (ROWS,), 7 * (4 * 5 * (6 + 3) + 3 * 5),
    ),
    "lstm cell": (nn.LSTMCell(6, 5), (torch.randn(2, 6),), 4 * 5 * (6 + 5)),
    "matrix times vector": (Calls(torch.matmul, 6), (ROWS,), 7 * 6),
    "vector times vector": (
        Calls(lambda x, w: torch.dot(x[0], w)[None], 6), (torch.randn(2, 6),), 6,
    ),
    "bilinear": (nn.Bilinear(6, 4, 3), (torch.randn(2, 6), torch.randn(2, 4)), 6 * 4 * 3),
    "einsum": (Calls(lambda x, w: torch.einsum("bti,io->bto", x, w), 6, 9), (ROWS,), 7 * 6 * 9),
    "conv_tbc": (
        Calls(lambda x, w: torch.conv_tbc(x.transpose(0, 1), w, torch.zeros(9)), 3, 6, 9),
        (ROWS,), (7 - 2) * 9 * 3 * 6,
    ),
    "transposed": (nn.ConvTranspose1d(6, 4, 3, bias=False), (ROWS.mT,), 6 * 7 * 4 * 3),
    "conv3d": (nn.Conv3d(1, 2, 3, bias=False), (torch.randn(1, 1, 5, 5, 5),), 27 * 2 * 27),
    "addbmm": (
        Calls(lambda x, w: torch.addbmm(torch.zeros(7, 9), x, w[: len(x)]), 2, 6, 9),
        (ROWS,), 7 * 6 * 9,
    ),
    "sparse": (
        Calls(lambda x, w: torch.mm(torch.eye(6).to_sparse_csr(), x[0].mT), 1), (ROWS,), 6 * 7,
    ),
    "fused attention": (
        Calls(lambda x, w: nn.functional.scaled_dot_product_attention(x, x, x), 1), (ROWS,),
        2 * 7 * 7 * 6,
    ),
    "distances": (Calls(torch.cdist, 9, 6), (ROWS,), 7 * 9 * 6),
    "distances by products": (Calls(torch.cdist, 40, 6), (torch.randn(2, 30, 6),), 30 * 40 * 6),
    "distances by sizes": (Calls(lambda x, w: torch.cdist(x, w, p=1), 9, 6), (ROWS,), 0),
    "a bag of weighted words": (
        Calls(lambda x, w: nn.functional.embedding_bag(
            torch.arange(7)[None], w, per_sample_weights=x[:1, :, 0], mode="sum"), 9, 5),
        (ROWS,), 7 * 5,
    ),
    "groups of rows": (
        Calls(lambda x, w: torch._grouped_mm(
            x.bfloat16(), w.bfloat16(), offs=torch.tensor([8, 16], dtype=torch.int32)), 2, 8, 24),
        (torch.randn(16, 8),), 8 * 24,
    ),
    "groups of columns": (
        Calls(lambda x, w: torch._grouped_mm(
            w.bfloat16(), x[0].mT.bfloat16(), offs=torch.tensor([8, 24], dtype=torch.int32)),
            2, 16, 8),
        (torch.randn(2, 24, 8),), 16 * 8 * 24,
    ),
    "a bag of words": (
        Calls(lambda x, w: nn.functional.embedding_bag(torch.arange(7)[None], w), 9, 5), (ROWS,), 0,
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", CLOSED_FORMS)
def test_whatever_multiplies_is_counted(name: str) -> None:
    module, inputs, wanted = CLOSED_FORMS[name]
    assert count_macs(module, inputs) == (wanted, [])


@torch.library.custom_op("paretogrid_test::twice", mutates_args=())
def twice(x: torch.Tensor) -> torch.Tensor:
    return x * 2


@pytest.mark.parametrize(
    ("call", "name"),
    [
        (lambda x, w: twice(x @ w), "paretogrid_test.twice"),
        (lambda x, w: torch.fft.fft(x @ w).real, "aten._fft_r2c"),
        (lambda x, w: torch.linalg.inv(x @ w @ w.mT + torch.eye(6)), "aten.linalg_inv_ex"),
    ],
)
def test_an_operator_without_a_formula_empties_the_count_and_is_named(
    call: Callable[..., torch.Tensor], name: str
) -> None:
    macs, uncounted = count_macs(Calls(call, 6, 6), (torch.randn(2, 6, 6),))
    assert math.isnan(macs)
    assert name in uncounted


HARMLESS = nn.Sequential(
    nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.GELU(), nn.MaxPool2d(2), nn.Hardswish(),
    nn.GroupNorm(2, 8), nn.Upsample(scale_factor=2, mode="bilinear"), nn.AdaptiveAvgPool2d(2),
    nn.Dropout(), nn.LocalResponseNorm(2), nn.PixelShuffle(2), nn.Flatten(), nn.LayerNorm(32),
    nn.Softmax(-1), nn.PReLU(), nn.RMSNorm(32), nn.GLU(), nn.Softplus(),
)  # fmt: skip


def test_harmless_operators_are_not_listed_among_the_uncounted() -> None:
    _, uncounted = count_macs(HARMLESS.eval(), (torch.randn(2, 3, 12, 12),))
    assert uncounted == []


def test_a_quantized_layer_keeps_its_counts_and_shrinks_its_bytes() -> None:
    plain = nn.Sequential(nn.Linear(64, 32), nn.ReLU(), nn.Linear(32, 10))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        quantized = torch.ao.quantization.quantize_dynamic(plain, {nn.Linear}, torch.qint8)
    before, after = count_weights(plain), count_weights(quantized)
    assert after["params"] == before["params"] == 64 * 32 + 32 + 32 * 10 + 10
    assert after["weight_bytes"] < 0.35 * before["weight_bytes"]
    inputs = (torch.randn(2, 64),)
    assert count_macs(quantized, inputs)[0] == count_macs(plain, inputs)[0] == 64 * 32 + 320


def quantize(module: nn.Module, dtype: torch.dtype) -> nn.Module:
    whole = nn.Sequential(module).eval()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return torch.ao.quantization.quantize_dynamic(whole, {type(module)}, dtype)


@pytest.mark.parametrize("dtype", [torch.qint8, torch.float16])
@pytest.mark.parametrize("layers", [1, 3])
@pytest.mark.parametrize("both", [False, True])
@pytest.mark.parametrize("kind", [nn.LSTM, nn.GRU])
def test_a_quantized_recurrent_layer_has_the_products_of_a_plain_one(
    kind: Callable[..., nn.Module], both: bool, layers: int, dtype: torch.dtype
) -> None:
    plain = kind(6, 5, num_layers=layers, bidirectional=both, batch_first=True)
    several = nn.utils.rnn.pack_sequence([torch.randn(n, 6) for n in (7, 4, 1)])
    gates = {nn.LSTM: 4, nn.GRU: 3}[kind]
    weights = gates * 5 * (1 + both) * (6 + (layers - 1) * 5 * (1 + both) + layers * 5)
    for rows, steps in ((torch.randn(1, 7, 6), 7), (several, 7 + 4 + 1)):
        for module in (plain, quantize(plain, dtype)):
            call = Calls(partial(lambda run, rows, *_: run(rows)[0], module, rows), 1)
            assert count_macs(call, (ROWS,)) == (steps * weights, [])


@pytest.mark.parametrize("dtype", [torch.qint8, torch.float16])
@pytest.mark.parametrize("kind", [nn.LSTMCell, nn.GRUCell, nn.RNNCell, nn.Linear])
def test_a_quantized_cell_has_the_products_of_a_plain_one(
    kind: Callable[..., nn.Module], dtype: torch.dtype
) -> None:
    plain = kind(6, 5)
    inputs = (torch.randn(2, 6),)
    assert count_macs(quantize(plain, dtype), inputs) == count_macs(plain, inputs)


def test_a_quantized_convolution_has_the_products_of_a_plain_one_whichever_way_it_goes() -> None:
    inputs, scale = torch.randn(1, 4, 9, 9), 0.1
    quantized = torch.quantize_per_tensor(inputs, scale, 0, torch.quint8)
    for kind in ("Conv2d", "ConvTranspose2d"):
        options = {"stride": 2, "groups": 2, "bias": False}
        plain = getattr(nn, kind)(4, 6, 3, **options)
        packed = getattr(torch.ao.nn.quantized, kind)(4, 6, 3, **options)
        assert count_macs(packed, (quantized,)) == count_macs(plain, (inputs,))


def test_rows_of_a_quantized_table_are_looked_up_and_multiply_nothing() -> None:
    words = torch.arange(6).view(2, 3)
    for table in (torch.ao.nn.quantized.Embedding, torch.ao.nn.quantized.EmbeddingBag):
        assert count_macs(table(10, 16), (words,)) == (0, [])
    bag = torch.ao.nn.quantized.EmbeddingBag(10, 16)
    weighted = Calls(lambda x, w: bag(words, per_sample_weights=torch.ones(2, 3)), 1)
    assert count_macs(weighted, (words,)) == (6 * 16, [])


def test_zeros_are_counted_and_tied_weights_once() -> None:
    module = nn.Sequential(nn.Linear(10, 10, bias=False), nn.Linear(10, 10, bias=False))
    module[1].weight = module[0].weight
    with torch.no_grad():
        module[0].weight.fill_(1)
        module[0].weight[:3] = 0
    counted = count_weights(module)
    assert counted["params"] == 100
    assert counted["nonzero_params"] == 70


def test_the_file_holds_the_weights_and_little_more() -> None:
    module = nn.Linear(500, 500)
    assert 0 < disk_bytes(module) - count_weights(module)["weight_bytes"] < 4096


@pytest.mark.parametrize("optimizer", get_args(Optimizer))
def test_a_training_step_is_counted_whatever_its_optimizer(optimizer: Optimizer) -> None:
    layers = (nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.Hardswish(), nn.MaxPool2d(2), nn.Flatten(),
              nn.LayerNorm(200), nn.Linear(200, 64), nn.GELU(), nn.Linear(64, 10))  # fmt: skip
    recipe = Recipe(epochs=1, optimizer=optimizer, l1=1e-4, l2=1e-4, dropout=0.1)
    step = TrainingStep(nn.Sequential(*layers), recipe, torch.arange(8) % 10)
    macs, uncounted = count_macs(step, (torch.randn(8, 3, 12, 12),))
    assert uncounted == []
    assert macs == 2 * (100 * 8 * 27) + 3 * (200 * 64 + 64 * 10)


@pytest.mark.parametrize(
    ("layer", "forward"),
    [
        (nn.Conv2d(8, 8, 3, groups=8, bias=False), 100 * 8 * 9),
        (nn.Conv2d(8, 16, 3, groups=2, bias=False), 100 * 16 * 4 * 9),
        (nn.ConvTranspose2d(8, 8, 3, groups=4, bias=False), 144 * 8 * 2 * 9),
    ],
)
def test_a_grouped_convolution_has_its_forward_products_for_each_gradient(
    layer: nn.Module, forward: int
) -> None:
    module = nn.Sequential(layer, nn.Flatten(), nn.LazyLinear(10, bias=False))
    inputs = torch.randn(4, 8, 12, 12)
    flat = module(inputs).numel() and module[2].in_features
    step = TrainingStep(module, Recipe(epochs=1), torch.arange(4))
    assert count_macs(step, (inputs,)) == (2 * forward + 3 * 10 * flat, [])


def in_a_thread(x: torch.Tensor, w: torch.Tensor) -> torch.Tensor:
    with ThreadPoolExecutor(1) as pool:
        return pool.submit(torch.matmul, x, w).result()


@pytest.mark.parametrize(
    "call",
    [
        in_a_thread,
        lambda x, w: in_a_thread(x, w) + 1,
        lambda x, w: torch.from_numpy(np.array([[v.item() for v in row] for row in x])),
        lambda x, w: torch.sparse.mm(w.to_sparse(), w.to_sparse()).to_dense(),
        lambda x, w: (torch.tensor(0.0), torch.tensor(x.tolist())),
    ],
)
def test_what_the_counter_cannot_see_empties_the_count(
    call: Callable[..., torch.Tensor],
) -> None:
    macs, uncounted = count_macs(Calls(call, 6, 6), (torch.randn(2, 6),))
    assert math.isnan(macs)
    assert uncounted


@pytest.mark.parametrize(
    ("call", "wanted"),
    [
        (lambda x, w: torch.mm(x, w, out=torch.empty(len(x), 6)), 36),
        (lambda x, w: torch.addmm(torch.ones(6), x, w, beta=2.0), 36),
        (
            lambda x, w: torch.baddbmm(torch.ones(6), x[:, None], w.expand(len(x), 6, 6), alpha=2),
            36,
        ),
        (lambda x, w: torch.sparse.mm(torch.eye(6).to_sparse(), w @ x.mT), 36 + 6),
        (lambda x, w: x @ torch.tensor([[0.5] * 6] * 6), 36),
        (lambda x, w: x @ torch.full((6, 6), float(x.tolist()[0][0])), 36),
        (lambda x, w: (x @ w, torch.tensor(0.0)), 36),
        (lambda x, w: (torch.tensor(0.0), {"scores": x @ w, "classes": torch.tensor([1, 2])}), 36),
        (lambda x, w: [(x @ w).to_sparse(), torch.tensor([])][0], 36),
        (lambda x, w: None if (x @ w).is_sparse else (), 36),
    ],
)
def test_arguments_by_name_and_constants_are_no_obstacle(
    call: Callable[..., torch.Tensor], wanted: int
) -> None:
    assert count_macs(Calls(call, 6, 6), (torch.randn(2, 6),)) == (wanted, [])


@pytest.mark.parametrize("weighted", [False, True])
def test_a_bag_of_words_multiplies_in_training_where_its_words_have_weights(weighted: bool) -> None:
    """The sum, the slope of the table's rows and that of their weights."""

    class Bag(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.table = nn.EmbeddingBag(20, 4, mode="sum")
            self.weights = nn.Parameter(torch.ones(3, 5))

        def forward(self, words: Tensor) -> Tensor:
            return self.table(words, per_sample_weights=self.weights if weighted else None)

    step = TrainingStep(Bag(), Recipe(epochs=1), torch.arange(3))
    macs, uncounted = count_macs(step, (torch.arange(15).reshape(3, 5),))
    assert uncounted == []
    assert macs == (3 * 5 * 4 if weighted else 0)


def test_a_recurrent_training_step_has_twice_its_forward_products_backward() -> None:
    class Last(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner, self.head = nn.LSTM(6, 5, batch_first=True), nn.Linear(5, 2)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.head(self.inner(x)[0][:, -1])

    step = TrainingStep(Last(), Recipe(epochs=1), torch.arange(8) % 2)
    assert count_macs(step, (torch.randn(8, 7, 6),)) == (3 * (7 * 4 * 5 * 11 + 10), [])


class ByNumPy(nn.Module):
    """A runtime of another library behind PyTorch's interface."""

    def __init__(self, way: str) -> None:
        super().__init__()
        self.way = way

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if self.way == "numpy":
            return torch.from_numpy(x.numpy() @ np.ones((6, 6), np.float32))
        if self.way == "array":
            return torch.from_numpy(np.asarray(x) @ np.ones((6, 6), np.float32))
        return torch.from_numpy(np.array([[2.0 * value for value in row] for row in x.tolist()]))


@pytest.mark.parametrize("way", ["numpy", "array", "list"])
def test_what_is_computed_outside_pytorch_empties_the_count(way: str) -> None:
    macs, uncounted = count_macs(ByNumPy(way), (torch.randn(2, 6),))
    assert math.isnan(macs)
    assert uncounted[0].startswith("outside PyTorch")


def test_a_copy_that_pytorch_makes_leaves_nothing() -> None:
    class Copying(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = nn.Linear(4, 4, bias=False)

        def forward(self, inputs: Tensor) -> Tensor:
            return self.layer(copy.deepcopy(inputs))

    assert count_macs(Copying(), (torch.randn(1, 4),)) == (16, [])


def test_a_counter_does_not_live_as_long_as_the_tensors_that_it_knew() -> None:
    module, inputs = nn.Linear(4, 4), torch.ones(1, 4)
    counter = MacCounter()
    count_call(counter, module, (inputs,))
    with pytest.raises(RuntimeError):
        count_call(counter, module, (torch.ones(1, 5),))
    gone = weakref.ref(counter)
    del counter
    gc.collect()
    assert gone() is None


class Weighs(nn.Module):
    """A model that multiplies elements, with weights of a row and of a matrix."""

    def __init__(self, how: Callable[[Tensor, Tensor, Tensor], Tensor]) -> None:
        super().__init__()
        self.how = how
        self.row, self.matrix = nn.Parameter(torch.randn(16)), nn.Parameter(torch.randn(16, 8))

    def forward(self, x: Tensor) -> Tensor:
        return self.how(x, self.row, self.matrix)


@pytest.mark.parametrize(
    "how",
    [
        lambda x, row, matrix: x @ matrix,
        lambda x, row, matrix: (x[:, :, None] * matrix).sum(1),
        lambda x, row, matrix: (matrix.T * x[:, None]).mean(-1),
    ],
)
def test_products_of_a_training_step_count_forward_and_backward(
    how: Callable[[Tensor, Tensor, Tensor], Tensor],
) -> None:
    step = TrainingStep(Weighs(how), Recipe(epochs=1), torch.arange(4) % 8)
    assert count_macs(step, (torch.randn(4, 16),)) == (2 * 16 * 8, [])


def sum_halves(one: Tensor, other: Tensor) -> Tensor:
    return (one * other).sum(-1)


def sum_beside(products: Tensor) -> Tensor:
    return (products + products.flip(-1) * products).relu() + products.sum()


def shift_and_add(x: Tensor, row: Tensor, taps: int) -> Tensor:
    """A filter, each of whose taps is added in place."""
    out = torch.zeros_like(x)
    for n in range(1, taps + 1):
        out[:, n:] += row[n] * x[:, :-n] * row[n:]
    return out


def fill(x: Tensor, row: Tensor) -> Tensor:
    """The products, each put into its place."""
    out = torch.zeros_like(x)
    for n in range(0, 16, 2):
        out[:, n : n + 2] = x[:, n : n + 2] * row[n : n + 2]
    return out


def turn_some(products: Tensor, factors: Tensor) -> Tensor:
    """Products, some of which are multiplied once more where they lie."""
    products[:, :4].mul_(factors[:4])
    return products


def multiply_into(products: Tensor, x: Tensor, weight: Tensor) -> Tensor:
    """Products, and those of a matrix beside them."""
    both = torch.zeros(2, *products.shape)
    both[0].copy_(products)
    torch.mm(x, weight @ weight.T, out=both[1])
    return both


def put(products: Tensor) -> Tensor:
    out = torch.zeros_like(products)
    out[torch.arange(len(out))] = products
    return out


def listed(x: Tensor, row: Tensor) -> Tensor:
    """Products that nobody sums, and numbers of Python's where these were."""
    total = torch.zeros(())
    for _ in range(20):
        x * row
        total = total + torch.tensor([1.0] * x.numel()).sum()
    return x + total


def sum_twice(products: Tensor) -> Tensor:
    return products / products.sum() * products.sum() + products.sum(-1, keepdim=True)


@pytest.mark.parametrize(
    ("how", "wanted"),
    [
        (lambda x, row, matrix: (x[:, :, None] * matrix).sum(1), 16 * 8),
        (lambda x, row, matrix: x @ matrix, 16 * 8),
        (lambda x, row, matrix: (x * row).sum(-1), 16),
        (lambda x, row, matrix: x @ row, 16),
        (lambda x, row, matrix: (x[:, :, None] * matrix).relu().sum(1), 0),  # no product of both
        (lambda x, row, matrix: x * row, 0),
        (lambda x, row, matrix: (x * 3).sum(-1), 0),
        (lambda x, row, matrix: x * (x * x).sum(-1, keepdim=True), 0),
        (lambda x, row, matrix: (x.view(-1, 1, 4, 4) * x.view(-1, 4, 1, 4)).sum(-1), 64),
        (lambda x, row, matrix: sum_halves(*x.chunk(2, -1)), 8),
        (lambda x, row, matrix: (x * row).mean(-1), 16),
        (lambda x, row, matrix: (x.bfloat16() * row.bfloat16()).float().sum(-1), 16),
        (lambda x, row, matrix: (x * row).view(-1, 4, 4).transpose(1, 2).sum((1, 2)), 16),
        (lambda x, row, matrix: x.clone().mul_(row).nansum(-1), 16),
        (lambda x, row, matrix: (x * row).cumsum(-1)[:, -1], 16),
        (lambda x, row, matrix: (x * row + 1).neg().div(2).sum(-1), 16),
        (lambda x, row, matrix: (x.expand(1, 5, 16) * row).masked_fill(x > 9, 0).sum(-1), 80),
        (lambda x, row, matrix: sum(x[:, n] * row[n : n + 2].sum() for n in range(16)), 0),
        (lambda x, row, matrix: sum(x[:, n : n + 2] * row[n : n + 2] for n in (0, 2, 4, 6)), 8),
        (lambda x, row, matrix: x * row + x * matrix[:, 0], 0),  # as a gate mixes
        (lambda x, row, matrix: (x * row + x * matrix[:, 0]).sum(-1), 32),
        (lambda x, row, matrix: torch.stack([x * row, x * matrix[:, 0]]).sum(0), 32),
        (lambda x, row, matrix: (x * row).addcmul_(x, matrix[:, 0]).addcmul(x, row), 48),
        (lambda x, row, matrix: torch.addcmul(x, x, row).sum(-1), 16),
        (lambda x, row, matrix: x[:, :2].index_add(1, torch.arange(16) % 2, x * row), 16),
        (lambda x, row, matrix: x + x * row, 0),  # a scale and what goes past it
        (lambda x, row, matrix: sum_twice(x * row), 16),
        (lambda x, row, matrix: (x * row).sum(-1, keepdim=True) + (x * row)[:, :1].sum(), 17),
        (lambda x, row, matrix: (x * row).zero_().add(1).sum(-1), 0),
        (lambda x, row, matrix: (1 / (x * row)).sum(-1), 0),
        (lambda x, row, matrix: sum_beside(x * row), 16),
        (lambda x, row, matrix: shift_and_add(x, row, 3), 15 + 14 + 13),
        (lambda x, row, matrix: shift_and_add(x, row, 2), 0),
        (lambda x, row, matrix: fill(x, row).sum(-1), 16),
        (lambda x, row, matrix: fill(x, row).zero_().sum(-1), 0),
        (lambda x, row, matrix: (x * row).unsqueeze_(0).sum(-1), 16),
        (lambda x, row, matrix: x.scatter_reduce(
            1, torch.zeros_like(x).long(), x * row, "sum"), 16),
        (lambda x, row, matrix: x.scatter_reduce(
            1, torch.zeros_like(x).long(), x * row, "amax"), 0),
        (lambda x, row, matrix: x.index_put(
            (torch.tensor([0]), torch.arange(16)), (x * row)[0], accumulate=True), 16),
        (lambda x, row, matrix: x.index_put(
            (torch.tensor([0]), torch.arange(16)), (x * row)[0]), 0),
        (lambda x, row, matrix: (x[:0] * row).sum(-1), 0),
        (lambda x, row, matrix: turn_some(x * row, row).sum(-1), 16),
        (lambda x, row, matrix: turn_some(x * 2, row).sum(-1), 4),
        (lambda x, row, matrix: multiply_into(x * row, x, matrix).sum(-1), 16 * 16 * 8 + 256 + 16),
        (lambda x, row, matrix: torch.mul(x, row, out=torch.empty(2, 1, 16)[1]).sum(-1), 16),
        (lambda x, row, matrix: listed(x, row), 0),
        (lambda x, row, matrix: put(x * row).sum(-1), 16),
        (lambda x, row, matrix: put(x * row).index_fill_(1, torch.tensor([1]), 0).sum(-1), 16),
        (lambda x, row, matrix: x.index_copy(1, torch.arange(16), x * row).sum(-1), 16),
        (lambda x, row, matrix: x.scatter(1, torch.arange(16)[None], x * row).sum(-1), 16),
        (lambda x, row, matrix: x.put(torch.arange(16), x * row).sum(-1), 16),
        (lambda x, row, matrix: x.put(torch.arange(16), x * row, accumulate=True), 16),
        (lambda x, row, matrix: x.masked_scatter(x < 99, x * row).sum(-1), 16),
        (lambda x, row, matrix: x.slice_scatter((x * row)[:, 4:], 1, 4).sum(-1), 16),
        (lambda x, row, matrix: x[None].select_scatter(x * row, 0, 0).sum(-1), 16),
        (lambda x, row, matrix: (x * row).index_add(1, torch.arange(16), x * matrix[:, 0]).sum(-1),
         32),
        (lambda x, row, matrix: (x * row).repeat(1, 2).sum(-1), 16),
        (lambda x, row, matrix: (x * row).repeat_interleave(2, -1).sum(-1), 16),
        (lambda x, row, matrix: (x * row).view(-1, 4, 4).tril().triu_(-2).rot90().sum(-1), 16),
        (lambda x, row, matrix: (x * row).masked_select(row < 99).sum(), 16),
        (lambda x, row, matrix: (x * row).take(torch.arange(16)).sum(), 16),
        (lambda x, row, matrix: (x * row).diag_embed().sum(-1), 16),
        (lambda x, row, matrix: nn.functional.pixel_shuffle((x * row).view(1, 4, 2, 2), 2).sum(),
         16),
        (lambda x, row, matrix: nn.functional.pad(x * row, (2, 3), "reflect").sum(-1), 16),
        (lambda x, row, matrix: nn.functional.unfold((x * row).view(1, 1, 4, 4), 2).sum(-1), 16),
        (lambda x, row, matrix: nn.functional.avg_pool1d(x * row, 4), 16),
        (lambda x, row, matrix: nn.functional.avg_pool2d((x * row).view(1, 1, 4, 4), 2), 16),
        (lambda x, row, matrix: nn.functional.avg_pool3d((x * row).view(1, 1, 4, 2, 2), 2), 16),
        (lambda x, row, matrix: nn.functional.adaptive_avg_pool1d(x * row, 2), 16),
        (lambda x, row, matrix: nn.functional.adaptive_avg_pool2d((x * row).view(1, 4, 4), 2), 16),
        (lambda x, row, matrix: nn.functional.adaptive_avg_pool3d(
            (x * row).view(1, 4, 2, 2), (2, 1, 1)), 16),
    ],
)  # fmt: skip
def test_products_that_are_summed_count_as_the_matrix_product_that_they_are(
    how: Callable[[Tensor, Tensor, Tensor], Tensor], wanted: int
) -> None:
    assert count_macs(Weighs(how), (torch.randn(5, 16),)) == (wanted, [])
