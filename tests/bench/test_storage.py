"""Weights stored in few bits: what is written, counted, and given back."""

import copy
import io
from math import ceil

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from bench.storage import STORABLE, StoredLayer, pack_bits, replace_layers, unpack_bits
from bench.techniques.codes import AffineCode, BinaryCode, PowerOfTwoCode, SharedCode, SymmetricCode
from harness.measure.weights import count_weights

CODES = {
    "affine": lambda weight: AffineCode(weight, 5, weight.numel()),
    "symmetric": lambda weight: SymmetricCode(weight, 4, 32),
    "power of two": lambda weight: PowerOfTwoCode(weight, 6),
    "binary": BinaryCode,
    "shared": lambda weight: SharedCode(weight, 7),
}
BITS = {"affine": 5, "symmetric": 4, "power of two": 6, "binary": 1, "shared": 3}


def layers() -> list[tuple[nn.Module, Tensor]]:
    torch.manual_seed(0)
    return [
        (nn.Linear(20, 12), torch.randn(3, 20)),
        (nn.Linear(20, 12, bias=False), torch.randn(3, 4, 20)),
        (nn.Conv1d(4, 6, 3, padding=1), torch.randn(2, 4, 9)),
        (nn.Conv2d(4, 8, 3, stride=2, groups=2), torch.randn(2, 4, 9, 9)),
        (nn.Conv2d(3, 4, 3, padding=1, padding_mode="circular"), torch.randn(2, 3, 6, 6)),
        (nn.Conv3d(2, 3, 2), torch.randn(1, 2, 4, 4, 4)),
    ]


def store(module: nn.Module, code: str) -> nn.Module:
    stored = replace_layers(module, lambda layer: StoredLayer(layer, CODES[code](layer.weight)))
    for part in stored.modules():
        if isinstance(part, SharedCode):
            part.freeze()
    return stored


@given(st.integers(1, 8), st.data())
def test_packed_numbers_are_given_back_and_leave_no_gaps(bits: int, data: st.DataObject) -> None:
    numbers = data.draw(st.lists(st.integers(0, 2**bits - 1), min_size=1, max_size=60))
    packed = pack_bits(torch.tensor(numbers), bits)
    assert packed.dtype == torch.uint8
    assert len(packed) == ceil(len(numbers) * bits / 8)
    assert unpack_bits(packed, bits, len(numbers)).tolist() == numbers


@pytest.mark.parametrize("code", CODES)
@pytest.mark.parametrize("number", range(6))
def test_a_stored_layer_computes_with_the_weight_that_it_gives_back(code: str, number: int) -> None:
    layer, inputs = layers()[number]
    stored = store(layer, code)
    assert isinstance(stored, StoredLayer)
    plain = copy.deepcopy(layer)
    plain.weight = nn.Parameter(stored.decode_weight())
    with torch.no_grad():
        assert torch.equal(stored(inputs), plain(inputs))
    assert stored.decode_weight().shape == layer.weight.shape


@pytest.mark.parametrize("code", CODES)
def test_what_is_counted_is_what_a_file_holds_and_a_file_gives_the_same_outputs(code: str) -> None:
    torch.manual_seed(0)
    module = nn.Sequential(nn.Linear(64, 256), nn.ReLU(), nn.Linear(256, 64))
    stored = store(module, code)
    file = io.BytesIO()
    torch.save(stored.state_dict(), file)
    counted = count_weights(stored)
    assert counted["params"] == count_weights(module)["params"]
    weights = 2 * 64 * 256
    tables = {"affine": 2 * 8, "symmetric": weights // 32 * 4, "power of two": 2,
              "binary": 320 * 2, "shared": 2 * 7 * 4}[code]  # fmt: skip
    assert counted["weight_bytes"] == weights * BITS[code] / 8 + tables + 4 * (256 + 64)
    assert counted["weight_bytes"] <= len(file.getvalue()) <= counted["weight_bytes"] + 8_000

    other = store(nn.Sequential(nn.Linear(64, 256), nn.ReLU(), nn.Linear(256, 64)), code)
    file.seek(0)
    other.load_state_dict(torch.load(file))
    inputs = torch.randn(5, 64)
    with torch.no_grad():
        assert torch.equal(other(inputs), stored(inputs))


def test_layers_are_replaced_once_wherever_they_are_used_and_the_model_is_untouched() -> None:
    shared = nn.Linear(4, 4)
    module = nn.Sequential(shared, nn.ReLU(), nn.Sequential(shared, nn.Linear(4, 2)))
    module.append(shared)
    stored = store(module, "affine")
    assert stored[0] is stored[2][0] is stored[3]
    assert isinstance(stored[2][1], StoredLayer)
    assert module[0] is shared
    assert not any(isinstance(layer, STORABLE) and layer.weight is not None
                   for layer in stored.modules())  # fmt: skip


def test_layers_that_use_their_weight_in_a_way_of_their_own_are_left() -> None:
    module = nn.Sequential(nn.MultiheadAttention(8, 2), nn.Linear(8, 2))
    stored = store(module, "affine")
    assert type(stored[0].out_proj).__name__ == "NonDynamicallyQuantizableLinear"
    assert isinstance(stored[1], StoredLayer)
