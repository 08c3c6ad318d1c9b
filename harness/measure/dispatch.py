"""Dispatch: a mode that sees every operator, and does not import PyTorch's compiler for that."""

from __future__ import annotations

import sys
from typing import Any, Self

import torch
from torch.utils._python_dispatch import TorchDispatchMode

COMPILER = "torch._dynamo"
"""What PyTorch imports late: for `torch.compile`, and for an optimizer's first step."""


def forget_traces() -> None:
    """Let PyTorch's compiler trace again what it gave up while its operators were seen."""
    if COMPILER in sys.modules:
        sys.modules[COMPILER].reset()


class OperatorMode(TorchDispatchMode):
    """A dispatch mode whose own frames are never compiled.

    PyTorch sees to that by importing its compiler when the first operator arrives: two seconds in
    every process, for programs that compile nothing. Here it is done if the compiler is there; a
    forward that is the first to compile something has these frames traced, to no effect.
    """

    supports_higher_order_operators = True

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]  # torch leaves it untyped

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        return False

    def __enter__(self) -> Self:
        mode: Any = type(self)
        if COMPILER in sys.modules and "is_hidden" not in vars(mode):
            mode.__torch_dispatch__ = torch.compiler.disable(mode.__torch_dispatch__)
            mode.is_hidden = True
        entered: Self = super().__enter__()  # type: ignore[no-untyped-call]  # as __init__
        return entered
