"""What a call takes is known for any number of examples, though few are counted."""

import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from harness.measure.counts import SEVERAL, count_macs, count_work
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


def count(module: nn.Module, *numbers: int) -> tuple[Work, list[str]]:
    """Count calls of a model, of so many examples or as for inference."""
    inputs = torch.randn(2, 4)
    return count_work(
        lambda number: (module, take_batch((inputs,), number)), numbers or (*SEVERAL, 1)
    )


FEW = st.integers(0, 3)
ANY = range(10**6)


@given(each=FEW, once=FEW, pairs=FEW, examples=st.integers(1, 10**4))
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
    assert count(module)[0].for_one(first) == 16 * each


def test_a_model_that_takes_none_of_them_says_why() -> None:
    try:
        count(Mixed(1, 0, 0, range(8, 9)))
    except ValueError as error:
        assert "examples" in str(error)
    else:
        raise AssertionError


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


@given(examples=st.integers(1, 10**3))
def test_products_of_all_pairs_are_no_squares_in_a_call_of_one(examples: int) -> None:
    class Pairs(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return (x[:, None] * x[None]).sum(-1)

    assert count(Pairs())[0].for_one(examples) == 4 * examples
