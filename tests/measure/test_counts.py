"""Counts against closed forms."""

import warnings

import pytest
import torch
from torch import nn

from harness.measure.counts import count_macs, count_weights, disk_bytes


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
    assert "aten.native_layer_norm" in uncounted
    assert torch.backends.mha.get_fastpath_enabled()


def test_operators_that_were_not_counted_are_named() -> None:
    _, uncounted = count_macs(nn.Sequential(nn.Linear(4, 4), nn.GELU()), (torch.ones(1, 4),))
    assert uncounted == ["aten.gelu"]


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
