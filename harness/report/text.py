"""Numbers as people read them: units, intervals, signs."""

from __future__ import annotations

from math import floor, inf, isfinite, log10

PREFIXES = ((1e9, "G"), (1e6, "M"), (1e3, "k"), (1.0, ""), (1e-3, "m"), (1e-6, "µ"), (1e-9, "n"))
BYTES = ((2.0**30, "GiB"), (2.0**20, "MiB"), (2.0**10, "KiB"), (1.0, "B"))


def format_value(value: float | None, unit: str, digits: int = 3) -> str:
    """Return a number with its unit: 0.00123 s is "1.23 ms"; nothing is "–"."""
    if value is None or not isfinite(value):
        return "–"
    scale, name = choose_scale(value, unit)
    if not name and abs(value) <= 1:  # a share
        digits = max(digits, 4)
    return f"{round_to(value / scale, digits)} {name}".strip()


def format_bytes(size: float) -> str:
    """Return a size in powers of ten, as limits are written: 1e6 is "1 MB"."""
    scale, prefix = next((f for f in PREFIXES if size >= f[0]), PREFIXES[-1])
    return f"{size / scale:.4g} {prefix}B"


def format_interval(value: float, low: float, high: float, unit: str) -> str:
    """Return a value with its 95 % interval: "1.23 (1.21–1.26) ms"."""
    text = format_value(value, unit, 3)
    if not (isfinite(value) and isfinite(low) and isfinite(high)):
        return text
    number, _, named = text.partition(" ")
    scale, _ = choose_scale(value, unit)
    places = len(number.partition(".")[2])
    bounds = "–".join(f"{bound / scale:.{places}f}" for bound in (low, high))
    return f"{number} ({bounds}){' ' + named if named else ''}"


def format_count(value: int) -> str:
    """Return a whole number with its thousands apart; nothing is "–"."""
    return f"{value:,}" if value else "–"


def choose_scale(value: float, unit: str) -> tuple[float, str]:
    """Return what a value is divided by to be read, and the name of the unit it then has."""
    if unit == "B":
        return next((found for found in BYTES if abs(value) >= found[0]), BYTES[-1])
    plain = unit.removeprefix("1")  # "1/s" is read as "/s", "1" as nothing
    if not value or (unit == "1" and abs(value) < 1e3):
        return 1.0, plain
    scale, prefix = next((f for f in PREFIXES if abs(value) >= f[0] * 0.9995), PREFIXES[-1])
    return scale, prefix + plain


def format_ratio(ratio: float) -> str:
    """Return how many times less a ratio to the baseline is: 0.5 is "2.00×", 2 is "0.50×"."""
    return f"{1 / ratio:.2f}×" if isfinite(ratio) and ratio > 0 else "–"


def format_speedup(ratio: float, low: float, high: float) -> str:
    """Return a latency ratio as a speed-up with its interval: "2.00× (1.96–2.04)"."""
    if not all(0 < one < inf for one in (ratio, low, high)):
        return format_ratio(ratio)
    return f"{1 / ratio:.2f}× ({1 / high:.2f}–{1 / low:.2f})"


def format_probability(value: float) -> str:
    """Return a probability in percent, never as certain as drawing cannot show: "> 99 %"."""
    if not isfinite(value):
        return "–"
    if value > 0.99:
        return "> 99 %"
    return "< 1 %" if value < 0.01 else f"{value * 100:.0f} %"


WHOLE_FROM = 99.5
"""Percent that two digits would write as 1e+02."""


def format_width(share: float) -> str:
    """Return an interval's relative half-width: 0.021 is "2.1 %"; nothing where it is unknown."""
    if not isfinite(share):
        return ""
    percent = share * 100
    return f"{percent:.0f} %" if percent >= WHOLE_FROM else f"{percent:.2g} %"


def format_points(difference: float) -> str:
    """Return a difference of shares in percentage points, with its sign."""
    return f"{100 * difference:+z.1f}".replace("-", "−") if isfinite(difference) else "–"


def round_to(value: float, digits: int) -> str:
    """Return a number with so many significant digits and no exponent."""
    if value == 0:
        return "0"
    rounded = float(f"{value:.{digits - 1}e}")  # 9.996 has become 10.0, with a place less
    places = max(0, digits - 1 - floor(log10(abs(rounded))))
    return f"{value:.{places}f}"
