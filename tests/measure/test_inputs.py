"""Inputs reach the clock as the user laid them out, whatever the batch."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from harness.measure.runtimes import like_strides, take_batch

LAYOUTS = {
    "contiguous": torch.rand(2, 3, 4, 5),
    "transposed": torch.rand(2, 4, 3).transpose(1, 2),
    "channels_last": torch.rand(2, 3, 4, 5).to(memory_format=torch.channels_last),
    "channels_last_3d": torch.rand(2, 3, 4, 5, 6).to(memory_format=torch.channels_last_3d),
    "time first": torch.rand(7, 2, 3).transpose(0, 1),
    "whole numbers": torch.arange(24).view(2, 3, 4).permute(0, 2, 1),
}


def order_of(value: Tensor) -> list[int]:
    return sorted(range(value.dim()), key=lambda axis: -value.stride(axis))


@pytest.mark.parametrize("batch", [1, 2, 3, 64])
@pytest.mark.parametrize("layout", LAYOUTS)
def test_a_layout_is_kept_for_every_batch(layout: str, batch: int) -> None:
    given_ = LAYOUTS[layout]
    (made,) = take_batch((given_,), batch)
    assert made.shape == (batch, *given_.shape[1:])
    wide = [axis for axis in order_of(given_) if made.shape[axis] > 1]
    assert [axis for axis in order_of(made) if axis in wide] == wide
    assert torch.equal(made, given_[torch.arange(batch) % len(given_)])
    if layout == "channels_last":
        assert made.is_contiguous(memory_format=torch.channels_last)


def test_an_expanded_input_stays_one_value_in_memory() -> None:
    mask = torch.rand(2, 1, 5).expand(2, 1_000, 5)
    (made,) = take_batch((mask,), 8)
    assert made.stride(1) == 0
    assert made.untyped_storage().nbytes() == 8 * 5 * 4
    assert torch.equal(made, mask[torch.arange(8) % 2])


def test_a_test_split_is_not_expanded_because_the_example_is() -> None:
    example = torch.zeros(1, 4).expand(10, 4)
    rows = torch.arange(40.0).view(10, 4)
    assert torch.equal(like_strides(rows, example), rows)


def test_a_single_picture_that_was_made_channels_last_stays_so_in_a_batch() -> None:
    picture = torch.rand(64, 48, 3).permute(2, 0, 1)[None]
    (made,) = take_batch((picture,), 8)
    assert made.is_contiguous(memory_format=torch.channels_last)


def test_sparse_inputs_are_left_as_they_are() -> None:
    made = like_strides(torch.eye(4).to_sparse(), torch.eye(2).to_sparse())
    assert made.is_sparse


@settings(max_examples=200)
@given(st.data())
def test_any_permutation_of_any_shape_survives_with_its_values(data: st.DataObject) -> None:
    shape = data.draw(st.lists(st.integers(1, 4), min_size=1, max_size=5))
    axes = data.draw(st.permutations(range(len(shape))))
    batch = data.draw(st.integers(1, 5))
    given_ = torch.rand(shape).permute(axes)
    (made,) = take_batch((given_,), batch)
    assert torch.equal(made, given_[torch.arange(batch) % len(given_)])
    wide = [axis for axis in order_of(given_) if given_.shape[axis] > 1 and axis > 0]
    assert [axis for axis in order_of(made) if axis in wide] == wide
