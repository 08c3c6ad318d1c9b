"""Inputs reach the clock as the user laid them out, whatever the batch."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from harness.errors import WorkerRefusal
from harness.measure import runtimes
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


GAPS = {
    "every other column": torch.rand(2, 4, 32)[:, :, ::2],
    "every sixteenth": torch.rand(1, 8, 64)[:, :, ::16],
    "a crop": torch.rand(3, 1, 20, 30)[:, :, 4:10, 5:12],
    "padded rows": torch.rand(2, 128)[:, :70],
    "every other row": torch.rand(8, 5)[::2],
    "a crop, channels last": torch.rand(2, 20, 30, 3)[:, 4:9, 5:12].permute(0, 3, 1, 2),
}


@pytest.mark.parametrize("layout", GAPS)
@pytest.mark.parametrize("batch", [1, 2, 3, 64])
def test_the_gaps_of_a_slice_are_kept_for_every_batch(layout: str, batch: int) -> None:
    """A read of each second number takes as long as one of all."""
    sliced = GAPS[layout]
    (made,) = take_batch((sliced,), batch)
    assert torch.equal(made, sliced[torch.arange(batch) % len(sliced)])
    told = [axis for axis in range(1, sliced.dim()) if sliced.shape[axis] > 1]
    assert [made.stride(axis) for axis in told] == [sliced.stride(axis) for axis in told]
    if len(sliced) > 1 and batch > 1:
        assert made.stride(0) == sliced.stride(0)
    if batch > 1:
        assert like_strides(made.clone(), made).stride() == made.stride()


def test_gaps_that_would_fill_the_memory_are_closed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(runtimes, "MOST_WITH_GAPS", 4096)
    column = torch.rand(4, 1000)[:, :1]
    (made,) = take_batch((column,), 8)
    assert made.is_contiguous()
    assert torch.equal(made, column[torch.arange(8) % 4])


FAR = {
    "examples from a data set": torch.arange(64_000.0).view(1000, 64)[::100, :1],
    "examples, wide": torch.arange(3_000_000.0).view(1000, 3000)[::100],
    "columns of a wide table": torch.arange(50_000.0).view(10, 5000)[:, 3:7],
    "bytes": torch.arange(90_000).to(torch.uint8).view(9, 10_000)[:, :5],
    "doubles, the last dimension": torch.arange(40_000.0).double().view(4, 10_000)[:, ::5000],
}


@pytest.mark.parametrize("layout", FAR)
@pytest.mark.parametrize("batch", [1, 2, 64])
def test_what_lies_far_apart_ends_at_the_same_place_of_a_page_and_is_not_large(
    layout: str, batch: int
) -> None:
    """Examples that were chosen by `train[::1000]` do not bring all of the others along."""
    sliced = FAR[layout]
    (made,) = take_batch((sliced,), batch)
    assert torch.equal(made, sliced[torch.arange(batch) % len(sliced)])
    bytes_each = made.element_size()
    if batch > 1:
        inner = made.dim() - 1 if layout.endswith("last dimension") else 0
        moved = made.stride(inner) - sliced.stride(inner)
        assert moved * bytes_each % runtimes.PAGE_BYTES == 0
        assert like_strides(made.clone(), made).stride() == made.stride()
    dense = made.numel() * bytes_each
    assert made.untyped_storage().nbytes() <= dense + 2 * batch * 2 * runtimes.PAGE_BYTES


def test_gaps_hold_zeros_and_nothing_of_the_process() -> None:
    whole = torch.full((8, 64), 7.0)
    made = like_strides(whole[:, ::4].clone(), whole[:, ::4])
    assert torch.equal(made, whole[:, ::4])
    held = torch.empty(0).set_(made.untyped_storage())
    assert held.count_nonzero() == made.numel() < held.numel()


@pytest.mark.parametrize("kind", [torch.float32, torch.bfloat16, torch.int64, torch.complex64])
def test_one_value_that_is_repeated_is_stored_once_though_it_is_no_number(
    kind: torch.dtype,
) -> None:
    row = torch.tensor([[1, 0, 3]], dtype=kind)
    if kind.is_floating_point:
        row[0, 1] = float("nan")
    (made,) = take_batch((row.expand(4, 3),), 9)
    assert made.stride() == (0, 1)


def test_windows_that_overlap_are_laid_beside_each_other() -> None:
    windows = torch.rand(2, 10).unfold(1, 3, 1)
    (made,) = take_batch((windows,), 4)
    assert torch.equal(made, windows[torch.arange(4) % 2])
    assert made.is_contiguous()


@settings(max_examples=200)
@given(st.data())
def test_any_slice_of_any_permutation_keeps_its_strides_and_values(data: st.DataObject) -> None:
    shape = data.draw(st.lists(st.integers(1, 6), min_size=1, max_size=4))
    axes = data.draw(st.permutations(range(len(shape))))
    steps = [slice(None, None, data.draw(st.integers(1, 3))) for _ in shape]
    sliced = torch.rand(shape).permute(axes)[tuple(steps)]
    (made,) = take_batch((sliced,), len(sliced))
    assert torch.equal(made, sliced)
    told = [axis for axis in range(1, sliced.dim()) if sliced.shape[axis] > 1]
    if len(sliced) > 1:
        assert [made.stride(axis) for axis in told] == [sliced.stride(axis) for axis in told]


def test_a_sparse_input_has_a_batch_or_a_reason() -> None:
    eye = torch.eye(2)
    (made,) = take_batch((eye.to_sparse(),), 3)
    assert torch.equal(made.to_dense(), eye[[0, 1, 0]])
    nested = torch.nested.nested_tensor([torch.ones(2), torch.ones(3)])
    for value, kind in ((eye.to_sparse_bsr(1), "sparse_bsr"), (eye.to_mkldnn(), "_mkldnn"),
                        (nested, "nested")):  # fmt: skip
        with pytest.raises(WorkerRefusal, match=f"{kind}.*Give a dense one"):
            runtimes.take_rows(value, torch.arange(3) % 2)


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
