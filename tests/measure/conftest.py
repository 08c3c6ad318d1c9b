"""What the tests of the instrument share."""

from collections.abc import Iterator

import pytest
import torch

from harness.worker.server import settle


@pytest.fixture(scope="module", autouse=True)
def others_garbage_is_left_alone() -> None:
    """Whoever counts a call looks at every object: what other modules' tests imported, too."""
    settle()


@pytest.fixture(scope="module")
def one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)
