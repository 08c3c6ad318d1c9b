"""Wording: a number with what it counts, in the singular where there is one."""

from __future__ import annotations

from numbers import Integral


def counted(number: float, noun: str) -> str:
    """Return "1 cell", "3 cells", "0 cells" or "1.5 cells". The noun takes a plain s."""
    shown = str(int(number)) if isinstance(number, Integral) else f"{number:g}"
    return f"{shown} {noun if number == 1 else noun + 's'}"
