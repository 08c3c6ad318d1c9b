"""TF32: which float32 products a card may compute with 10 of the 23 bits of a mantissa."""

from __future__ import annotations

from typing import Any

import torch


def find_tf32() -> dict[str, bool]:
    """Return for each kind of float32 operator whether it may run in TF32.

    Read through `fp32_precision`: the older `allow_tf32` raises once anybody has set the newer one
    (pytorch/pytorch#179445), while these getters know what was set through either.
    """
    cudnn: Any = torch.backends.cudnn  # torch declares no types for its members
    kinds = {"matmul": torch.backends.cuda.matmul, "conv": cudnn.conv, "rnn": cudnn.rnn}
    return {kind: place.fp32_precision == "tf32" for kind, place in kinds.items()}


def describe_tf32() -> str:
    """Return it in words: "matmul off, conv on, rnn on"."""
    return ", ".join(f"{kind} {'on' if on else 'off'}" for kind, on in find_tf32().items())


def may_run_in_tf32(operator: str) -> bool:
    """Tell whether an operator's float32 products may run in TF32 on a card, by its name."""
    kind = "conv" if "conv" in operator else "rnn" if "rnn" in operator else "matmul"
    return find_tf32()[kind]
