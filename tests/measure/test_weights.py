"""Parameters, zeros and bytes against what they must be, for weights of every kind."""

import warnings

import pytest
import torch
from torch import nn
from torch.nn.utils import parametrizations, prune

from harness.measure.layers import list_layers
from harness.measure.weights import count_weights


class Gpt(nn.Module):
    """A tied head and a causal mask in a buffer."""

    def __init__(self) -> None:
        super().__init__()
        self.words = nn.Embedding(1000, 64)
        self.qkv = nn.Linear(64, 192, bias=False)
        self.head = nn.Linear(64, 1000, bias=False)
        self.head.weight = self.words.weight
        self.register_buffer("mask", torch.tril(torch.ones(128, 128)))
        self.register_buffer("rope", torch.ones(1000), persistent=False)
        self.register_buffer("wide", torch.zeros(1).expand(1000, 1000))

    def forward(self, ids: torch.Tensor) -> torch.Tensor:
        q, k, v = self.qkv(self.words(ids)).chunk(3, -1)
        n = ids.shape[1]
        scores = (q @ k.mT).masked_fill(self.mask[:n, :n] == 0, float("-inf"))
        return self.head(scores.softmax(-1) @ v)


def masked(remove: bool) -> nn.Module:
    module = nn.Sequential(nn.Linear(100, 100, bias=False), nn.ReLU())
    prune.l1_unstructured(module[0], "weight", 0.9)
    if remove:
        prune.remove(module[0], "weight")
    return module


class Zeroed(nn.Module):
    def forward(self, weight: torch.Tensor) -> torch.Tensor:
        return weight * (torch.arange(weight.numel()).view_as(weight) % 4 == 0)


def parametrized() -> nn.Module:
    module = nn.Linear(8, 8, bias=False)
    nn.utils.parametrize.register_parametrization(module, "weight", Zeroed())
    return module


class Views(nn.Module):
    """Two parameters that are the halves of a third, and one that is its transpose."""

    def __init__(self) -> None:
        super().__init__()
        whole = torch.ones(8, 8)
        self.whole = nn.Parameter(whole)
        self.top, self.bottom = nn.Parameter(whole[:4]), nn.Parameter(whole[4:])
        self.turned = nn.Parameter(whole.T)


class Interleaved(nn.Module):
    """Columns of one matrix: their ranges overlap and their numbers do not."""

    def __init__(self) -> None:
        super().__init__()
        self.q, self.k, self.v = map(nn.Parameter, torch.ones(8, 24).chunk(3, dim=1))


class Flat(nn.Module):
    """Parameters that lie in one buffer without overlapping, as a recurrent layer's do on cards."""

    def __init__(self) -> None:
        super().__init__()
        flat = torch.ones(100)
        self.a, self.b = nn.Parameter(flat[:30]), nn.Parameter(flat[30:70])


@pytest.mark.parametrize(
    ("module", "params", "nonzero"),
    [
        (Gpt(), 64_000 + 64 * 192, 64_000 + 64 * 192),
        (masked(remove=False), 10_000, 1_000),
        (masked(remove=True), 10_000, 1_000),
        (parametrized(), 64, 16),
        (parametrizations.weight_norm(nn.Linear(8, 4)), 32 + 4 + 4, None),
        (Views(), 64, 64),
        (Flat(), 70, 70),
        (Interleaved(), 192, 192),
        (nn.Identity(), 0, 0),
        (nn.Linear(8, 8).to(torch.bfloat16), 72, 72),
    ],
)
def test_parameters_are_distinct_memory_and_masked_ones_are_zero(
    module: nn.Module, params: int, nonzero: int | None
) -> None:
    counted = count_weights(module)
    assert counted["params"] == params
    if nonzero is not None:
        assert counted["nonzero_params"] == nonzero


def test_an_expanded_buffer_is_stored_once_and_one_that_is_not_saved_never() -> None:
    stored = count_weights(Gpt())["weight_bytes"]
    assert stored == 4 * (64_000 + 64 * 192 + 128 * 128 + 1)


def test_int8_weights_of_torchao_are_counted_as_bytes() -> None:
    from torchao.quantization import Int8WeightOnlyConfig, quantize_

    module = nn.Sequential(nn.Linear(256, 256, bias=False), nn.ReLU()).eval()
    quantize_(module, Int8WeightOnlyConfig())
    counted = count_weights(module)
    assert counted["params"] == 256 * 256
    assert 256 * 256 < counted["weight_bytes"] < 256 * 256 * 1.1


