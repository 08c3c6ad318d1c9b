"""What a call takes is known for any number of examples, though few are counted."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from harness.measure import counts
from harness.measure.counts import BEYOND_PADDING, SEVERAL, count_macs, count_work
from harness.measure.layers import list_layers
from harness.measure.runtimes import take_batch
from harness.measure.work import Work


class Mixed(nn.Module):
    """Does some work for each example, some once a call, and some for each pair of examples."""

    def __init__(self, each: int, once: int, pairs: int, takes: range) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(4, 4))
        self.each, self.once, self.pairs, self.takes = each, once, pairs, takes

    def forward(self, x: Tensor) -> Tensor:
        if len(x) not in self.takes:
            raise ValueError(f"{len(x)} examples")
        weight = self.weight
        for _ in range(self.once):
            weight = weight @ self.weight
        for _ in range(self.each):
            x = x @ weight
        for _ in range(self.pairs):
            x = x + (x @ x.mT).sum()
        return x

    def macs(self, examples: int) -> int:
        return 16 * examples * self.each + 64 * self.once + 4 * examples**2 * self.pairs


def count(module: nn.Module, *batches: int, rows: int = 2) -> tuple[Work, list[str]]:
    """Count calls of a model as for inference in these batches."""
    inputs = torch.randn(rows, 4)
    return count_work(
        lambda number: (module, take_batch((inputs,), number)), (*SEVERAL, 1, rows), batches
    )


FEW = st.integers(0, 3)
BATCH = st.integers(1, 10**4)
ANY = range(10**6)


@given(each=st.integers(1, 3), once=FEW, pairs=FEW, examples=BATCH)
def test_a_call_of_any_number_of_examples_is_what_its_closed_form_says(
    each: int, once: int, pairs: int, examples: int
) -> None:
    module = Mixed(each, once, pairs, ANY)
    work, uncounted = count(module)
    assert uncounted == []
    assert work.for_one(examples) == module.macs(examples) / examples


@given(each=st.integers(1, 3), first=st.integers(1, 4), most=st.integers(1, 4))
def test_a_model_that_takes_certain_numbers_of_examples_is_counted_with_these(
    each: int, first: int, most: int
) -> None:
    module = Mixed(each, 0, 0, range(first, max(first, most) + 1))
    assert count(module, first)[0].for_one(first) == 16 * each


@given(each=st.integers(1, 3), once=FEW, pairs=FEW, only=st.integers(1, 64))
def test_a_model_that_takes_its_own_batch_alone_is_counted_with_that(
    each: int, once: int, pairs: int, only: int
) -> None:
    module = Mixed(each, once, pairs, range(only, only + 1))
    for work, uncounted in (count(module, only), count(module, rows=only)):
        assert uncounted == []
        assert work.for_one(only) == module.macs(only) / only


def test_a_model_that_takes_no_number_of_examples_is_not_counted_and_says_why() -> None:
    work, (why,) = count(Mixed(1, 0, 0, range(0)), 8)
    assert math.isnan(work.for_one(8))
    assert why == "every call on the host (of 2, 3, 4, 1, 8 examples: ValueError: 8 examples)"


class Merging(nn.Module):
    """Adds two thin matrices' product to its weight in its first call."""

    def __init__(self) -> None:
        super().__init__()
        self.weight, self.merged = nn.Parameter(torch.randn(4, 4)), None
        self.thin = nn.ParameterList([torch.randn(4, 2), torch.randn(2, 4)])

    def forward(self, x: Tensor) -> Tensor:
        if self.merged is None:
            self.merged = self.weight + self.thin[0] @ self.thin[1]
        return x @ self.merged


@given(examples=BATCH, wanted=st.booleans())
def test_what_is_done_in_the_first_call_alone_is_no_call_s_work(
    examples: int, wanted: bool
) -> None:
    work, uncounted = count(Merging(), *([examples] if wanted else []))
    assert (work.for_one(examples), uncounted) == (16, [])


class Caching(nn.Module):
    """Prepares something for each number of examples, as some keep positions or latents."""

    def __init__(self) -> None:
        super().__init__()
        self.weight, self.kept = nn.Parameter(torch.randn(4, 4)), torch.empty(0)

    def forward(self, x: Tensor) -> Tensor:
        if len(self.kept) != len(x):
            self.kept = (self.weight @ self.weight)[0].expand(len(x), 4)
        return x @ self.weight + self.kept


@given(examples=BATCH, batches=st.lists(BATCH, max_size=2))
def test_what_is_done_once_for_so_many_examples_is_no_call_s_work(
    examples: int, batches: list[int]
) -> None:
    work, uncounted = count(Caching(), examples, *batches)
    assert (work.for_one(examples), uncounted) == (16, [])


def test_one_call_tells_of_itself_alone_and_nothing_of_what_the_model_refused() -> None:
    assert math.isnan(Work(((2, 32.0),)).for_one(64))
    assert Work(((2, 32.0),)).for_one(2) == 16
    several = Work(((2, 32.0), (3, 48.0)), refused=frozenset({64}))
    assert math.isnan(several.for_one(64))
    assert several.for_one(63) == 16
    assert Work(((4000, 64000.0),), fixed=True).for_one(8) == 16, "all examples, whatever is asked"


