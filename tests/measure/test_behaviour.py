"""Whether a model writes into its inputs or takes gradients is found by trying it out."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
from torch import Tensor, nn

from harness.measure.behaviour import Behaviour, try_out

WRITES: dict[str, Callable[..., object]] = {
    "adds in place": lambda x, y: x.add_(1),
    "through a view": lambda x, y: x.view(-1)[3:5].zero_(),
    "by an index": lambda x, y: x.__setitem__((0, 0), 7.0),
    "by a mask": lambda x, y: x.masked_fill_(x > -9, 0.0),
    "as an output": lambda x, y: torch.mul(x, 2, out=x),
    "by NumPy": lambda x, y: x.numpy().__setitem__((slice(None), 1), 3.0),
    "its second input": lambda x, y: y.add_(1),
    "integers": lambda x, y: y.clamp_(max=1),
    "an activation in place": lambda x, y: nn.ReLU(inplace=True)(x),
    "by sorting": lambda x, y: torch.sort(x, dim=1, out=(x, torch.empty(0, dtype=torch.long))),
    "its shape": lambda x, y: x.t_(),
    "its length": lambda x, y: x.resize_(1, 2),
    "NaN over a number": lambda x, y: x.fill_(float("nan")),
}
READS: dict[str, Callable[..., object]] = {
    "adds": lambda x, y: x + 1,
    "writes into a copy": lambda x, y: x.clone().add_(1),
    "writes what is there": lambda x, y: x.copy_(x.clone()),
    "writes into its outputs": lambda x, y: (x * 2).zero_(),
}


class Does(nn.Module):
    """A model that does one thing."""

    def __init__(self, what: Callable[..., object]) -> None:
        super().__init__()
        self.what = what

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        self.what(x, y)
        return x


def inputs() -> tuple[Tensor, Tensor]:
    return torch.tensor([[3.0, -1.0, 2.0], [5.0, -4.0, 0.5]]), torch.tensor([[4, 9], [3, 2]])


@pytest.mark.parametrize("what", WRITES)
def test_a_model_that_writes_into_its_inputs_is_seen_and_they_stay_as_they_were(what: str) -> None:
    given = inputs()
    assert try_out(Does(WRITES[what]), given) == Behaviour(writes_inputs=True)
    for value, before in zip(given, inputs(), strict=True):
        assert torch.equal(value, before)


@pytest.mark.parametrize("what", READS)
def test_a_model_that_leaves_its_inputs_alone_is_plain(what: str) -> None:
    assert try_out(Does(READS[what]), inputs()) == Behaviour()


def test_an_input_of_nan_is_not_taken_for_one_that_was_written() -> None:
    nan, y = torch.full((2, 3), float("nan")), inputs()[1]
    assert try_out(Does(READS["adds"]), (nan, y)) == Behaviour()
    assert try_out(Does(WRITES["adds in place"]), (nan, y)) == Behaviour(), "NaN it stays"


def take_gradient(x: Tensor, y: Tensor) -> None:
    with torch.enable_grad():
        z = x.clone().requires_grad_()
        torch.autograd.grad((z**2).sum(), z)


def test_a_model_that_takes_gradients_is_called_without_inference_mode() -> None:
    assert try_out(Does(take_gradient), inputs()) == Behaviour(takes_gradients=True)

    def both(x: Tensor, y: Tensor) -> None:
        take_gradient(x, y)
        x.zero_()

    wanted = Behaviour(takes_gradients=True, writes_inputs=True)
    assert try_out(Does(both), inputs()) == wanted


def test_a_model_that_fails_is_plain_and_its_failure_is_told_elsewhere() -> None:
    assert try_out(Does(lambda x, y: 1 / 0), inputs()) == Behaviour()
    assert try_out(nn.Identity(), ()) == Behaviour()


@pytest.mark.parametrize("rows", [1, 3, 8])
def test_a_model_that_takes_its_own_batch_alone_is_tried_with_that(rows: int) -> None:
    def write(x: Tensor, y: Tensor) -> None:
        x.view(rows, 3).mul_(0.5)
        take_gradient(x, y)

    given = (torch.ones(rows, 3), torch.ones(rows, 2, dtype=torch.long))
    wanted = Behaviour(takes_gradients=True, writes_inputs=True)
    assert try_out(Does(write), given) == wanted
    assert torch.equal(given[0], torch.ones(rows, 3))


@pytest.mark.parametrize("rows", [0, 1, 2, 1000])
def test_a_batch_of_any_size_is_tried_with_two_examples(rows: int) -> None:
    seen: list[int] = []
    given = (torch.ones(rows, 3), torch.ones(rows, 2, dtype=torch.long))
    behaviour = try_out(Does(lambda x, y: seen.append(len(x))), given)
    assert behaviour == Behaviour()
    assert set(seen) <= {2}


class Threaded(nn.Module):
    """A model that calls a layer in a thread, where no mode of the caller's holds."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(3, 2)

    def forward(self, x: Tensor) -> Tensor:
        with ThreadPoolExecutor(1) as pool:
            return pool.submit(self.layer, x).result()


def test_a_layer_in_a_thread_is_called_as_it_can_be() -> None:
    """It would keep what it read for its gradients, and inference mode's tensors forbid that."""
    assert try_out(Threaded(), inputs()[:1]) == Behaviour(takes_gradients=True)
