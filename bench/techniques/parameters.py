"""What parameters of techniques may be: names for ranges that several share."""

from __future__ import annotations

from typing import Annotated

from bench.spec import Range

Share = Annotated[float, Range(0, 1)]
ShareBelowOne = Annotated[float, Range(0, 1, below=True)]
Count = Annotated[int, Range(1)]
Epochs = Annotated[int, Range(0)]
IF_TUNED = ("training data if fine-tuned",)
"""What techniques need that train only when they are given epochs."""
