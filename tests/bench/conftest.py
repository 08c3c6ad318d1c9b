"""Shared by the tests of what is measured: one thread, small data, models trained once."""

from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path

import pytest
import torch

from bench import Subject, registry
from bench.data import Dataset, Split
from bench.training import train
from harness.worker.server import settle


@pytest.fixture(scope="session", autouse=True)
def on_one_thread(own_cache: Path) -> Iterator[None]:
    """Run on one thread; `own_cache` of tests/conftest.py sets PARETOGRID_CACHE for the session."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    registry.load_built_ins()
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module", autouse=True)
def others_garbage_is_left_alone() -> None:
    """Whoever counts a call looks at every object: what other modules' tests imported, too."""
    settle()


@pytest.fixture(scope="session")
def make_data() -> Callable[..., Dataset]:
    """Make a data set of noise, with the same examples in every split."""

    def make(*shape: int, classes: int = 3, count: int = 40) -> Dataset:
        inputs = torch.randn(count, *shape, generator=torch.Generator().manual_seed(0))
        split = Split(inputs, torch.arange(count) % classes)
        return Dataset("a user's data", split, split, split, classes)

    return make


@pytest.fixture(scope="session")
def trained(on_one_thread: None) -> Callable[[str], Subject]:
    """Return a model trained by its recipe on its own data; each is trained once."""

    @cache
    def build(name: str) -> Subject:
        torch.manual_seed(0)
        return train(registry.build("model", name))

    return build