class Sorted(nn.Module):
    """A layer for each step of sequences that must be sorted by their length."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.RNN(2, 4, batch_first=True)

    def forward(self, x: Tensor) -> Tensor:
        lengths = x[:, 0, 0].long()
        packed = nn.utils.rnn.pack_padded_sequence(x, lengths, batch_first=True)
        return self.layer(packed)[1][0]


def test_sequences_of_unlike_lengths_are_counted_with_all_of_them() -> None:
    inputs = torch.ones(8, 10, 2)
    inputs[:, 0, 0] = torch.tensor([10, 9, 8, 6, 5, 4, 3, 1])
    module = Sorted()
    work, _ = count_work(
        lambda number: (module, take_batch((inputs,), number)), (*SEVERAL, 1, 8), [8, 64]
    )
    assert work.for_one(8) == 46 * (4 * 2 + 4 * 4) / 8
    assert math.isnan(work.for_one(64)), "64 of them are not sorted, and the call fails"


class Leaving(nn.Module):
    """Some rows take a layer more."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.deep = nn.Linear(4, 4), nn.Linear(4, 16)

    def forward(self, x: Tensor) -> Tensor:
        y = self.first(x)
        goes_on = y[:, 0] > 0
        out = torch.zeros(len(x), 16)
        out[goes_on] = self.deep(y[goes_on])
        return out


class Padded(nn.Module):
    """Takes as many rows as are a multiple of a number."""

    def __init__(self, multiple: int) -> None:
        super().__init__()
        self.layer, self.multiple = nn.Linear(4, 4), multiple

    def forward(self, x: Tensor) -> Tensor:
        return self.layer(nn.functional.pad(x, (0, 0, 0, -len(x) % self.multiple)))[: len(x)]


@given(
    seed=st.integers(0, 99),
    rows=st.integers(1, 9),
    batches=st.lists(st.integers(2, 10**4), max_size=3),
)
def test_rows_that_take_different_amounts_are_counted_in_the_batch_that_is_wanted(
    seed: int, rows: int, batches: list[int]
) -> None:
    torch.manual_seed(seed)
    module = Leaving()
    inputs = torch.randn(rows, 4)
    work, uncounted = count_work(
        lambda number: (module, take_batch((inputs,), number)), (*SEVERAL, 1, rows), batches
    )
    assert uncounted == []
    for batch in batches:
        goes_on = int((module.first(take_batch((inputs,), batch)[0])[:, 0] > 0).sum())
        assert work.for_one(batch) == (16 * batch + 64 * goes_on) / batch


@given(multiple=st.integers(1, 80), batches=st.lists(BATCH, min_size=1, max_size=3))
def test_batches_that_are_padded_are_counted_as_they_are_run(
    multiple: int, batches: list[int]
) -> None:
    work, _ = count(Padded(multiple), *batches)
    for batch in batches:
        assert work.for_one(batch) == 16 * (batch + -batch % multiple) / batch


@given(calls=st.dictionaries(st.integers(1, 99), st.integers(0, 10**6), min_size=1), examples=BATCH)
def test_no_call_takes_less_than_nothing(calls: dict[int, int], examples: int) -> None:
    work = Work(tuple((known, float(macs)) for known, macs in calls.items()))
    assert not work.for_one(examples) < 0


@given(multiple=st.integers(1, 80), batches=st.lists(BATCH, min_size=1, max_size=3))
def test_what_is_too_large_to_be_counted_is_told_from_less_or_not_at_all(
    multiple: int, batches: list[int]
) -> None:
    module, most = Padded(multiple), 40
    taken: list[int] = []
    module.register_forward_pre_hook(lambda _, given: taken.append(len(given[0])))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(counts, "AFFORDABLE_MACS", 16 * most)
        work, _ = count(module, *batches)
    assert max(taken) <= most
    for batch in batches:
        share = work.for_one(batch)
        assert share == 16 * (batch + -batch % multiple) / batch or math.isnan(share)
        assert not math.isnan(share) or (multiple > 1 and batch > BEYOND_PADDING)


def test_what_cannot_be_counted_is_not_counted_for_any_number() -> None:
    class Fourier(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return torch.fft.fft(x).real @ x.mT

    module = Fourier()
    work, uncounted = count(module)
    assert uncounted
    assert work.for_one(1) != work.for_one(1), "NaN"
    assert work.for_one(64) != work.for_one(64), "NaN"


def test_a_count_of_one_example_is_that_of_a_call_with_it() -> None:
    module = Mixed(2, 1, 1, ANY)
    assert count_macs(module, (torch.randn(5, 4),))[0] == module.macs(1)


class Mixture(nn.Module):
    """Experts whose outputs are added up, each times a number of the example's own."""

    def __init__(self, experts: int) -> None:
        super().__init__()
        self.experts = nn.ModuleList(nn.Linear(4, 8, bias=False) for _ in range(experts))

    def forward(self, x: Tensor) -> Tensor:
        return sum(expert(x) * x[:, n : n + 1] for n, expert in enumerate(self.experts))


@given(experts=st.integers(1, 4), examples=st.integers(1, 10**4))
def test_a_number_for_each_example_is_no_constant_in_a_call_of_one(
    experts: int, examples: int
) -> None:
    summed = 8 * experts if experts > 2 else 0
    assert count(Mixture(experts))[0].for_one(examples) == 4 * 8 * experts + summed


@pytest.mark.parametrize(
    ("module", "rows"),
    [
        (Mixture(2), 1),
        (Mixture(4), 3),
        (Merging(), 8),
        (Mixed(2, 0, 0, range(8, 9)), 8),
        (Mixed(2, 0, 0, range(1, 2)), 1),
    ],
)
def test_layers_take_together_what_a_call_takes(module: nn.Module, rows: int) -> None:
    layers = list_layers(module, (torch.randn(rows, 4),))
    share = count(module, rows, rows=rows)[0].for_one(rows)
    assert sum(layer.macs or 0 for layer in layers) == share > 0


@given(examples=st.integers(1, 10**3))
def test_products_of_all_pairs_are_no_squares_in_a_call_of_one(examples: int) -> None:
    class Pairs(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return (x[:, None] * x[None]).sum(-1)

    assert count(Pairs())[0].for_one(examples) == 4 * examples