INSPECTED = [
    Gpt(),
    masked(remove=False),
    parametrized(),
    nn.Sequential(Gpt().words, nn.Linear(64, 3)),
]


@pytest.mark.parametrize("module", INSPECTED)
def test_layers_add_up_to_what_a_cell_says(module: nn.Module) -> None:
    inputs = torch.randint(0, 1000, (2, 16)) if not isinstance(module, nn.Linear) else None
    first = next(iter(module.parameters()))
    if not any(isinstance(part, nn.Embedding) for part in module.modules()):
        inputs = torch.randn(2, first.shape[-1])
    assert inputs is not None
    layers = list_layers(module, (inputs,))
    counted = count_weights(module)
    for name in ("params", "nonzero_params", "weight_bytes"):
        assert sum(getattr(layer, name) for layer in layers) == counted[name]


class Leaf(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.w = nn.Parameter(torch.randn(8, 8))

    def forward(self, hidden: torch.Tensor) -> torch.Tensor:
        return hidden @ self.w


class Nothing(nn.Module):
    def forward(self, _: torch.Tensor) -> None:
        return None


class Scale(nn.Module):
    def forward(self, t: torch.Tensor) -> torch.Tensor:
        return t * 2


class Odd(nn.Module):
    """Parts that are called by keyword, with a scalar, for nothing, twice, and not at all."""

    def __init__(self) -> None:
        super().__init__()
        self.leaf, self.nothing, self.scale, self.idle = Leaf(), Nothing(), Scale(), Leaf()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.nothing(x)
        return self.leaf(hidden=self.leaf(hidden=x)) * self.scale(torch.tensor(0.5))


def test_parts_are_inspected_however_they_are_called() -> None:
    rows = {layer.name: layer for layer in list_layers(Odd(), (torch.randn(2, 8),))}
    assert rows["leaf"].macs == 2 * 64
    assert rows["leaf"].shape == (8,)
    assert (rows["idle"].macs, rows["idle"].shape) == (0, ())
    assert rows["nothing"].shape == rows["scale"].shape == ()


class Steps(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.cell = nn.LSTMCell(8, 16)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.cell(x)[0]


DYNAMIC = {
    "linear": lambda: nn.Sequential(nn.Linear(64, 32)),
    "lstm": lambda: nn.Sequential(nn.LSTM(32, 64, num_layers=2)),
    "gru": lambda: nn.Sequential(nn.GRU(32, 64, bidirectional=True)),
    "cell": Steps,
}


@pytest.mark.parametrize("dtype", [torch.qint8, torch.float16])
@pytest.mark.parametrize("kind", DYNAMIC)
def test_a_dynamically_quantized_layer_has_the_parameters_of_the_plain_one(
    kind: str, dtype: torch.dtype
) -> None:
    plain = DYNAMIC[kind]()
    kinds = {nn.Linear, nn.LSTM, nn.GRU, nn.LSTMCell}
    with warnings.catch_warnings(action="ignore"):
        made = torch.ao.quantization.quantize_dynamic(plain, kinds, dtype=dtype)
    before, after = count_weights(plain), count_weights(made)
    assert after["params"] == before["params"]
    smaller = after["weight_bytes"] / before["weight_bytes"]
    assert smaller < (0.4 if dtype is torch.qint8 else 0.55)


@pytest.mark.parametrize("dimensions", [1, 2])
def test_a_statically_quantized_convolution_has_the_parameters_of_the_plain_one(
    dimensions: int,
) -> None:
    kind = (nn.Conv1d, nn.Conv2d)[dimensions - 1]
    module = nn.Sequential(torch.ao.quantization.QuantStub(), kind(8, 16, 3), nn.ReLU())
    module.eval().qconfig = torch.ao.quantization.get_default_qconfig()
    with warnings.catch_warnings(action="ignore"):
        ready = torch.ao.quantization.prepare(module)
        ready(torch.randn(2, 8, *[9] * dimensions))
        made = torch.ao.quantization.convert(ready)
    before, after = count_weights(module), count_weights(made)
    assert after["params"] == before["params"] == 16 * 8 * 3**dimensions + 16
    assert after["weight_bytes"] < before["weight_bytes"] / 2


def test_a_quantized_block_that_stands_in_several_places_counts_once() -> None:
    block = nn.Sequential(nn.Linear(64, 64))
    once, shared = nn.ModuleList([block]), nn.ModuleList([block] * 12)
    with warnings.catch_warnings(action="ignore"):
        torch.ao.quantization.quantize_dynamic(block, {nn.Linear}, inplace=True)
    assert count_weights(shared) == count_weights(once)
    assert count_weights(once)["params"] == 64 * 65
