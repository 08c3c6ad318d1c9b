"""Wording: the singular where there is one."""

from __future__ import annotations

import numpy as np
import pytest

from harness.wording import counted


@pytest.mark.parametrize(
    ("number", "text"),
    [(0, "0 cells"), (1, "1 cell"), (np.int64(1), "1 cell"), (1.0, "1 cell"), (1.5, "1.5 cells"),
     (np.int64(1_234_567), "1234567 cells")],
)  # fmt: skip
def test_one_is_in_the_singular_and_no_digit_is_lost(number: float, text: str) -> None:
    assert counted(number, "cell") == text
