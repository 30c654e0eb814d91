"""How numbers are written for people, the same in the report and in the terminal. None is a dash."""

from __future__ import annotations

import math

DASH = "–"


def number(value: float | None) -> str:
    """About three significant digits."""
    if value is None or not math.isfinite(value):
        return DASH
    size = abs(value)
    if size == 0:
        return "0"
    if size >= 1000:
        return f"{value:,.0f}"
    if size >= 100:
        return f"{value:.0f}"
    if size >= 10:
        return f"{value:.1f}"
    if size >= 0.01:
        return f"{value:.2f}"
    return f"{value:.2g}" if size >= 1e-4 else f"{value:.1e}"


def signed(value: float | None, digits: int = 2) -> str:
    """With its sign; a true minus sign, as wide as the plus."""
    if value is None or not math.isfinite(value):
        return DASH
    text = f"{value:+.{digits}f}"
    return text.replace("-", "−")


def percent(share: float | None, digits: int = 1) -> str:
    """A share in [0, 1] as a percentage."""
    return DASH if share is None or not math.isfinite(share) else f"{100 * share:.{digits}f} %"


def points(difference: float | None) -> str:
    """A difference of two shares, in percentage points."""
    return DASH if difference is None else signed(100 * difference, 1)


def count(value: float | None) -> str:
    """A whole number with thousands separators."""
    return DASH if value is None or not math.isfinite(value) else f"{value:,.0f}"


def short_count(value: float | None) -> str:
    """A large number in thousands, millions or billions."""
    if value is None or not math.isfinite(value):
        return DASH
    for size, sign in ((1e9, "B"), (1e6, "M"), (1e4, "k")):
        if abs(value) >= size:
            scaled = value / (1e3 if sign == "k" else size)
            return f"{scaled:.3g} {sign}" if abs(scaled) < 1000 else f"{scaled:,.0f} {sign}"
    return count(value)


def duration(seconds: float | None) -> str:
    """m:ss, or h:mm:ss from an hour on."""
    if seconds is None or not math.isfinite(seconds):
        return DASH
    minutes, rest = divmod(round(max(seconds, 0)), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"
